"""What blockwise attention promises beyond the contract: memory linear in length, and no work for hidden blocks."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lcx.attention import blocks, blockwise, both, causal, dense, same_segment, window
from lcx.attention.masks import Rule, everything
from lcx.types import Where


@pytest.mark.parametrize(('attend', 'low', 'high'), [(blockwise.attend, 1.0, 2.3), (dense.attend, 3.5, 4.5)])
def test_memory_of_forward_and_backward_against_length(attend, low, high):
    """Growth of temporary memory when the length doubles; compiled only, never run."""

    def bytes_at(length: int) -> int:
        shapes = [jax.ShapeDtypeStruct((1, length, n, 16), jnp.float32) for n in (2, 1, 1)]
        where = Where.plain(1, length, length, heads=2)

        def total(q, k, v):
            return jnp.sum(attend(q, k, v, where, causal) ** 2)

        compiled = jax.jit(jax.grad(total, argnums=(0, 1, 2))).lower(*shapes).compile()
        return compiled.memory_analysis().temp_size_in_bytes

    assert low < bytes_at(4096) / bytes_at(2048) < high


@pytest.mark.parametrize(
    ('length', 'block', 'expected'),
    [(512, 512, 512), (513, 512, 257), (40, 16, 14), (1, 512, 1), (1025, 512, 342), (7, 16, 7)],
)
def test_even_block_cuts_into_the_fewest_blocks_with_the_least_padding(length, block, expected):
    size = blocks.even_block(length, block)
    assert size == expected <= block
    count = -(-length // size)
    assert count == -(-length // block) and count * size - length < count


def visited(rule: Rule, where: Where, monkeypatch: pytest.MonkeyPatch) -> tuple[int, int]:
    """Blocks of scores that a forward and a backward pass make, without and with a mask, counted as they run."""
    counted = []
    scores = blockwise.scores

    def counting(*arguments, **named):
        jax.debug.callback(lambda: counted.append(named['hide']))
        return scores(*arguments, **named)

    monkeypatch.setattr(blockwise, 'scores', counting)
    x = jnp.ones((1, where.q_pos.shape[1], 1, 4))
    jax.block_until_ready(
        jax.jit(jax.grad(lambda q: blockwise.attend(q, x, x, where, rule, block=8).sum()))(x)
    )
    jax.effects_barrier()
    return len(counted) - sum(counted), sum(counted)


@pytest.mark.parametrize(
    ('rule', 'whole', 'partial'),
    [
        (everything, 16, 0),
        (causal, 3 + 2 + 1, 4),
        (both(causal, window(16)), 3, 4 + 2),
        (both(causal, same_segment), 1 + 1, 2 + 2),  # two documents of two blocks
        (Rule(causal.allow, causal.maybe), 0, 4 + 3 + 2 + 1),  # a rule that says nothing of whole blocks
        (
            Rule(causal.allow, lambda b: b.k_min < b.q_min - 100),
            0,
            0,
        ),  # what ``maybe`` denies is not looked at
    ],
    ids=['everything', 'causal', 'window', 'packed', 'cautious', 'nothing'],
)
def test_only_blocks_that_may_be_seen_are_made(rule, whole, partial, monkeypatch):
    where = Where.plain(1, 32, 32, heads=1)
    documents = 1 + np.arange(32)[None] // 16
    where = where._replace(q_seg=documents, k_seg=documents)
    assert visited(rule, where, monkeypatch) == (2 * whole, 2 * partial)


def test_blocks_of_padding_are_not_made_and_blocks_with_padding_are_masked(monkeypatch):
    where = Where.plain(1, 32, 32, heads=1)
    real = (np.arange(32)[None] < 12).astype(np.int32)
    assert visited(everything, where._replace(q_seg=real, k_seg=real), monkeypatch) == (2 * 1, 2 * 3)


def test_a_bias_may_hold_tables_without_a_gradient():
    """Integers, such as bucket numbers, take part in a bias and are left alone by its gradient."""
    where = Where.plain(1, 16, 16, heads=1)
    buckets = jnp.minimum(jnp.arange(16), 5)

    def bias(buckets, table, where):
        distance = where.q_pos[:, :, None] - where.k_pos[:, None, :]
        return table[buckets[jnp.clip(distance, 0, 15)]][:, None]

    def total(table, attend):
        x = jax.random.normal(jax.random.key(0), (1, 16, 1, 4))
        return jnp.sum(attend(x, x, x, where, causal, jax.tree_util.Partial(bias, buckets, table)) ** 2)

    found, expected = (
        jax.jit(jax.grad(total), static_argnums=1)(jnp.linspace(-1, 1, 6), attend)
        for attend in (functools.partial(blockwise.attend, block=8), dense.attend)
    )
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert np.any(expected)
