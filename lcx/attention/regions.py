"""Attention whose pairs of query and key fall into regions, each with positions of its own.

Methods that extend a model without touching its weights give near keys the distances they have, and far keys
others, which the model knows. That is not a function of the positions of tokens, but it is one inside each region:

    Region(rule, query, key)    pairs that ``rule`` allows are at the distance query(i) - key(j)

``rule`` sees true positions; the regions of a method are disjoint. The rotation is whatever the layer's position
method is, so any of these combines with any of those whose scores depend on distances alone: dual chunk with YaRN
is Qwen2.5-1M. What a method multiplies queries by (the ``gain`` of ``log_n``) goes by true positions. The softmax is
over all regions together: attention over each gives its log-sum-exp too, by which they merge
(:mod:`lcx.attention.online`). So it is exact, its memory is linear in length, and blocks outside a region are
skipped: the scores made are those of causal attention, and once more the blocks that regions share.

Beside plain attention, each further region costs a rotation of q and of k, and the memory of those and of its
result. Positions restart with every packed document, and so do regions. Keys after the query are in no region.

Pictures of distances in the methods' files: queries 0..7 downwards, keys 0..7 to the right, '.' where none is read.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax.numpy as jnp

from lcx.attention import api, online
from lcx.attention.masks import Rule, both
from lcx.types import Array, Float, Where

# True positions 'B T' -> those that a region rotates by, int32 or float32.
Positions = Callable[[Array], Array]


class Region(NamedTuple):
    """Some pairs of query and key, and the positions that queries and keys have there."""

    rule: Rule
    query: Positions
    key: Positions


def as_they_are(positions: Array) -> Array:
    """The positions of a region in which nothing changes."""
    return positions


def all_at(position: int) -> Positions:
    """The same ``position`` for every token."""
    return lambda positions: jnp.full_like(positions, position)


def attend(
    partial: Callable,
    regions: Sequence[Region],
    sides: Sequence[tuple[Float[Array, 'B T N H'], Float[Array, 'B S K H']]],
    v: Float[Array, 'B S K V'],
    where: Where,
    rule: Rule,
    bias: api.Bias | None = None,
    *,
    scale: float | None = None,
    softcap: float | None = None,
) -> Float[Array, 'B T N V']:
    """Attention over the pairs that ``rule`` and one of ``regions`` allow; rows that see nothing are zeros.

    ``sides`` holds the queries and keys of every region, turned to its positions; ``where`` the true positions,
    which ``rule`` and ``bias`` see. ``partial`` is the implementation: see :mod:`lcx.attention.api`.
    """
    parts = [
        online.resume(*partial(q, k, v, where, both(rule, region.rule), bias, scale=scale, softcap=softcap))
        for region, (q, k) in zip(regions, sides, strict=True)
    ]
    out, _ = online.finish(functools.reduce(online.merge, parts))
    return out.astype(v.dtype)
