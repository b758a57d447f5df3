"""Keys and values in 2, 4 or 8 bits, the newest in full precision (KIVI, arXiv 2402.02750, Liu et al. 2024).

Tokens are quantised a ``group`` of neighbours at a time: keys per channel, over the group's tokens; values per token,
over as many channels. Of numbers x that share a scale and a zero

    zero = min x,  scale = (max x - zero) / (2^bits - 1),  code = round((x - zero) / scale),  x' = zero + scale code

Both are kept in bfloat16, and codes are made with what is kept. Zero is rounded down and scale up, so that no x lies
outside: |x' - x| <= scale / 2. With groups of 64 in 64 channels, 4 bits are 4.5 bits a number.

A group is quantised once ``residual`` tokens follow it. New tokens are read in full precision by all of their piece,
whatever its length, and quantised after that: pieces of any lengths leave the same codes behind.
"""

from __future__ import annotations

import dataclasses
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp

from lcx.attention.cached import Blocks, Keys, window_of
from lcx.models.cache import Entry, Received, Shape
from lcx.types import PADDING, Array, Float, Int

LARGEST = 2048  # tokens in a block: dequantised, they should stay in a core's cache


class Packed(NamedTuple):
    """Groups of tokens, n of g each; a byte holds the codes of p tokens that lie g / p apart, the first one lowest."""

    codes: Int[Array, 'L B K n g/p H']
    scale: Int[Array, 'L B K n ...']  # keys: '1 H', values: 'g c' for c groups of channels
    zero: Int[Array, 'L B K n ...']


class Held(NamedTuple):
    """Slots are the text's: slot i is that of the i-th token, wherever it is kept."""

    keys: Packed
    values: Packed
    k: Float[Array, 'L B K R H']  # the newest tokens, a ring: that of slot i lies at i mod R
    v: Float[Array, 'L B K R H']
    pos: Int[Array, 'B S']
    seg: Int[Array, 'B S']
    start: Int[Array, '']  # tokens before this piece
    next: Int[Array, '']
    # While a layer reads several new tokens: k as it was, 'B K R H', and they, 'B K T H'; the same of v.
    piece: tuple | None


