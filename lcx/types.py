"""The notation page: dimension letters and the few types that every package shares.

Dimension letters, used in every shape annotation and einsum of the code base:

    B  batch                 T  query tokens           S  key tokens
    N  query heads           K  key/value heads        G  query heads per key head (N / K)
    H  head size             D  model width            F  hidden width of the feed-forward
    V  vocabulary            L  layers                 M  memory slots

A shape is written as the letters in memory order: ``Float[Array, 'B T N H']`` is a batch of query vectors.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

try:
    from jaxtyping import Bool, Float, Int
except ImportError:  # attention, positions and models run without jaxtyping; shapes are then only words

    class Float:
        def __class_getitem__(cls, _):
            return jax.Array

    Bool = Int = Float

Array = jax.Array
Tree = Any  # any pytree of arrays
Row = Mapping[str, Any]  # one flat record of results.jsonl or metrics.jsonl

PADDING = 0  # the segment id of tokens that do not exist

__all__ = ['PADDING', 'Array', 'Batch', 'Bool', 'Float', 'Int', 'Row', 'Tree', 'Where']


class Batch(NamedTuple):
    """Tokens to train or score on.

    ``targets[b, t]`` is the token that follows ``tokens[b, t]`` and counts ``weights[b, t]`` times in the
    loss: 0 at padding and where the next token belongs to another document.
    """

    tokens: Int[Array, 'B T']
    targets: Int[Array, 'B T']
    weights: Float[Array, 'B T']
    positions: Int[
        Array, 'B T'
    ]  # position inside the document; float32 where a method draws it between the tokens
    segments: Int[Array, 'B T']  # document number inside the row, from 1; PADDING = no token
    ids: Int[Array, ' B']  # which window of the source each row is: a name for logs and error reports


class Where(NamedTuple):
    """What a block of attention scores must know about itself: who asks, and who is asked.

    Positions and segments are data, so order in memory means nothing: packing, left padding, caches and
    sequence-sharded layouts are all just other numbers in here.
    """

    q_pos: Int[Array, 'B T']  # token positions
    k_pos: Int[Array, 'B S']
    q_seg: Int[Array, 'B T']  # document numbers; PADDING rows give zeros, PADDING keys are never read
    k_seg: Int[Array, 'B S']
    heads: Int[Array, ' N']  # head numbers, so that a per-head bias survives sharding over heads

    @classmethod
    def self_attention(cls, positions: Int[Array, 'B T'], segments: Int[Array, 'B T'], heads: int) -> Where:
        """The Where of tokens that attend among themselves."""
        return cls(positions, positions, segments, segments, jnp.arange(heads))

    @classmethod
    def plain(cls, batch: int, queries: int, keys: int, heads: int) -> Where:
        """One document per row, positions 0, 1, 2, ...; the queries are the last of the keys."""
        k_pos = jnp.broadcast_to(jnp.arange(keys), (batch, keys))
        ones = jnp.ones((batch, keys), jnp.int32)
        first = keys - queries
        return cls(k_pos[:, first:], k_pos, ones[:, first:], ones, jnp.arange(heads))
