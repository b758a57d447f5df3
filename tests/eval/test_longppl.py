"""LongPPL against its formula over single tokens, with models whose key tokens are known."""

import dataclasses
import functools

import jax
import numpy as np
import pytest

from lcx.data import tokens
from lcx.data.tokenizers import Bytes
from lcx.errors import ConfigError
from lcx.eval import Context, LongPPL, LongPPLConfig
from lcx.eval.api import whole_rows
from lcx.models import Scores, init, score
from tests.eval import tiny
from tests.eval.tiny import MODEL

CONFIG = dataclasses.replace(tiny.CONFIG, lengths=(8, 16, 32), windows=3, tokens=64)


@pytest.fixture(scope='module')
def context(tmp_path_factory):
    random = np.random.default_rng(0)
    path = tmp_path_factory.mktemp('tokens') / 'a'
    tokens.write(path, [''.join(map(chr, random.integers(97, 123, 200))) for _ in range(2)], Bytes())
    return Context(CONFIG, tokens.read(path, 'test'), Bytes(), seed=0)


@pytest.fixture(scope='module')
def model():
    params = jax.tree.map(lambda x: 2 * x, init(MODEL, jax.random.key(0)))
    return jax.jit(functools.partial(score, MODEL, chunk=64)), params


def token_by_token(apply, params, ids, short):
    """Nats of every target after all of ``ids`` before it, and after the last K to K + S - 1: the paper's loop."""
    stride, count = short // 4, len(ids)

    def nats(begin, target):
        row = np.zeros(count + 1, np.int32)
        row[: target - begin + 1] = ids[begin : target + 1]
        return float(apply(params, whole_rows(row[None])).nll[0, target - begin - 1])

    long = np.array([nats(0, i) for i in range(1, count)])
    starts = [max(0, (i - short) // stride * stride) if i >= short else 0 for i in range(1, count)]
    assert all(short <= i - s <= short + stride - 1 for i, s in zip(range(1, count), starts) if i >= short)
    return long, np.array([nats(s, i) for i, s in zip(range(1, count), starts)])


def test_rows_are_the_formula_over_single_tokens(context, model):
    own = LongPPLConfig(alpha=0.02, beta=-12.0)
    config = dataclasses.replace(CONFIG, lengths=(8, 32), windows=1, longppl=own)
    evaluator = LongPPL(context._replace(config=config))
    (row,) = evaluator.run(*model)
    long, short = token_by_token(*model, evaluator.ids[0], 8)
    keys = (short - long > 0.02) & (long < 12.0)
    keys[:7] = False
    assert 0 < keys.sum() < 24 and row['key_tokens'] == keys.sum()
    assert row['key_nats'] == pytest.approx(long[keys].mean(), rel=1e-5)
    assert row['nats'] == pytest.approx(long.mean(), rel=1e-5)
    assert (row['length'], row['short'], row['targets']) == (32, 8, 32)


def falling(start):
    """Nats that fall by one with every 4 tokens of context: only some tokens gain two."""

    def apply(params, batch):
        nll = np.maximum(0.0, params - (batch.positions + 1) / 4)
        return Scores(nll, nll, nll)

    return apply, start


def test_key_tokens_are_the_judges_and_nats_the_models(context):
    """The judge's long nats at target i are 4 - (i + 1) / 4, and after 8 or 9 tokens 2 or 1.75."""
    config = dataclasses.replace(CONFIG, longppl=LongPPLConfig(judge='runs/judge', alpha=1.6, beta=-2.0))
    evaluator = LongPPL(context._replace(config=config, judge=lambda: falling(4.0)))
    rows = list(evaluator.run(*falling(9.0)))
    assert [(r['length'], r['window']) for r in rows] == [(n, i) for n in (16, 32) for i in range(3)]
    for row in rows:
        places = np.arange(8, row['length'] + 1)  # tokens before the target
        short = 4 - (8 + places % 2) / 4
        keys = places[short - np.maximum(0, 4 - places / 4) > 1.6]
        assert row['key_tokens'] == len(keys) > 0
        assert row['key_nats'] == pytest.approx(np.mean(9 - keys / 4))
        assert row['judge'] == 'runs/judge'


def test_a_window_without_key_tokens_has_no_key_nats_and_what_is_done_is_left_out(context):
    evaluator = LongPPL(context)
    rows = list(evaluator.run(*falling(1.0)))
    assert all(row['key_tokens'] == 0 and 'key_nats' not in row for row in rows)
    assert list(evaluator.run(*falling(1.0), rows[:4])) == rows[4:]
    other = dataclasses.replace(CONFIG, longppl=LongPPLConfig(alpha=1.0))
    assert len(list(LongPPL(context._replace(config=other)).run(*falling(1.0), rows))) == 6


def test_a_short_context_that_is_none_is_refused(context):
    config = dataclasses.replace(CONFIG, longppl=LongPPLConfig(short=32))
    with pytest.raises(
        ConfigError, match=r'eval\.longppl\.short: 32 is not below the longest of eval\.lengths, 32'
    ):
        LongPPL(context._replace(config=config))