@dataclasses.dataclass(frozen=True)
class Quantised:
    """Holds ``tokens`` tokens, all but ``residual`` to ``residual + group - 1`` of them quantised."""

    tokens: int
    bits: int = 4
    group: int = 64
    residual: int = 64

    @property
    def newest(self) -> int:
        """R: slots in full precision, in whole groups; after a piece there is room for one token at least."""
        return -(-(self.residual + self.group) // self.group) * self.group

    @property
    def slots(self) -> int:
        """S: a multiple of the group. The newest slots lie inside, wherever they begin."""
        return max(self.tokens - self.residual, 0) // self.group * self.group + self.newest

    def quantised(self, tokens: Int[Array, '']) -> Int[Array, '']:
        """How many of so many tokens are quantised."""
        return jnp.maximum(tokens - self.residual, 0) // self.group * self.group

    def init(self, shape: Shape, dtype: jnp.dtype) -> Held:
        layers, b, kv, h = len(shape.layers), shape.batch, shape.kv_heads, shape.head_dim
        n, g = self.slots // self.group, self.group

        def packed(*of_group: int) -> Packed:
            codes = jnp.zeros((layers, b, kv, n, g * self.bits // 8, h), jnp.uint8)
            scale, zero = (jnp.zeros((layers, b, kv, n, *of_group), jnp.uint16) for _ in range(2))
            return Packed(codes, scale, zero)

        k, v = (jnp.zeros((layers, b, kv, self.newest, h), dtype) for _ in range(2))
        pos, seg = jnp.zeros((b, self.slots), shape.positions), jnp.full((b, self.slots), PADDING, jnp.int32)
        start, end = (jnp.zeros((), jnp.int32) for _ in range(2))
        values = packed(g, h // math.gcd(g, h))
        return Held(packed(1, h), values, k, v, pos, seg, start, end, None)

    def begin(self, state: Held, pos: Int[Array, 'B T'], seg: Int[Array, 'B T']) -> Held:
        put = lambda x, new: jax.lax.dynamic_update_slice_in_dim(x, new, state.next, axis=1)  # noqa: E731
        end = state.next + pos.shape[1]
        return state._replace(pos=put(state.pos, pos), seg=put(state.seg, seg), start=state.next, next=end)

    def write(self, state: Held, layer: Array, new: Entry) -> Held:
        # Quantised before it is read, though read as it was: what is written after it was read would be copied.
        real = (new.seg != PADDING)[..., None, None]
        fresh = [jnp.where(real, x, 0).swapaxes(1, 2).astype(state.k.dtype) for x in (new.k, new.v)]
        done = self.quantised(state.start)
        due = (self.quantised(state.next) - done) // self.group
        put = lambda held, x, at: jax.lax.dynamic_update_slice(held, x[None], (layer, 0, 0, at, 0))  # noqa: E731

        def store(i: Array, state: Held, line: list[Array], first: Array) -> Held:
            at = first + i * self.group
            return self._stored(state, layer, i, *(_cut(x, at, self.group) for x in line))

        if new.k.shape[1] == 1:
            k, v = (put(held, x, state.start % self.newest) for held, x in zip((state.k, state.v), fresh))

            def move(i: Array, state: Held) -> Held:  # 0 or 1 times: a conditional would copy the arrays
                return store(i, state, [_layer(x, layer) for x in (state.k, state.v)], done % self.newest)

            return jax.lax.fori_loop(0, due, move, state._replace(k=k, v=v))
        before = [jnp.roll(_layer(x, layer), -done, axis=2) for x in (state.k, state.v)]
        line = [
            _within(
                x, jnp.pad(old, [(0, 0), (0, 0), (0, x.shape[2] + self.group), (0, 0)]), state.start - done
            )
            for old, x in zip(before, fresh)
        ]
        after = done + due * self.group
        k, v = (
            put(held, jnp.roll(_cut(x, after - done, self.newest), after, axis=2), 0)
            for held, x in zip((state.k, state.v), line)
        )
        state = jax.lax.fori_loop(0, due, lambda i, state: store(i, state, line, 0), state._replace(k=k, v=v))
        return state._replace(piece=tuple(zip(before, fresh)))

    def blocks(self, state: Held, layer: Array) -> Blocks:
        if state.piece is None:
            first = self.quantised(state.next)
            groups = range(0, self.newest, self.group)  # where they lie, as in a ring
            newest = [
                [(x[:, :, i : i + self.group], first + (i - first) % self.newest) for i in groups]
                for x in (_layer(state.k, layer), _layer(state.v, layer))
            ]
        else:
            first = self.quantised(state.start)
            newest = [[(old, first), (new, state.start)] for old, new in state.piece]

        def read(j: Array, size: int) -> Keys:
            start, unread = window_of(j, size, self.slots)
            lay, found = _within if size == self.slots else _over, []
            for packed, parts in zip((state.keys, state.values), newest):
                block = self._dequantised(packed, layer, start, size)
                for x, slot in parts:
                    block = lay(x.astype(jnp.float32), block, slot - start)
                found.append(block.astype(state.k.dtype))
            pos, seg = (jax.lax.dynamic_slice_in_dim(x, start, size, axis=1) for x in (state.pos, state.seg))
            return Keys(*found, pos, jnp.where(unread, seg, PADDING))

        return Blocks(read, self.slots, state.next, LARGEST)

    def positions(self, state: Held) -> Int[Array, 'B S']:
        return state.pos

    def settle(self, state: Held, layer: Array, new: Entry, received: Received) -> Held:
        return state._replace(piece=None)

    def _stored(self, state: Held, layer: Array, i: Array, k: Array, v: Array) -> Held:
        """Quantises one group of tokens, 'B K g H', the ``i``-th after those that were."""
        n = self.quantised(state.start) // self.group + i
        seg = jax.lax.dynamic_slice_in_dim(state.seg, n * self.group, self.group, axis=1)
        put = lambda held, x: jax.lax.dynamic_update_slice(  # noqa: E731
            held, x[None, :, :, None], (layer, 0, 0, n, *[0] * (held.ndim - 4))
        )
        b, kv, g, h = v.shape
        keys = quantise(k, (seg != PADDING)[:, None, :, None], self.bits, axis=2)
        codes, scale, zero = quantise(v.reshape(b, kv, g, -1, math.gcd(g, h)), True, self.bits, axis=-1)
        values = codes.reshape(v.shape), scale[..., 0], zero[..., 0]
        keys, values = ((pack(codes, self.bits), *rest) for codes, *rest in (keys, values))
        return state._replace(
            keys=Packed(*map(put, state.keys, keys)), values=Packed(*map(put, state.values, values))
        )

    def _dequantised(self, packed: Packed, layer: Array, start: Array, size: int) -> Float[Array, 'B K S H']:
        """``size`` slots of one layer, in fp32. A size of whole groups begins with one."""
        g, n = self.group, self.slots // self.group
        count = size // g if size % g == 0 else min(n, -(-size // g) + 1)
        first = jnp.minimum(start // g, n - count)
        codes, scale, zero = (
            jax.lax.dynamic_slice(
                x, (layer, 0, 0, first, *[0] * (x.ndim - 4)), (1, *x.shape[1:3], count, *x.shape[4:])
            )[0]
            for x in packed
        )
        codes = unpack(codes, self.bits)
        b, kv, _, _, h = codes.shape
        c = scale.shape[-1]
        x = codes.reshape(*codes.shape[:-1], c, h // c) * number(scale)[..., None] + number(zero)[..., None]
        x = x.reshape(b, kv, count * g, h)
        return x if size % g == 0 else _cut(x, start - first * g, size)


def quantise(x: Array, real: Array | bool, bits: int, axis: int) -> tuple[Array, Array, Array]:
    """``(codes uint8, scale, zero)``: the latter for :func:`number`, of length 1 on ``axis``, whose numbers share them.

    Only numbers that are ``real`` count; the others have code 0.
    """
    x, levels = x.astype(jnp.float32), 2**bits - 1
    low = jnp.min(jnp.where(real, x, jnp.inf), axis=axis, keepdims=True)
    high = jnp.max(jnp.where(real, x, -jnp.inf), axis=axis, keepdims=True)
    low, high = (jnp.where(low <= high, end, 0) for end in (low, high))  # none is real
    zero = _rounded_down(low)
    negative = _rounded_down((number(zero) - high) / levels)
    scale = jnp.where(number(negative) < 0, negative ^ 0x8000, 0).astype(jnp.uint16)
    codes = jnp.round((x - number(zero)) / jnp.where(scale > 0, number(scale), 1))
    return jnp.where(real, jnp.clip(codes, 0, levels), 0).astype(jnp.uint8), scale, zero


def number(bits: Array) -> Array:
    """What the bits of a bfloat16 say, in fp32. As bfloat16, whole arrays are converted by the compilers of CPUs."""
    return jax.lax.bitcast_convert_type(bits.astype(jnp.uint32) << 16, jnp.float32)


def _rounded_down(x: Array) -> Array:
    """The bits of the greatest bfloat16 that is not above ``x``."""
    bits = jax.lax.bitcast_convert_type(x, jnp.uint32)
    return (jnp.where(bits >> 31 == 1, bits + 0xFFFF, bits) >> 16).astype(jnp.uint16)


def pack(codes: Int[Array, '... g H'], bits: int) -> Int[Array, '... g/p H']:
    """p = 8 / bits codes in a byte."""
    *rest, _, h = codes.shape
    parts = codes.reshape(*rest, 8 // bits, -1, h)
    return jnp.sum(parts << _shifts(bits), axis=-3, dtype=jnp.uint8)


def unpack(packed: Int[Array, '... g/p H'], bits: int) -> Int[Array, '... g H']:
    """Undoes :func:`pack`."""
    *rest, _, h = packed.shape
    parts = (packed[..., None, :, :] >> _shifts(bits)) & jnp.uint8(2**bits - 1)
    return parts.reshape(*rest, -1, h)


def _shifts(bits: int) -> Int[Array, 'p 1 1']:
    return jnp.arange(0, 8, bits, dtype=jnp.uint8)[:, None, None]


def _layer(x: Array, layer: Array) -> Array:
    return jax.lax.dynamic_index_in_dim(x, layer, keepdims=False)


def _within(x: Float[Array, 'B K R H'], block: Float[Array, 'B K S H'], at: Array) -> Float[Array, 'B K S H']:
    """``block`` with ``x`` over its slots ``at``, at + 1, .."""
    return jax.lax.dynamic_update_slice_in_dim(block, x, at, axis=2)


def _over(x: Float[Array, 'B K R H'], block: Float[Array, 'B K S H'], at: Array) -> Float[Array, 'B K S H']:
    """The same where some or all of ``x`` lie outside of ``block``, and are left out."""
    n, size = x.shape[2], block.shape[2]
    if n > size:
        skip = jnp.clip(-at, 0, n - size)
        return _over(_cut(x, skip, size), block, at + skip)
    to = jnp.clip(at, 0, size - n)
    i = to - at + jnp.arange(n)  # of x at the slots that are written
    inside = ((i >= 0) & (i < n))[:, None]
    return _within(jnp.where(inside, jnp.roll(x, at - to, axis=2), _cut(block, to, n)), block, to)


def _cut(x: Float[Array, 'B K S H'], start: Array, size: int) -> Float[Array, 'B K size H']:
    return jax.lax.dynamic_slice_in_dim(x, start, size, axis=2)
