"""Sparse patterns are what their papers define, written here once more on plain integers."""

import numpy as np
import pytest

from lcx.attention import (
    blockwise,
    both,
    causal,
    chunk_distance,
    chunked,
    dense,
    dilated,
    distance,
    either,
    global_tokens,
    random_blocks,
    shifted_groups,
    sinks,
    strided,
    window,
)
from lcx.types import Where


def mixed(bits: int) -> int:
    """fmix32 of MurmurHash3, in Python's integers."""
    for shift, factor in ((16, 0x85EBCA6B), (13, 0xC2B2AE35)):
        bits = (bits ^ bits >> shift) * factor % 2**32
    return bits ^ bits >> 16


def drawn(q: int, k: int, seed: int) -> int:
    bits = mixed((seed + 0x9E3779B9) % 2**32)
    for x in (q, k):
        bits = mixed(bits ^ x % 2**32)
    return bits


DEFINITIONS = {  # of one query and key position and a head
    'window': (window(5), lambda q, k, n: abs(q - k) < 5),
    'sinks': (sinks(3), lambda q, k, n: k < 3),
    'distance': (distance(2, 9), lambda q, k, n: q - k in range(2, 9)),
    'chunked': (chunked(5), lambda q, k, n: q // 5 == k // 5),
    'shifted_groups': (
        shifted_groups(6),
        lambda q, k, n: (q + n % 2 * 3) // 6 == (k + n % 2 * 3) // 6,
    ),
    'chunk_distance': (chunk_distance(5, 2), lambda q, k, n: q // 5 - k // 5 >= 2),
    'dilated': (
        dilated(7, 3),
        lambda q, k, n: q // 7 == k // 7 and {q - q // 7 * 7, k - k // 7 * 7} <= set(range(n % 3, 7, 3)),
    ),
    'strided': (strided(4), lambda q, k, n: abs(q - k) in range(0, 10**9, 4)),
    'global_tokens': (global_tokens(3), lambda q, k, n: min(q, k) < 3),
    'random_blocks': (random_blocks(4, 3, seed=-7), lambda q, k, n: drawn(q // 4, k // 4, -7) % 3 == 0),
    'big bird': (
        either(window(2), global_tokens(1), random_blocks(3, 4)),
        lambda q, k, n: abs(q - k) < 2 or min(q, k) < 1 or drawn(q // 3, k // 3, 0) % 4 == 0,
    ),
}


@pytest.mark.parametrize('start', [-20, 2**30 - 40, -(2**30)])
@pytest.mark.parametrize('name', DEFINITIONS)
def test_definitions(name, start):
    rule, sees = DEFINITIONS[name]
    q, k = start + np.arange(40), start + np.arange(3, 40)
    ones = np.ones((1, 40), np.int32)
    where = Where(*(np.int32(x[None]) for x in (q, k)), ones, ones[:, 3:], np.arange(5))
    found = np.broadcast_to(rule.allow(where), (1, 5, 40, 37))[0]
    np.testing.assert_array_equal(
        found, [[[sees(i, j, n) for j in k.tolist()] for i in q.tolist()] for n in range(5)]
    )


def test_heads_of_a_dilated_rule_together_read_every_position():
    where = Where.plain(1, 12, 12, heads=3)
    seen = np.array(dilated(6, 3).allow(where))[0]
    np.testing.assert_array_equal(np.diagonal(seen, axis1=1, axis2=2).sum(axis=0), 1)
    assert seen.sum() == 3 * 2 * 2**2  # heads, segments, and pairs of the 6 / 3 positions read in each


def test_blockwise_attention_is_dense_attention():
    """By a rule with other holes in every head, smaller than blocks, and queries that read nothing."""
    q, k, v = np.random.default_rng(0).normal(size=(3, 1, 24, 3, 8)).astype(np.float32)
    where, rule = Where.plain(1, 24, 24, heads=3), dilated(6, 3)
    found = np.array(blockwise.attend(q, k, v, where, rule, block=8))
    np.testing.assert_allclose(found, dense.attend(q, k, v, where, rule), atol=2e-6)
    np.testing.assert_array_equal(
        np.any(found, axis=-1), (np.arange(24)[:, None] % 6 % 3 == np.arange(3))[None]
    )


def test_random_blocks_are_one_in_so_many_and_differ_by_seed():
    def picture(seed):
        return np.array(random_blocks(1, 4, seed).allow(Where.plain(1, 500, 500, heads=1)))[0, 0]

    first, second = picture(0), picture(1)
    for found, share in (
        (first, 1 / 4),
        (second, 1 / 4),
        (first & second, 1 / 16),
        (first & first.T, 1 / 16),
    ):
        assert (
            abs(found.mean() - share) < 4 * share**0.5 / 500 * 2
        )  # the last pairs each with its mirror image
    for axis in (0, 1):  # of every block about as many are drawn
        np.testing.assert_allclose(first.sum(axis).std(), (500 * 3 / 16) ** 0.5, rtol=0.15)


def rolled(q, k, v, group: int, wrap: bool):
    """S^2-Attn as the paper writes it, on 'T N H' in float64: odd heads are rolled, all attend in groups, rolled back.

    Causal in the rolled order; without ``wrap``, tokens that come later in the text are hidden too.
    """
    length, heads, size = q.shape
    shift = np.arange(heads) % 2 * (group // 2)

    def grouped(x):  # 'T N ...' -> 'groups N group ...'
        x = np.stack([np.roll(x[:, n], -shift[n], axis=0) for n in range(heads)])
        return x.reshape(heads, -1, group, *x.shape[2:]).swapaxes(0, 1)

    index = grouped(np.tile(np.arange(length)[:, None], (1, heads)))
    scores = grouped(q) @ grouped(k).swapaxes(-1, -2) / size**0.5
    seen = np.tril(np.ones((group, group), bool))
    if not wrap:
        seen = seen & (index[..., None] >= index[..., None, :])
    weights = np.exp(np.where(seen, scores, -np.inf))
    out = (weights / weights.sum(-1, keepdims=True)) @ grouped(v)
    out = out.swapaxes(0, 1).reshape(heads, length, size)
    return np.stack([np.roll(out[n], shift[n], axis=0) for n in range(heads)], axis=1)


def test_shifted_groups_are_the_rolled_attention_of_the_paper_without_the_wrap():
    """With it, the first half group would read the last: nothing else differs."""
    q, k, v = np.random.default_rng(0).normal(size=(3, 1, 24, 4, 8))
    rule = both(causal, shifted_groups(8))
    where = Where.plain(1, 24, 24, heads=4)
    found = blockwise.attend(*(x.astype(np.float32) for x in (q, k, v)), where, rule, block=4)[0]
    np.testing.assert_allclose(found, rolled(q[0], k[0], v[0], 8, wrap=False), atol=2e-6)
    leaking = np.abs(found - rolled(q[0], k[0], v[0], 8, wrap=True)).max(axis=-1) > 1e-3
    np.testing.assert_array_equal(leaking, (np.arange(24)[:, None] < 4) & (np.arange(4) % 2 == 1))
