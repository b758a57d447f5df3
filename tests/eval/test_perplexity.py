"""Perplexity against closed forms: a model that knows nothing, and one whose loss is a function of position."""

import functools

import jax
import numpy as np
import pytest

from lcx.data import tokens
from lcx.data.tokenizers import Bytes
from lcx.eval import Context, EvalConfig, Perplexity
from lcx.models import LayerKind, ModelConfig, Scores, init, score

LENGTHS, LAST, WINDOWS = (32, 64, 256), 16, 6
CONFIG = EvalConfig(
    run=('perplexity',),
    split='validation',
    every=None,
    lengths=LENGTHS,
    windows=WINDOWS,
    depths=(0.5,),
    samples=1,
    last=LAST,
    tokens=4 * 64,
)
MODEL = ModelConfig(
    vocab=257,
    width=16,
    layers=1,
    heads=1,
    kv_heads=1,
    head_dim=16,
    hidden=16,
    tie_embeddings=False,
    kinds={'full': LayerKind(attention={'name': 'dense'})},
    position={'name': 'none'},
)


@pytest.fixture(scope='module')
def held(tmp_path_factory):
    """One document of random letters."""
    path = tmp_path_factory.mktemp('tokens') / 'a'
    letters = np.random.default_rng(0).integers(97, 123, 3000)
    tokens.write(path, [bytes(letters.tolist()).decode()], Bytes())
    return tokens.read(path, 'test')


def evaluator(held):
    return Perplexity(Context(CONFIG, held, Bytes(), seed=0))


def test_a_model_that_knows_nothing_needs_log2_of_the_vocabulary(held):
    params = init(MODEL, jax.random.key(0))
    params['output'] = np.zeros_like(params['output'])
    found = list(evaluator(held).run(jax.jit(functools.partial(score, MODEL, chunk=64)), params))
    assert [row['length'] for row in found[:3]] == list(LENGTHS)
    for row in found:
        for name in ('', 'last_') if row['evaluator'] == 'perplexity' else ('',):
            assert row[f'{name}bits_per_byte'] == pytest.approx(np.log2(257), rel=1e-6)
            assert row[f'{name}bits_per_byte_stderr'] == pytest.approx(0, abs=1e-12)
            assert row[f'{name}ppl'] == pytest.approx(257, rel=1e-5)


def by_position(_, batch):
    """1 + t/64 bits at position t."""
    nll = (1 + batch.positions / 64) * np.log(2)
    return Scores(nll, nll, np.zeros_like(nll))


def test_bits_are_means_over_all_and_over_the_last_targets(held):
    for row, length in zip(evaluator(held).run(by_position, None), LENGTHS):
        assert row['bits_per_byte'] == pytest.approx(1 + (length - 1) / 2 / 64)
        assert row['last_bits_per_byte'] == pytest.approx(1 + (length - 1 - (LAST - 1) / 2) / 64)
        assert row['ppl'] == pytest.approx(2 ** row['bits_per_byte'])
        assert (row['windows'], row['last']) == (WINDOWS, LAST)


def test_buckets_partition_the_longest_window(held):
    longest, *buckets = list(evaluator(held).run(by_position, None))[len(LENGTHS) - 1 :]
    ends = [(row['bucket_start'], row['bucket_end']) for row in buckets]
    assert ends == [(0, 64), (64, 128), (128, 256)]
    for row, (start, end) in zip(buckets, ends):
        assert row['evaluator'] == 'perplexity_by_position' and row['length'] == 256
        assert row['bits_per_byte'] == pytest.approx(1 + (start + end - 1) / 2 / 64)
    total = sum(row['bits_per_byte'] * (end - start) for row, (start, end) in zip(buckets, ends))
    assert total / 256 == pytest.approx(longest['bits_per_byte'])


def test_the_last_targets_are_the_same_tokens_at_every_length(held):
    seen = {length: [] for length in LENGTHS}

    def watching(_, batch):
        real = batch.segments[:, 0] > 0
        seen[batch.tokens.shape[1]].append(batch.targets[real, -LAST:])
        return by_position(_, batch)

    list(evaluator(held).run(watching, None))
    first, *others = (np.concatenate(parts) for parts in seen.values())
    assert first.shape == (WINDOWS, LAST)
    for other in others:
        np.testing.assert_array_equal(first, other)


def test_standard_error_is_of_the_mean_over_windows(held):
    def by_window(_, batch):
        nll = np.ones(batch.tokens.shape) * (1 + batch.ids[:, None]) * np.log(2)
        return Scores(nll, nll, nll)

    row = next(evaluator(held).run(by_window, None))
    windows = 1 + np.arange(WINDOWS)
    assert row['bits_per_byte'] == pytest.approx(np.mean(windows))
    assert row['bits_per_byte_stderr'] == pytest.approx(np.std(windows, ddof=1) / WINDOWS**0.5)


def test_bits_are_per_byte_of_the_text(held):
    """With tokens of one to four bytes, as in any larger vocabulary."""
    tokenizer = Bytes()
    tokenizer.token_bytes = np.random.default_rng(1).integers(1, 5, 257)
    made = Perplexity(Context(CONFIG, held, tokenizer, seed=0))
    row = next(made.run(by_position, None))
    size = tokenizer.token_bytes[made.ids[:, -32:]].sum(axis=1)
    assert row['bits_per_byte'] == pytest.approx(np.mean((32 + 31 * 32 / 2 / 64) / size))
    assert row['bits_per_byte_stderr'] > 0 and row['ppl'] == pytest.approx(
        2 ** (1 + 31 / 2 / 64)
    )  # of tokens


def test_the_gain_of_context_is_a_mean_of_pairs(held):
    """Windows that differ by whole bits gain alike, up to what a hundredth of each saves per doubling of context."""

    def saving(_, batch):
        nats = (1.0 + batch.ids[:, None]) * (3 - np.log2(batch.tokens.shape[1]) / 100)
        nll = np.broadcast_to(nats, batch.tokens.shape)
        return Scores(nll, nll, nll)

    found = [row for row in evaluator(held).run(saving, None) if row['evaluator'] == 'perplexity']
    levels = 1 + np.arange(WINDOWS)
    for row, doublings in zip(found, (0, 1, 3)):
        gains = levels * doublings / 100
        assert row['short'] == 32 and row['gain_nats'] == pytest.approx(gains.mean(), abs=1e-12)
        error = np.std(gains, ddof=1) / WINDOWS**0.5
        assert row['gain_nats_stderr'] == pytest.approx(error, abs=1e-12)


def test_nats_by_position_are_means_over_the_targets_of_a_bucket(held):
    buckets = [row for row in evaluator(held).run(by_position, None) if 'bucket_end' in row]
    for row in buckets:
        middle = (row['bucket_start'] + row['bucket_end'] - 1) / 2
        assert row['nats'] == pytest.approx((1 + middle / 64) * np.log(2))
        assert row['nats_stderr'] == pytest.approx(0, abs=1e-12)
