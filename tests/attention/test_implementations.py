"""Every registered implementation keeps the contract, or says that it cannot."""

import functools
import importlib.util

import pytest

from lcx.attention import ATTENTION, blockwise, dense, jax_nn, splash, tokamax
from tests.contracts.attention_contract import AttentionContract, Row

NO_INTERVAL = frozenset({'streaming', 'prefix', 'by head', 'slopes', 'shared bias', 'packed, all at once'})
QUERIES_ELSEWHERE = frozenset({'out of order', 'one query', 'queries before the keys'})


class TestContract(AttentionContract):
    rows = [
        Row('dense', dense.attend),
        Row('blockwise', functools.partial(blockwise.attend, block=16)),
        Row(
            'xla',
            jax_nn.xla,
            refuses=NO_INTERVAL | {'window and softcap', 'short values'},
            poisons=QUERIES_ELSEWHERE | {'packed', 'encoder'},
        ),
        Row(
            'splash',
            functools.partial(splash.attend, block=128, interpret=True),
            refuses=NO_INTERVAL | {'short values'},
            poisons=QUERIES_ELSEWHERE,
        ),
    ]


@pytest.mark.skipif(not importlib.util.find_spec('tokamax'), reason="needs pip install 'lcx[kernels]'")
class TestTokamax(AttentionContract):
    rows = [
        Row(
            'tokamax',
            tokamax.attend,
            refuses=NO_INTERVAL | {'short values'},
            poisons=frozenset({'out of order'}),
        )
    ]


def test_every_implementation_has_a_row():
    rows = [*TestContract.rows, *TestTokamax.rows]
    without = {'cudnn'}  # the same code as 'xla', and a kernel for GPUs only: see test_fused.py
    assert {row.name for row in rows} | without == set(ATTENTION)
