"""Scalable-Softmax (SSMax): scores sharpen with the logarithm of how many tokens are read, at a learned speed.

Nakanishi 2025, "Scalable-Softmax Is Superior for Attention", arXiv:2501.19399. Softmax over n scores z becomes

    exp(s ln(n) z_i) / sum_j exp(s ln(n) z_j)

so that the weight of one outstanding key does not fade as n grows. Here the query at position p, which reads
n = p + 1 tokens, is multiplied by s ln(p + 1), with a learned s for every head: the paper's form without a bias
term. A bias that the base adds to scores is not multiplied. s starts at 1 over the mean of ln n up to the trained
length, 0.168 at 1024 tokens: the scores of ordinary attention, on average. As all learned tables of positions it
is shared by the layers of a kind, where the paper has one for each layer.

The rest is that of ``base``: {'name': 'ssmax', 'base': {'name': 'yarn'}}. :mod:`~lcx.positions.log_n` is the same
with a fixed s and a floor at 1, and needs no training.
"""

from __future__ import annotations

import math

import jax.numpy as jnp
import numpy as np

from lcx.about import About
from lcx.config import Options
from lcx.errors import ConfigError
from lcx.positions import wrap
from lcx.positions.api import Position
from lcx.positions.log_n import log_read
from lcx.types import Array, Float, Int, Tree

ABOUT = About(
    paper='arXiv:2501.19399, Nakanishi 2025',
    what='another method, with scores times s ln(position + 1), a learned s for each head',
    trained='scratch',
    cost='none',
)


def ssmax(
    *,
    head_dim: int,
    length: int,
    trained_length: int,
    heads: int,
    width: int,
    base: Options = Options(name='rope'),
    start: float | None = None,
) -> Position:
    """``base`` with a learned sharpness; ``start`` is where s starts, :func:`ordinary` at None.

    Raises:
      ConfigError: ``start`` is not a finite number above 0; an option of the base cannot be used; the base has a
        gain itself.
    """
    if start is not None and not 0 < start < math.inf:
        raise ConfigError(f'start: {start!r} must be a finite number greater than 0.')
    first = ordinary(trained_length) if start is None else start
    sizes = {'head_dim': head_dim, 'heads': heads, 'width': width}
    inner = wrap.made(base, length=length, trained_length=trained_length, **sizes)
    wrap.check_gain(inner)

    def init(key: Array) -> Tree:
        own, rest = {'s': jnp.full((heads,), first)}, inner.init(key)
        return {**own, 'base': rest} if rest else own

    def gain(params: Tree, pos: Int[Array, 'B T']) -> Float[Array, 'B T N']:
        return log_read(pos)[..., None] * params['s']

    return wrap.reading(inner, 'base')._replace(init=init, gain=gain)


def ordinary(trained_length: int) -> float:
    """The s whose mean gain over the positions below ``trained_length`` (tokens; at least 2 count) is 1."""
    return 1 / np.log(np.arange(1, max(2, trained_length) + 1)).mean()
