"""Sinusoidal position embeddings, added to the token embeddings.

Vaswani et al. 2017, "Attention Is All You Need", arXiv:1706.03762, section 3.5:

    e[2k] = s sin(p theta^(-2k/D)),  e[2k+1] = s cos(p theta^(-2k/D))

There s = 1, beside token embeddings multiplied by sqrt(D). Here tokens are not, so that s is 1 / sqrt(D): the
same weight of position against token.
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
    paper='arXiv:1706.03762, Vaswani et al. 2017',
    what='sines and cosines of the position, added to the token embeddings',
    trained='scratch',
    cost='none per layer',
)


def sinusoidal(*, width: int, theta: float = 10000.0, scale: float | None = None) -> Position:
    """Sinusoidal embeddings; ``scale`` is s, ``width**-0.5`` at None.

    Raises:
      ConfigError: ``width`` is odd, ``theta`` not a finite number above 1, or ``scale`` not positive.
    """
    if width % 2:
        raise ConfigError(f'width: {width!r} must be even: a sine and a cosine for each frequency.')
    if not 1 < theta < math.inf:
        raise ConfigError(f'theta: {theta!r} must be a finite number greater than 1; 10000 is usual.')
    if scale is None:
        scale = width**-0.5
    elif not 0 < scale < math.inf:
        raise ConfigError(f'scale: {scale!r} must be a finite number greater than 0; 1 is the paper.')
    inv_freq = theta ** (-np.arange(0, width, 2) / width)

    def embed(params: Tree, pos: Int[Array, 'B T']) -> Float[Array, 'B T D']:
        del params
        angle = rope.angles(pos, inv_freq)
        return scale * jnp.stack([jnp.sin(angle), jnp.cos(angle)], axis=-1).reshape(*pos.shape, width)

    return Position(embed=embed)
