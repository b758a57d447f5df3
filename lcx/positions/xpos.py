"""xPos: RoPE whose scores also decay with distance, slow pairs less than fast ones.

Sun et al. 2022, "A Length-Extrapolatable Transformer", arXiv:2212.10554.

    zeta_k = (2k/H + 0.4) / 1.4
    query of pair k at position p:  the rotated one, times zeta_k^(+(p - c) / scale_base)
    key   of pair k at position p:  the rotated one, times zeta_k^(-(p - c) / scale_base)

so a score's pair k decays as zeta_k^(distance / scale_base) and the centre c, the middle of the length in use,
cancels. It keeps the two factors, one of which grows without limit, inside the numbers that fp32 and bf16
hold: exponents within +-41, so that even a masked score, of a key ahead of its query, stays finite. That is
exact for lengths up to 65.4 scale_base: 33,512 tokens at the paper's 512, and 2^17 tokens from scale_base 2003
on. Longer lengths are refused, and positions beyond them are held at the limit.

At a scale_base without limit it is RoPE.
"""

from __future__ import annotations

import math

import jax.numpy as jnp
import numpy as np

from lcx.about import About
from lcx.errors import ConfigError
from lcx.positions import rope
from lcx.positions.api import Position
from lcx.types import Array, Float, Int, Tree

ABOUT = About(
    paper='arXiv:2212.10554, Sun et al. 2022',
    what='RoPE with scores that decay with distance, fast pairs sooner',
    trained='scratch',
    cost='none',
)

GAMMA = 0.4  # the paper's
LIMIT = 41.0  # of exponents: exp(2 * 41) times a head's worth of products is still below 3e38


def xpos(
    *,
    head_dim: int,
    length: int,
    theta: float = 10000.0,
    scale_base: float = 512.0,
    interleaved: bool = False,
) -> Position:
    """xPos; ``scale_base`` is the distance in tokens over which a score's pair k decays by zeta_k.

    Raises:
      ConfigError: as :func:`~lcx.positions.rope.check`; ``scale_base`` is not positive, or too small for
        ``length``.
    """
    rope.check(head_dim, theta)
    if not 0 < scale_base < math.inf:
        raise ConfigError(f'scale_base: {scale_base!r} must be a finite number greater than 0.')
    rate = decay(head_dim) / scale_base
    if length / 2 * rate.max() > LIMIT:
        least = math.ceil(length / 2 * decay(head_dim).max() / LIMIT)
        raise ConfigError(f'scale_base: {scale_base!r} leaves fp32 at {length} tokens; the least is {least}.')
    turning, centre = rope.frequencies(head_dim, theta), length // 2

    def compute(params: Tree, pos: Int[Array, 'B T']) -> tuple[tuple[Array, Array], tuple[Array, Array]]:
        del params
        cos, sin = rope.cos_sin(pos, turning)
        exponent = (pos - centre).astype(jnp.float32)[..., None] * rate.astype(np.float32)
        growth = jnp.exp(jnp.clip(exponent, -LIMIT, LIMIT))
        return (cos / growth, sin / growth), (cos * growth, sin * growth)

    def query(params: Tree, x: Float[Array, 'B T N H'], pos: Int[Array, 'B T'], tables: Tree = None) -> Array:
        made = compute(params, pos) if tables is None else tables
        return rope.rotate(x, *made[0], interleaved=interleaved)

    def key(params: Tree, x: Float[Array, 'B S K H'], pos: Int[Array, 'B S'], tables: Tree = None) -> Array:
        made = compute(params, pos) if tables is None else tables
        return rope.rotate(x, *made[1], interleaved=interleaved)

    return Position(tables=compute, query=query, key=key)


def decay(head_dim: int) -> np.ndarray:
    """``-ln zeta_k``, positive: the exponent of decay over one scale base; float64 'P'."""
    return -np.log((np.arange(0, head_dim, 2) / head_dim + GAMMA) / (1 + GAMMA))
