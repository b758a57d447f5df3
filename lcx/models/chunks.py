"""What a model does to each token by itself, done to a few tokens at a time.

A scan over chunks of the length, each made again in the backward pass, so that intermediate results exist for one
chunk only: logits in a loss, hidden activations in a feed-forward (Blockwise Parallel Transformer, arXiv 2305.19370).
The numbers are those of all tokens at once; the price is a second forward pass. Where tokens lie on many devices, a
chunk is one of each device's own tokens: all work at all times, and none sends any.
"""

from __future__ import annotations

from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp

from lcx.parallel.rules import shards
from lcx.types import Array, Tree


def over_tokens(f: Callable[[nn.Module, Tree], Tree], module: nn.Module, xs: Tree, size: int) -> Tree:
    """``f(module, xs)`` for arrays 'B T ...' in and out, by chunks 'B size ...' of each device's tokens.

    ``f`` must treat tokens alike and apart. The last chunk is padded with zeros, of which nothing comes back.
    """
    rows, length = jax.tree.leaves(xs)[0].shape[:2]
    parts = shards('length')
    own = length // parts  # tokens of a device; ``constrain`` has seen to it that nothing is left
    size = min(size, own)

    def cut(x: Array) -> Array:  # 'B T ...' -> 'chunks B parts*size ...'
        x = x.reshape(rows, parts, own, *x.shape[2:])
        x = jnp.pad(x, [(0, 0), (0, 0), (0, -own % size)] + [(0, 0)] * (x.ndim - 3))
        x = jnp.moveaxis(x.reshape(rows, parts, -1, size, *x.shape[3:]), 2, 0)
        return x.reshape(*x.shape[:2], parts * size, *x.shape[4:])

    def join(y: Array) -> Array:
        y = jnp.moveaxis(y.reshape(-1, rows, parts, size, *y.shape[3:]), 0, 2)
        return y.reshape(rows, parts, -1, *y.shape[4:])[:, :, :own].reshape(rows, length, *y.shape[4:])

    def one(module: nn.Module, carry: tuple, chunk: Tree) -> tuple[tuple, Tree]:
        return carry, f(module, chunk)

    scan = nn.scan(
        nn.remat(one, prevent_cse=False), variable_broadcast='params', split_rngs={'params': False}
    )
    _, ys = scan(module, (), jax.tree.map(cut, xs))
    return jax.tree.map(join, ys)
