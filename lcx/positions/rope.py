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

Partial RoPE (GPT-NeoX, Phi): with ``rotary_fraction`` r, here and in the methods built on this one, the first
r H elements rotate as a head of that size would, and the rest pass. In the formulas H is then r H.

A larger base for a longer context (ABF, Xiong et al. 2023, arXiv:2309.16039) is ``theta``, say 500,000, in the
stage of training that extends. Two bases, one for layers with a window and one for the others, as Gemma 3 has,
are two kinds of layer with a position each:

    model.kinds.local.position = {'name': 'rope', 'theta': 1e4}
    model.kinds.full.position = {'name': 'rope', 'theta': 1e6}
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from lcx.about import About
from lcx.errors import ConfigError
from lcx.positions.api import Position
from lcx.types import Array, Float, Int, Tree

ABOUT = About(
    paper='arXiv:2104.09864, Su et al. 2021',
    what='pairs turn by position times frequency: scores depend on the distance',
    trained='scratch',
    cost='none',
    hf='default',
)

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


def rotating(head_dim: int, rotary_fraction: float) -> int:
    """How many of the ``head_dim`` elements rotate: their ``rotary_fraction``, rounded down.

    Raises:
      ConfigError: that is not above 0 and at most 1, or leaves an odd number of elements, or none.
    """
    dim = int(head_dim * rotary_fraction) if 0 < rotary_fraction <= 1 else 0
    if rotary_fraction != 1 and (dim < 2 or dim % 2):
        raise ConfigError(
            f'rotary_fraction: {rotary_fraction!r} of {head_dim} elements rotates {dim}; it must be at most 1 '
            'and rotate a positive, even number.'
        )
    return dim


def rope(
    *, head_dim: int, theta: float = 10000.0, rotary_fraction: float = 1.0, interleaved: bool = False
) -> Position:
    """RoPE as trained, at every length: the base of the family; raises as :func:`rotating`, :func:`check`."""
    return rotary(frequencies(rotating(head_dim, rotary_fraction), theta), interleaved=interleaved)


def rotary(
    frequencies: Frequencies | Callable[[Int[Array, 'B T']], Frequencies], *, interleaved: bool = False
) -> Position:
    """The method that rotates by ``frequencies``, or by ``frequencies(pos)`` where they depend on data.

    Fewer frequencies than pairs rotate the first elements only.
    """
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
    """Turns the first P pairs of ``x``, in fp32; the result has the dtype of ``x``."""
    cos, sin = cos[:, :, None], sin[:, :, None]
    rotating = 2 * cos.shape[-1]
    wide = x[..., :rotating].astype(jnp.float32)
    if interleaved:
        first, second = wide[..., 0::2], wide[..., 1::2]
    else:
        first, second = jnp.split(wide, 2, axis=-1)
    turned = first * cos - second * sin, second * cos + first * sin
    out = jnp.stack(turned, axis=-1).reshape(wide.shape) if interleaved else jnp.concatenate(turned, axis=-1)
    out = out.astype(x.dtype)
    return out if rotating == x.shape[-1] else jnp.concatenate([out, x[..., rotating:]], axis=-1)


def cos_sin(
    pos: Int[Array, 'B T'] | Float[Array, 'B T'], frequencies: Frequencies
) -> tuple[Float[Array, 'B T P'], Float[Array, 'B T P']]:
    """fp32 cos and sin of ``pos * inv_freq``, times the attention scale."""
    angle = angles(pos, frequencies.inv_freq)
    return jnp.cos(angle) * frequencies.attention_scale, jnp.sin(angle) * frequencies.attention_scale


def angles(
    pos: Int[Array, 'B T'] | Float[Array, 'B T'], inv_freq: np.ndarray | Array
) -> Float[Array, 'B T P']:
    """``pos * inv_freq`` modulo 2 pi, in [-pi, pi], within 1e-5 for every int32 position; fp32.

    Positions between the tokens are float32, exact as far as float32 holds them.
    """
    pos = pos[..., None]
    between = jnp.issubdtype(pos.dtype, jnp.floating)
    token = (jnp.floor(pos) if between else pos).astype(jnp.int32)
    mask = 2**DIGIT - 1
    # The last shift keeps the sign: for negative positions the top digit is negative, and wraps correctly.
    digits = token & mask, (token >> DIGIT) & mask, token >> 2 * DIGIT
    worth = (_turns(inv_freq, 2 ** (DIGIT * i)) for i in range(len(digits)))
    total = sum(digit.astype(jnp.uint32) * turns for digit, turns in zip(digits, worth))
    if between:
        total = total + _turns((pos - token) * inv_freq, 1)
    signed = jax.lax.bitcast_convert_type(total, jnp.int32)
    return signed.astype(jnp.float32) * np.float32(2 * math.pi / 2**32)


def _turns(inv_freq: np.ndarray | Array, tokens: int) -> np.ndarray | Array:
    """How far ``tokens`` tokens turn every pair, modulo one turn, in units of 2^-32 turns.

    Scaling by a power of two and taking the fraction are exact in floating point: only the last unit is lost.
    """
    numpy = jnp if isinstance(inv_freq, jax.Array) else np
    turns = inv_freq / (2 * math.pi) * tokens
    return ((turns - numpy.floor(turns)) * 2.0**32).astype(numpy.uint32)
