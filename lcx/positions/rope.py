"""RoPE, rotary position embedding, and the rotation that every method of its family ends in.

Su et al. 2021, "RoFormer: Enhanced Transformer with Rotary Position Embedding", arXiv:2104.09864. Pair k of a
vector at position p turns by the angle p f_k, so that a score depends on the distance of query and key only:

    f_k = theta^(-2k/H),  k = 0 .. H/2 - 1
    (x_k, x_k')  ->  s (x_k cos p f_k - x_k' sin p f_k,  x_k' cos p f_k + x_k sin p f_k)

where s is the attention scale (1 but for YaRN). k' is k + H/2 (half-split, as Hugging Face checkpoints are),
or, interleaved, the pair is elements 2k and 2k+1 (as in the paper).

The fp32 product p f_k is off by up to 0.04 at p = 2^20, more than one token turns most pairs by. Here an
angle is a fixed-point fraction of a turn, 32 bits that wrap as it does. The position is split into 11-bit
digits, each multiplied with the fraction of a turn that one unit of it is worth; the sum is within 1e-5 of
p f_k modulo 2 pi for every int32 position. Shapes write P for the H/2 pairs.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from lcx.errors import ConfigError
from lcx.positions.api import Position
from lcx.types import Array, Float, Int, Tree

DIGIT = 11  # bits of a position's digit; three digits hold an int32


class Frequencies(NamedTuple):
    """Radians per token of every pair, and the factor on cos and sin.

    ``inv_freq`` is NumPy float64 'P' when it is known in advance; when it depends on data it is a traced
    fp32 array that broadcasts against 'B T P'.
    """

    inv_freq: np.ndarray | Array
    attention_scale: float = 1.0


def frequencies(head_dim: int, theta: float) -> Frequencies:
    """``theta^(-2k/H)``: from one radian per token down to about ``1 / theta``; raises as :func:`check`."""
    check(head_dim, theta)
    return Frequencies(theta ** (-np.arange(0, head_dim, 2) / head_dim))


def check(head_dim: int, theta: float) -> None:
    """Raises a ConfigError unless ``head_dim`` is even and positive and ``theta`` a finite number above 1."""
    if head_dim < 2 or head_dim % 2:
        raise ConfigError(f'head_dim: {head_dim!r} must be even and positive; rotations act on pairs.')
    if not 1 < theta < math.inf:
        raise ConfigError(f'theta: {theta!r} must be a finite number greater than 1; 10000 is usual.')


def rope(*, head_dim: int, theta: float = 10000.0, interleaved: bool = False) -> Position:
    """RoPE as trained, at every length: the base of the family."""
    return rotary(frequencies(head_dim, theta), interleaved=interleaved)


def rotary(
    frequencies: Frequencies | Callable[[Int[Array, 'B T']], Frequencies], *, interleaved: bool = False
) -> Position:
    """The method that rotates by ``frequencies``, or by ``frequencies(pos)`` where they depend on data."""
    static = isinstance(frequencies, Frequencies)

    def compute(params: Tree, pos: Int[Array, 'B T']) -> tuple[Array, Array]:
        del params
        return cos_sin(pos, frequencies if static else frequencies(pos))

    def turn(
        params: Tree,
        x: Float[Array, 'B T N H'],
        pos: Int[Array, 'B T'],
        tables: tuple[Array, Array] | None = None,
    ) -> Float[Array, 'B T N H']:
        return rotate(x, *(compute(params, pos) if tables is None else tables), interleaved=interleaved)

    return Position(tables=compute, query=turn, key=turn, static=static)


def rotate(
    x: Float[Array, 'B T N H'],
    cos: Float[Array, 'B T P'],
    sin: Float[Array, 'B T P'],
    *,
    interleaved: bool,
) -> Float[Array, 'B T N H']:
    """Turns every pair of ``x``, in fp32; the result has the dtype of ``x``."""
    cos, sin = cos[:, :, None], sin[:, :, None]
    wide = x.astype(jnp.float32)
    if interleaved:
        first, second = wide[..., 0::2], wide[..., 1::2]
    else:
        first, second = jnp.split(wide, 2, axis=-1)
    turned = first * cos - second * sin, second * cos + first * sin
    out = jnp.stack(turned, axis=-1).reshape(x.shape) if interleaved else jnp.concatenate(turned, axis=-1)
    return out.astype(x.dtype)


def cos_sin(
    pos: Int[Array, 'B T'], frequencies: Frequencies
) -> tuple[Float[Array, 'B T P'], Float[Array, 'B T P']]:
    """fp32 cos and sin of ``pos * inv_freq``, times the attention scale."""
    angle = angles(pos, frequencies.inv_freq)
    return jnp.cos(angle) * frequencies.attention_scale, jnp.sin(angle) * frequencies.attention_scale


def angles(pos: Int[Array, 'B T'], inv_freq: np.ndarray | Array) -> Float[Array, 'B T P']:
    """``pos * inv_freq`` modulo 2 pi, in [-pi, pi], within 1e-5 for every int32 position; fp32."""
    pos = pos.astype(jnp.int32)[..., None]
    mask = 2**DIGIT - 1
    # The last shift keeps the sign: for negative positions the top digit is negative, and wraps correctly.
    digits = pos & mask, (pos >> DIGIT) & mask, pos >> 2 * DIGIT
    worth = (_turns(inv_freq, 2 ** (DIGIT * i)) for i in range(len(digits)))
    total = sum(digit.astype(jnp.uint32) * turns for digit, turns in zip(digits, worth))
    signed = jax.lax.bitcast_convert_type(total, jnp.int32)
    return signed.astype(jnp.float32) * np.float32(2 * math.pi / 2**32)


def _turns(inv_freq: np.ndarray | Array, tokens: int) -> np.ndarray | Array:
    """How far ``tokens`` tokens turn every pair, modulo one turn, in units of 2^-32 turns.

    Scaling by a power of two and taking the fraction are exact in floating point: only the last unit is lost.
    """
    numpy = jnp if isinstance(inv_freq, jax.Array) else np
    turns = inv_freq / (2 * math.pi) * tokens
    return ((turns - numpy.floor(turns)) * 2.0**32).astype(numpy.uint32)
