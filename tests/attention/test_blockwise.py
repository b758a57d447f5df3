"""What blockwise attention promises beyond the contract: memory linear in length, and no work for hidden blocks."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lcx.attention import blockwise, both, causal, dense, same_segment
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
    size = blockwise.even_block(length, block)
    assert size == expected <= block
    count = -(-length // size)
    assert count == -(-length // block) and count * size - length < count


def visited(rule: Rule, where: Where, monkeypatch: pytest.MonkeyPatch) -> int:
    """Blocks of scores that a forward and a backward pass make, counted as they run."""
    counted = []
    scores = blockwise._scores

    def counting(*arguments):
        jax.debug.callback(lambda: counted.append(1))
        return scores(*arguments)

    monkeypatch.setattr(blockwise, '_scores', counting)
    x = jnp.ones((1, where.q_pos.shape[1], 1, 4))
    jax.block_until_ready(
        jax.jit(jax.grad(lambda q: blockwise.attend(q, x, x, where, rule, block=8).sum()))(x)
    )
    jax.effects_barrier()
    return len(counted)


@pytest.mark.parametrize(
    ('rule', 'expected'),
    [
        (everything, 16),
        (causal, 4 + 3 + 2 + 1),
        (both(causal, same_segment), 3 + 3),  # two documents of two blocks
        (Rule(causal.allow, lambda b: b.k_min < b.q_min - 100), 0),  # what ``maybe`` denies is not looked at
    ],
    ids=['everything', 'causal', 'packed', 'nothing'],
)
def test_only_blocks_that_may_be_seen_are_made(rule, expected, monkeypatch):
    where = Where.plain(1, 32, 32, heads=1)
    documents = 1 + np.arange(32)[None] // 16
    where = where._replace(q_seg=documents, k_seg=documents)
    assert visited(rule, where, monkeypatch) == 2 * expected


def test_blocks_of_padding_are_not_made(monkeypatch):
    where = Where.plain(1, 32, 32, heads=1)
    real = (np.arange(32)[None] < 16).astype(np.int32)
    assert visited(everything, where._replace(q_seg=real, k_seg=real), monkeypatch) == 2 * 4
