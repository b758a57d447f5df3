"""Choosing tokens: against transformers and float64 NumPy, and draws by chi-square and row by row."""

import ast
import functools
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lcx.config import build
from lcx.errors import ConfigError
from lcx.generate import sampling
from lcx.generate.sampling import Sampling, at_step, row_keys

GOLDENS = dict(
    np.load(
        pathlib.Path(__file__).parents[2] / 'third_party' / 'sampling' / 'goldens.npz', allow_pickle=False
    )
)
LOGITS, TOKENS = GOLDENS.pop('logits'), GOLDENS.pop('tokens')


def seen():
    found = np.zeros(LOGITS.shape, bool)
    np.put_along_axis(found, TOKENS, True, axis=1)
    return found


def close(got, expected):
    """The same tokens are cut, and the others have the same probabilities: logits agree up to a number per row."""
    got, expected = np.asarray(got, np.float64), np.asarray(expected, np.float64)
    np.testing.assert_array_equal(np.isneginf(got), np.isneginf(expected))
    shift = got.max(-1, keepdims=True) - expected.max(-1, keepdims=True)
    np.testing.assert_allclose(got, expected + shift, rtol=1e-6, atol=3e-6)


@pytest.mark.parametrize('settings', GOLDENS, ids=str)
def test_transformers(settings):
    fields = {'temperature': 1.0} | ast.literal_eval(settings)
    close(Sampling(**fields).warped(LOGITS, seen()), GOLDENS[settings])


def test_the_penalty_alone_leaves_logits_where_they_are():
    (name,) = [name for name in GOLDENS if name == "{'repetition_penalty': 1.3}"]
    for tokens in (seen(), seen().astype(np.int32) * 3):
        got = Sampling(repetition_penalty=1.3).warped(LOGITS, tokens)
        np.testing.assert_allclose(got, GOLDENS[name], rtol=1e-6)
    np.testing.assert_array_equal(
        Sampling(repetition_penalty=1.3).choose(LOGITS, seen=seen()), GOLDENS[name].argmax(-1)
    )


TIES = np.array([[0, 2, 1, 2, 1, 2, -np.inf, 1]], np.float32)


def nucleus(logits, p):
    """The definition in float64: the most probable tokens, lower ids first, until they have a share of p."""
    kept = np.zeros(logits.shape, bool)
    for row, keep in zip(logits.astype(np.float64), kept, strict=True):
        shares = np.exp(row - row.max()) / np.exp(row - row.max()).sum()
        total = 0.0
        for token in sorted(range(len(row)), key=lambda t: (-row[t], t)):
            keep[token] = True
            total += shares[token]
            if total >= p:
                break
    return kept


@pytest.mark.parametrize('p', [1e-9, 0.1, 0.35, 0.6, 0.9, 0.99])
@pytest.mark.parametrize('logits', [LOGITS, TIES], ids=['random', 'ties'])
def test_top_p_is_the_smallest_nucleus(logits, p):
    got = np.asarray(sampling.top_p(jnp.asarray(logits), p))
    np.testing.assert_array_equal(np.isfinite(got), nucleus(logits, p))
    np.testing.assert_array_equal(got[np.isfinite(got)], logits[np.isfinite(got)])


@pytest.mark.parametrize(('p', 'kept'), [(1 - 1e-6, 512), (1 - 1e-9, 768), (1.0, 1024)])
def test_top_p_cuts_small_tails(p, kept):
    """Half of the tokens have 2e-9 together, which a sum near 1 would not tell from nothing."""
    logits = np.repeat(np.float32([[0, -20]]), 512, axis=1)
    got = np.isfinite(np.asarray(sampling.top_p(jnp.asarray(logits), p)))[0]
    assert abs(got.sum() - kept) < 10 and got[: got.sum()].all()


@pytest.mark.parametrize(
    ('warp', 'kept'),
    [
        (lambda x: sampling.top_k(x, 1), [1, 3, 5]),
        (lambda x: sampling.top_k(x, 2), [1, 3, 5]),
        (lambda x: sampling.top_k(x, 4), [1, 2, 3, 4, 5, 7]),
        (lambda x: sampling.top_k(x, 99), range(8)),
        (lambda x: sampling.min_p(x, 1.0), [1, 3, 5]),
        (lambda x: sampling.min_p(x, 0.3), [1, 2, 3, 4, 5, 7]),
        (lambda x: sampling.min_p(x, 0.0), range(8)),
        (lambda x: sampling.top_k(sampling.temperature(x, 1e-6), 1), [1, 3, 5]),
    ],
)
def test_ties(warp, kept):
    finite = [token for token in kept if np.isfinite(TIES[0, token])]
    assert list(np.flatnonzero(np.isfinite(np.asarray(warp(jnp.asarray(TIES))))[0])) == finite


def test_small_temperatures_of_large_logits_stay_finite():
    large = jnp.array([[3e4, 2.9e4, 3e4, -3e4]])
    np.testing.assert_allclose(
        jax.nn.softmax(Sampling(temperature=1e-6).warped(large)), [[0.5, 0, 0.5, 0]], atol=1e-6
    )


def test_greedy_takes_the_first_of_equals():
    np.testing.assert_array_equal(Sampling().choose(TIES), [1])
    np.testing.assert_array_equal(Sampling(top_k=3, top_p=0.1, min_p=0.5).choose(LOGITS), LOGITS.argmax(-1))


@functools.partial(jax.jit, static_argnums=0)
def chosen(how, logits, keys, step, seen):
    return how.choose(logits, at_step(keys, step), seen)


