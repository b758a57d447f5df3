"""What a bias brings into a block of scores: its numbers in the shape of the block, and the gradient of its tables.

Letters as in :mod:`lcx.attention.blocks`. Blocks of scores are 'B K R S' or, where keys lead, 'B K S R'.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from lcx.types import Array, Float, Tree, Where


def by_head(shape: tuple[int, ...], where: Where, keys_lead: bool) -> tuple[int, ...]:
    """'B K G T S' for 'B K R S', or 'B K S G T' for 'B K S R' where keys lead."""
    t = where.q_pos.shape[1]
    b, kv, first, last = shape
    return (b, kv, first, last // t, t) if keys_lead else (b, kv, first // t, t, last)


def grouped(block: Array, kv: int, keys_lead: bool) -> Array:
    """A block of a rule or bias, 'B|1 N|1 T S', to broadcast against the shapes of :func:`by_head`."""
    b, n, t, s = block.shape
    block = block.reshape(b, *((kv, n // kv) if n > 1 else (1, 1)), t, s)
    return block.transpose(0, 1, 4, 2, 3) if keys_lead else block


class Tables(NamedTuple):
    """The learned tables of a bias, and how their gradient is gathered block by block in fp32."""

    leaves: list
    floats: list[bool]  # tables of integers take part in a bias, without a gradient
    tree: Any

    @classmethod
    def of(cls, bias: Any) -> Tables:
        leaves, tree = jax.tree.flatten(bias)
        return cls(leaves, [jnp.issubdtype(jnp.result_type(x), jnp.inexact) for x in leaves], tree)

    def learned(self) -> list[Array]:
        return [x for x, is_float in zip(self.leaves, self.floats) if is_float]

    def zeros(self) -> list[Array]:
        return [jnp.zeros(jnp.shape(x)) for x in self.learned()]

    def merged(self, learned: list, others: list) -> Tree:
        """The pytree of the bias with its learned leaves replaced and ``others`` in the remaining places."""
        learned = iter(learned)
        pairs = zip(others, self.floats)
        return self.tree.unflatten([next(learned) if is_float else other for other, is_float in pairs])

    def add(self, total: list[Array], where: Where, ds: Float[Array, 'B K S R']) -> list[Array]:
        """``total`` plus the gradient over one block of score gradients, in which keys lead."""
        if not total:
            return total
        shape = by_head(ds.shape, where, keys_lead=True)

        def block(learned: list[Array]) -> Array:
            bias = self.merged(learned, self.leaves)
            return grouped(bias(where).astype(jnp.float32), ds.shape[1], keys_lead=True)

        values, pull = jax.vjp(block, self.learned())
        summed = tuple(i for i, (have, want) in enumerate(zip(values.shape, shape)) if have != want)
        (gradients,) = pull(jnp.sum(ds.reshape(shape), axis=summed, keepdims=True))
        return [a + g for a, g in zip(total, gradients)]

    def gradient(self, total: list[Array]) -> Tree:
        """``total`` as the cotangent of the bias."""
        learned = [g.astype(jnp.result_type(x)) for g, x in zip(total, self.learned())]
        return self.merged(learned, [np.zeros(np.shape(x), jax.dtypes.float0) for x in self.leaves])
