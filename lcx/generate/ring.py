"""Keys and values in full precision: of all tokens, or of the newest and the first ones.

A ring loses nothing that its layers could still read, if it is as large as their rules reach
(:func:`lcx.attention.masks.Reach`): all tokens for causal attention, the window for local layers, the window and the
sinks for StreamingLLM. What is read is for the rule to say; a token that is overwritten is one that it hides.
"""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp

from lcx.attention.cached import Blocks, Keys, window_of
from lcx.models.cache import Entry, Received, Shape
from lcx.types import PADDING, Array, Float, Int


class Slots(NamedTuple):
    """The first slots are those of the first tokens, by position; the others are written in turn."""

    k: Float[Array, 'L B K S H']
    v: Float[Array, 'L B K S H']
    pos: Int[Array, 'B S']
    seg: Int[Array, 'B S']
    start: Int[Array, '']  # where the newest tokens are written
    next: Int[Array, '']
    used: Int[Array, '']


@dataclasses.dataclass(frozen=True)
class Ring:
    """``newest`` slots that are written in turn, and ``first`` for the tokens at positions 0 .. first - 1.

    New tokens are written side by side. Where they would cross the end they start over, so that up to one piece less
    a token is not in use: to keep W tokens beside a piece of T, W + 2 T slots are enough.
    """

    newest: int
    first: int = 0

    def init(self, shape: Shape, dtype: jnp.dtype) -> Slots:
        slots = self.first + self.newest
        heads = len(shape.layers), shape.batch, shape.kv_heads, slots, shape.head_dim
        rows = shape.batch, slots
        k, v = (jnp.zeros(heads, dtype) for _ in range(2))  # of its own each: they are donated
        pos, seg = jnp.zeros(rows, shape.positions), jnp.full(rows, PADDING, jnp.int32)
        return Slots(k, v, pos, seg, *(jnp.full((), self.first, jnp.int32) for _ in range(3)))

    def begin(self, state: Slots, pos: Int[Array, 'B T'], seg: Int[Array, 'B T']) -> Slots:
        t, slots = pos.shape[1], self.first + self.newest
        start = jnp.where(state.next + t > slots, self.first, state.next)
        is_first = (pos < self.first) & (seg != PADDING)
        held = jax.lax.dynamic_update_slice_in_dim(state.pos, pos, start, axis=1)
        # Of the first tokens the ring's copy is hidden: they would be read twice.
        segments = jnp.where(is_first, PADDING, seg)
        segments = jax.lax.dynamic_update_slice_in_dim(state.seg, segments, start, axis=1)
        if self.first:
            found, index = self._firsts(pos, seg)
            own = jnp.where(found, jnp.take_along_axis(seg, index, axis=1), segments[:, : self.first])
            segments = segments.at[:, : self.first].set(own)
            held = held.at[:, : self.first].set(jnp.arange(self.first, dtype=held.dtype))
        end = start + t
        return state._replace(
            pos=held, seg=segments, start=start, next=end, used=jnp.maximum(state.used, end)
        )

    def write(self, state: Slots, layer: Array, new: Entry) -> Slots:
        found, index = self._firsts(new.pos, new.seg) if self.first else (None, None)

        def put(held: Array, x: Float[Array, 'B T K H']) -> Array:
            x = x.swapaxes(1, 2).astype(held.dtype)
            if self.first:
                shape = (1, *x.shape[:2], self.first, x.shape[-1])
                before = jax.lax.dynamic_slice(held, (layer, 0, 0, 0, 0), shape)
                ours = jnp.take_along_axis(x, index[:, None, :, None], axis=2)
                ours = jnp.where(found[:, None, :, None], ours, before[0])
                # Read before anything is written: else the whole of it would be copied to keep what was there.
                held, ours = jax.lax.optimization_barrier((held, ours))
                held = jax.lax.dynamic_update_slice(held, ours[None], (layer, 0, 0, 0, 0))
            return jax.lax.dynamic_update_slice(held, x[None], (layer, 0, 0, state.start, 0))

        return state._replace(k=put(state.k, new.k), v=put(state.v, new.v))

    def _firsts(self, pos: Int[Array, 'B T'], seg: Int[Array, 'B T']) -> tuple[Array, Array]:
        """Which of the first positions are among the new tokens, and at which index; 'B first'."""
        match = (pos[:, None] == jnp.arange(self.first)[:, None]) & (seg != PADDING)[:, None]
        return jnp.any(match, axis=-1), jnp.argmax(match, axis=-1)

    def blocks(self, state: Slots, layer: Array) -> Blocks:
        slots = self.first + self.newest

        def read(j: Array, size: int) -> Keys:
            start, fresh = window_of(j, size, slots)
            _, b, kv, _, h = state.k.shape
            k, v = (
                jax.lax.dynamic_slice(x, (layer, 0, 0, start, 0), (1, b, kv, size, h))[0]
                for x in (state.k, state.v)
            )
            pos, seg = (jax.lax.dynamic_slice_in_dim(x, start, size, axis=1) for x in (state.pos, state.seg))
            return Keys(k, v, pos, jnp.where(fresh, seg, PADDING))

        return Blocks(read, slots, state.used)

    def positions(self, state: Slots) -> Int[Array, 'B S']:
        return state.pos

    def settle(self, state: Slots, layer: Array, new: Entry, received: Received) -> Slots:
        return state
