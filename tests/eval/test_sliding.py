"""Windows that move over documents: against a loop over tokens, and against a code for whole documents."""

import dataclasses
import functools

import jax
import numpy as np
import pytest

from lcx.data import tokens
from lcx.data.tokenizers import Bytes
from lcx.errors import ConfigError, DataError
from lcx.eval import Context, SlidingConfig, document_bits, sliding_perplexity
from lcx.eval.api import whole_rows
from lcx.eval.sliding import cuts, sliding
from lcx.models import Scores, init, score
from lcx.types import PADDING
from tests.eval.tiny import CONFIG, MODEL

SIZES = (5, 40, 23, 31)


@pytest.fixture(scope='module')
def context(tmp_path_factory):
    random = np.random.default_rng(0)
    path = tmp_path_factory.mktemp('tokens') / 'a'
    tokens.write(path, [''.join(map(chr, random.integers(97, 123, n))) for n in SIZES], Bytes())
    return Context(CONFIG, tokens.read(path, 'test'), Bytes(), seed=0)


@pytest.fixture(scope='module')
def model():
    params = init(MODEL, jax.random.key(0))
    params = jax.tree.map(lambda x: 4 * x, params)  # so that what is read matters
    return jax.jit(functools.partial(score, MODEL, chunk=64)), params


def naive(apply, params, ids, length, stride):
    """Hugging Face's loop with max_length ``length`` + 1, a token at a time; the nats by the index of the target."""
    found, end = {}, 0
    for begin in range(0, len(ids), stride):
        last, end = end, min(begin + length + 1, len(ids))
        for target in range(max(begin + 1, last), end):
            row = np.zeros(length + 1, np.int32)
            row[: target - begin + 1] = ids[begin : target + 1]
            batch = whole_rows(row[None])
            nll = apply(params, batch).nll[0, target - begin - 1]
            assert target not in found and (begin == 0 or target - begin >= length + 1 - stride)
            found[target] = float(nll)
        if end == len(ids):
            break
    return np.array([found[i] for i in range(1, len(ids))])


@pytest.mark.parametrize(('size', 'stride'), [(41, 1), (41, 3), (41, 8), (8, 4), (9, 4), (10, 4), (2, 8)])
def test_each_token_is_scored_once_as_in_a_loop_over_tokens(model, size, stride):
    ids = np.random.default_rng(size).integers(0, 257, size).astype(np.int32)
    found = sliding(*model, ids, length=8, stride=stride, tokens=32)
    np.testing.assert_allclose(found, naive(*model, ids, 8, stride), rtol=2e-5)


def test_what_the_last_window_lacks_is_padding():
    batch = cuts(np.arange(1, 8), length=4, stride=3)
    assert batch.tokens.tolist() == [[1, 2, 3, 4], [4, 5, 6, 0]]
    assert batch.weights.tolist() == [[1, 1, 1, 1], [0, 1, 1, 0]]
    assert (batch.segments == PADDING).tolist() == [[False] * 4, [False] * 3 + [True]]


def by_position(_, batch):
    """1 + t/64 bits at position t of a window."""
    nll = (1 + batch.positions / 64) * np.log(2)
    return Scores(nll, nll, np.zeros_like(nll))


def test_long_documents_have_a_row_each_and_go_on_where_they_were(context):
    rows = list(sliding_perplexity(context).run(by_position, None))
    assert {row['document'] for row in rows} <= {1, 2, 3} and len(rows) == 4
    for row in rows:
        length, count = row['length'], SIZES[row['document']] - 1
        assert (row['targets'], row['tokens'], row['bytes']) == (count, count + 1, count)
        assert row['stride'] == length // 2
        later = length // 2 + np.arange(count - length) % (length // 2)
        bits = 1 + np.concatenate([np.arange(length), later]) / 64
        assert row['bits_per_byte'] == pytest.approx(bits.mean())
        assert row['nats'] == pytest.approx(bits.mean() * np.log(2))
    assert list(sliding_perplexity(context).run(by_position, None, rows[1:3])) == [rows[0], rows[3]]


def test_a_whole_document_costs_what_a_code_needs_whatever_its_tokens(context):
    """Its first token, too; bytes are those that the tokens stand for."""
    tokenizer = Bytes()
    tokenizer.token_bytes = np.random.default_rng(1).integers(1, 5, 257)
    config = dataclasses.replace(CONFIG, windows=9, lengths=(64,), last=1)
    seen = {}

    def uniform(_, batch):
        seen[int(batch.tokens[0, 0])] = batch.tokens[0]
        nll = np.full(batch.tokens.shape, np.log(257))
        return Scores(nll, nll, nll)

    rows = list(document_bits(context._replace(config=config, tokenizer=tokenizer)).run(uniform, None))
    assert sorted(row['document'] for row in rows) == [0, 1, 2, 3] and list(seen) == [tokenizer.bos]
    for row in rows:
        ids = context.tokens[row['document']]
        assert row['targets'] == len(ids) and row['bytes'] == tokenizer.token_bytes[ids].sum()
        assert row['bits_per_byte'] == pytest.approx(len(ids) * np.log2(257) / row['bytes'])
        assert row['nats'] == pytest.approx(np.log(257))


def test_a_part_of_a_document_is_told_by_its_targets(context):
    config = dataclasses.replace(CONFIG, sliding=SlidingConfig(stride=2, most=20))
    rows = list(sliding_perplexity(context._replace(config=config)).run(by_position, None))
    assert {(row['targets'], row['stride']) for row in rows} == {(19, 2)}
    assert all(row['tokens'] == SIZES[row['document']] for row in rows)


def test_settings_that_would_leave_tokens_out_are_refused(context):
    with pytest.raises(ConfigError, match=r'sliding\.stride: 9 exceeds the shortest of lengths, 8'):
        dataclasses.replace(CONFIG, sliding=SlidingConfig(stride=9))
    with pytest.raises(ConfigError, match=r'stride: 0 must be greater than 0'):
        SlidingConfig(stride=0)
    with pytest.raises(ConfigError, match=r'most: 1 must be at least 2 tokens'):
        SlidingConfig(most=1)
    long = context._replace(config=dataclasses.replace(CONFIG, lengths=(8, 64)))
    with pytest.raises(DataError, match=r'test has no document of 65 tokens; the longest has 40'):
        sliding_perplexity(long)
