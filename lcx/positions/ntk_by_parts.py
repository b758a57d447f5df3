"""NTK-by-parts: pairs that turn often are kept, slow ones are interpolated, by turns within the original length.

bloc97 2023, described in Peng et al. 2023, arXiv:2309.00071, section 3.2. A pair turns

    r_k    = L theta^(-2k/H) / (2 pi)                               times within the original length L
    ramp_k = clip((beta_fast - r_k) / (beta_fast - beta_slow), 0, 1)
    f_k    = theta^(-2k/H) ((1 - ramp_k) + ramp_k / factor)

The paper writes alpha for ``beta_slow``, beta for ``beta_fast`` and gamma for 1 - ramp. :mod:`~lcx.positions.yarn`
has the same two ends, but a ramp that is linear in k instead of r, and an attention scale besides. With 1 and 4
instead of 1 and 32 it is :mod:`~lcx.positions.llama3`. At factor 1 it is RoPE.
"""

from __future__ import annotations

import math

import numpy as np

from lcx.about import About
from lcx.errors import ConfigError
from lcx.positions import rope, yarn
from lcx.positions.api import Position
from lcx.positions.extension import stretch

ABOUT = About(
    paper='arXiv:2309.00071, section 3.2, Peng et al. 2023',
    what='fast pairs kept, slow ones interpolated, a ramp in turns between; no attention scale',
    trained='tune',
    cost='none',
    hf='llama3',
)


def ntk_by_parts(
    *,
    head_dim: int,
    length: int,
    trained_length: int,
    theta: float = 10000.0,
    factor: float | None = None,
    original_length: int | None = None,
    beta_fast: float = 32.0,
    beta_slow: float = 1.0,
    rotary_fraction: float = 1.0,
    interleaved: bool = False,
) -> Position:
    """NTK-by-parts; see :func:`~lcx.positions.extension.stretch` for factor and original length.

    Raises:
      ConfigError: as ``stretch`` and :func:`~lcx.positions.rope.rotating`; ``beta_slow`` is not positive or
        ``beta_fast`` not greater than it.
    """
    factor, original = stretch(factor, original_length, length=length, trained_length=trained_length)
    if not 0 < beta_slow < beta_fast:
        raise ConfigError(
            f'beta_fast: {beta_fast!r} must be greater than beta_slow {beta_slow!r}, and both greater than 0.'
        )
    dim = rope.rotating(head_dim, rotary_fraction)
    share = ramp(dim, theta, original, beta_fast, beta_slow)
    return rope.rotary(yarn.frequencies(dim, theta, factor, share, 1.0), interleaved=interleaved)


def ramp(head_dim: int, theta: float, original_length: int, beta_fast: float, beta_slow: float) -> np.ndarray:
    """How far every pair is interpolated: 0 for the fast ones, 1 for the slow ones; float64 'P'."""
    turns = rope.frequencies(head_dim, theta).inv_freq * original_length / (2 * math.pi)
    return np.clip((beta_fast - turns) / (beta_fast - beta_slow), 0, 1)
