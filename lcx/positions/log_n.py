"""log-n scaling: scores sharpen with the logarithm of how many tokens are read, which keeps their entropy.

Su 2021, "Attention scale operation from the invariance of entropy" (kexue.fm/archives/8823), and Chiang and
Cholak 2022, arXiv:2202.12172. The query at position p, which reads p + 1 tokens, is multiplied by

    max(1, ln(p + 1) / ln(L))

with L the original length: nothing changes within it. :mod:`~lcx.positions.ssmax` is s ln(n) with a learned s for
every head and no floor; here s is 1 / ln(L), which needs no training.

The rest is that of ``base``: {'name': 'log_n', 'base': {'name': 'yarn', 'factor': 4.0}}.
"""

from __future__ import annotations

import math

import jax.numpy as jnp

from lcx.about import About
from lcx.config import Options
from lcx.errors import ConfigError
from lcx.positions import wrap
from lcx.positions.api import Position
from lcx.positions.extension import stretch
from lcx.types import Array, Float, Int, Tree

ABOUT = About(
    paper='arXiv:2202.12172, Chiang and Cholak 2022; Su 2021',
    what='another method, with scores that sharpen as ln(position) beyond the original length',
    trained='none',
    cost='none',
)


def log_n(
    *,
    head_dim: int,
    length: int,
    trained_length: int,
    heads: int,
    width: int,
    base: Options = Options(name='rope'),
    original_length: int | None = None,
) -> Position:
    """``base`` with queries scaled beyond ``original_length`` (tokens; None: the trained length).

    Raises:
      ConfigError: ``original_length`` is below 2; an option of the base cannot be used; the base has a gain itself.
    """
    _, original = stretch(1.0, original_length, length=length, trained_length=trained_length)
    if original < 2:
        raise ConfigError(f'original_length: {original!r} must be at least 2 tokens.')
    sizes = {'head_dim': head_dim, 'heads': heads, 'width': width}
    inner = wrap.made(base, length=length, trained_length=trained_length, **sizes)
    wrap.check_gain(inner)

    def gain(params: Tree, pos: Int[Array, 'B T']) -> Float[Array, 'B T 1']:
        del params
        return jnp.maximum(1.0, log_read(pos) / math.log(original))[..., None]

    return inner._replace(gain=gain)


def log_read(pos: Int[Array, 'B T']) -> Float[Array, 'B T']:
    """``ln(pos + 1)``, the logarithm of how many tokens a causal query reads; fp32."""
    return jnp.log(jnp.maximum(pos, 0).astype(jnp.float32) + 1)
