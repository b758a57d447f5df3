"""Partial softmaxes merge in any order into the softmax over the union."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lcx.attention import online

ROWS, KEYS, H = 3, 5, 4


def scores_and_values(seed):
    keys = jax.random.split(jax.random.key(seed))
    return 30 * jax.random.normal(keys[0], (ROWS, KEYS)), jax.random.normal(keys[1], (KEYS, H))


def partial(scores, values):
    top = jnp.max(scores, axis=-1)
    weights = jnp.exp(scores - top[:, None])
    return online.Partial(weights @ values, top, weights.sum(axis=-1))


PIECES = [scores_and_values(seed) for seed in range(3)]
A, B, C = (partial(*piece) for piece in PIECES)


def close(x, y, rtol=1e-5):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=rtol, atol=1e-6), x, y)


def test_merge_is_commutative_and_associative():
    close(online.merge(A, B), online.merge(B, A), rtol=0)
    close(online.merge(online.merge(A, B), C), online.merge(A, online.merge(B, C)))


def test_empty_is_neutral_and_finishes_as_zeros():
    empty = online.empty((ROWS, H))
    close(online.merge(A, empty), A, rtol=0)
    close(online.merge(empty, A), A, rtol=0)
    close(online.merge(empty, empty), empty, rtol=0)
    out, lse = online.finish(empty)
    assert not np.any(out) and np.all(lse == online.FLOOR)


@pytest.mark.parametrize('sink', [None, 0.0, 20.0, -1000.0, 1000.0])
def test_finish_is_the_softmax_over_the_union_and_the_sink(sink):
    out, lse = online.finish(online.merge(online.merge(A, B), C), None if sink is None else jnp.float32(sink))
    scores, values = (np.concatenate([p[i] for p in PIECES], axis=-1 if i == 0 else 0) for i in (0, 1))
    extra = np.full((ROWS, 1), -np.inf if sink is None else sink)
    scores = np.concatenate([scores, extra], axis=1).astype(np.float64)
    top = scores.max(axis=1, keepdims=True)
    weights = np.exp(scores - top)
    np.testing.assert_allclose(lse, top[:, 0] + np.log(weights.sum(axis=1)), rtol=1e-6)
    expected = weights[:, :-1] / weights.sum(axis=1, keepdims=True) @ values
    np.testing.assert_allclose(out, expected, rtol=1e-4, atol=1e-6)


def test_a_sink_alone_gives_zeros_and_its_own_logit():
    out, lse = online.finish(online.empty((ROWS, H)), jnp.array([1.0, -2.0, 3.0]))
    assert not np.any(out)
    np.testing.assert_allclose(lse, [1.0, -2.0, 3.0])


def test_hidden_scores_weigh_exactly_nothing():
    assert jnp.exp(jnp.float32(online.HIDDEN) - jnp.float32(online.FLOOR)) == 0
