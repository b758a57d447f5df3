"""Every registered implementation keeps the contract."""

import functools

from lcx.attention import ATTENTION, blockwise, dense
from tests.contracts.attention_contract import AttentionContract, Row


class TestContract(AttentionContract):
    rows = [
        Row('dense', dense.attend),
        Row('blockwise', functools.partial(blockwise.attend, block=16)),
    ]


def test_every_implementation_has_a_row():
    assert {row.name for row in TestContract.rows} == set(ATTENTION)