def test_draws_follow_the_distribution():
    """Pearson's chi-square of 40,000 draws over 12 tokens; 31.3 is passed once in 1,000 times (11 degrees)."""
    how = Sampling(temperature=0.7, min_p=1e-6)
    row = np.random.default_rng(1).normal(size=(1, 13)).astype(np.float32)
    row[0, 4] = -40.0
    shares = np.exp(np.float64(row[0]) / 0.7)
    shares[4] = 0
    shares /= shares.sum()
    tokens = chosen(how, jnp.tile(row, (40_000, 1)), row_keys(3, jnp.arange(40_000)), 5, None)
    counts = np.bincount(tokens, minlength=13)
    assert counts[4] == 0
    expected = 40_000 * np.delete(shares, 4)
    assert expected.min() > 50 and np.sum((np.delete(counts, 4) - expected) ** 2 / expected) < 31.3


@pytest.mark.slow
def test_rare_tokens_are_drawn_as_often_as_they_should():
    """2^15 tokens of 2^-23 each: 32 of 8,192 draws are expected to be of them; JAX's default noise gives 13."""
    logits = jnp.zeros(2**15 + 1).at[0].set(np.log((1 - 2.0**-8) * 2**23))
    logits = jnp.tile(logits, (256, 1))
    keys = row_keys(0, jnp.arange(256))
    rows = [np.asarray(chosen(Sampling(1.0), logits, keys, step, None)) for step in range(32)]
    assert 18 < np.sum(np.concatenate(rows) > 0) < 46


def test_a_row_draws_the_same_in_every_batch():
    logits = np.random.default_rng(2).normal(size=(5, 33)).astype(np.float32)
    how = Sampling(temperature=1.5, top_k=20, top_p=0.95)
    steps = [np.asarray(chosen(how, logits, row_keys(7, jnp.arange(5)), step, None)) for step in range(8)]
    assert len({tuple(tokens) for tokens in steps}) == 8
    for rows in ([3], [2, 2, 0, 4, 1, 3]):
        for step in range(8):
            got = chosen(how, logits[np.array(rows)], row_keys(7, jnp.array(rows)), step, None)
            np.testing.assert_array_equal(got, steps[step][rows])
    other = [np.asarray(chosen(how, logits, row_keys(8, jnp.arange(5)), step, None)) for step in range(8)]
    assert not np.array_equal(other, steps)
    one = [jax.random.fold_in(jax.random.fold_in(jax.random.key(7), row), 3) for row in range(5)]
    keys = at_step(row_keys(7, jnp.arange(5)), 3)
    np.testing.assert_array_equal(jax.random.key_data(keys), [jax.random.key_data(key) for key in one])


def test_equal_settings_compile_once():
    count = 0

    @functools.partial(jax.jit, static_argnums=0)
    def counted(how, logits, keys, step, seen):
        nonlocal count
        count += 1
        return how.choose(logits, at_step(keys, step), seen)

    for step in range(3):
        how = Sampling(temperature=0.8, top_k=5, top_p=0.9, min_p=0.01, repetition_penalty=1.2)
        counted(how, LOGITS, row_keys(step, jnp.arange(6)), step, seen())
    assert count == 1


def test_half_precision_logits_are_warped_in_fp32():
    warped = Sampling(temperature=0.3, top_p=0.9).warped(jnp.asarray(LOGITS, jnp.bfloat16))
    assert warped.dtype == jnp.float32
    tokens = Sampling(temperature=0.3).choose(jnp.asarray(LOGITS, jnp.bfloat16), row_keys(0, jnp.arange(6)))
    assert tokens.dtype == jnp.int32 and tokens.shape == (6,)


@pytest.mark.parametrize(
    ('fields', 'message'),
    [
        ({'temperature': -0.1}, r'temperature: -0\.1 must be 0 \(greedy\) or from 1e-6 on'),
        ({'temperature': 1e-9}, 'temperature: 1e-09 must be'),
        ({'temperature': float('nan')}, 'temperature: nan must be'),
        ({'temperature': float('inf')}, 'temperature: inf must be'),
        ({'temperature': None}, 'temperature: None must be'),
        ({'top_k': 0}, 'top_k: 0 must be a whole number of at least 1'),
        ({'top_k': 2.5}, r'top_k: 2\.5 must be a whole number'),
        ({'top_k': True}, 'top_k: True must be a whole number'),
        ({'top_p': 0.0}, r'top_p: 0\.0 must be above 0 and at most 1'),
        ({'top_p': 1.1}, r'top_p: 1\.1 must be above 0 and at most 1'),
        ({'min_p': -0.5}, r'min_p: -0\.5 must be from 0 to 1'),
        ({'min_p': 2.0}, r'min_p: 2\.0 must be from 0 to 1'),
        ({'repetition_penalty': 0.0}, r'repetition_penalty: 0\.0 must be above 0 and finite'),
    ],
)
def test_numbers_out_of_range(fields, message):
    with pytest.raises(ConfigError, match=message):
        Sampling(**fields)
    if not isinstance(next(iter(fields.values())), (bool, type(None))) and 'top_k' not in fields:
        with pytest.raises(ConfigError, match=rf'sampling\.{message}'):
            build(Sampling, fields, 'sampling')


def test_what_is_missing_is_said():
    with pytest.raises(ConfigError, match=r'temperature: 0\.5 draws tokens, which needs a key per row'):
        Sampling(temperature=0.5).choose(LOGITS)
    with pytest.raises(ConfigError, match=r'repetition_penalty: 1\.2 needs the tokens seen so far'):
        Sampling(repetition_penalty=1.2).choose(LOGITS)
