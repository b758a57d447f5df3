"""YaRN: fast pairs keep their frequency, slow ones are interpolated, with a ramp between; sharper scores.

Peng et al. 2023, "YaRN: Efficient Context Window Extension of Large Language Models", arXiv:2309.00071. A
pair that turns r times within the original length L is kept above r = beta_fast and interpolated below
r = beta_slow:

    dim(r) = H ln(L / (2 pi r)) / (2 ln theta)                      the pair (a real number) turning r times
    ramp_k = clip((k - dim(beta_fast)) / (dim(beta_slow) - dim(beta_fast)), 0, 1)
    f_k    = theta^(-2k/H) ((1 - ramp_k) + ramp_k / factor)
    s      = 0.1 ln(factor) + 1                                     on queries and on keys: scores get s^2

as transformers 5.23 computes it, including the rounding of the ramp's ends. At factor 1 it is RoPE.
"""

from __future__ import annotations

import math

import numpy as np

from lcx.about import About
from lcx.errors import ConfigError
from lcx.positions import rope
from lcx.positions.api import Position
from lcx.positions.extension import stretch

ABOUT = About(
    paper='arXiv:2309.00071, Peng et al. 2023',
    what='fast pairs kept, slow ones interpolated, a ramp between; sharper scores',
    trained='tune',
    cost='none',
    hf='yarn',
)


def yarn(
    *,
    head_dim: int,
    length: int,
    trained_length: int,
    theta: float = 10000.0,
    factor: float | None = None,
    original_length: int | None = None,
    beta_fast: float = 32.0,
    beta_slow: float = 1.0,
    attention_factor: float | None = None,
    mscale: float | None = None,
    mscale_all_dim: float | None = None,
    truncate: bool = True,
    rotary_fraction: float = 1.0,
    interleaved: bool = False,
) -> Position:
    """YaRN; see :func:`~lcx.positions.extension.stretch` for the defaults of factor and original length.

    ``beta_fast`` and ``beta_slow`` are rotations within the original length; ``truncate`` rounds the ramp's
    ends outwards to whole pairs. The scale s is ``attention_factor``, or :func:`attention_scale` at None.

    Raises:
      ConfigError: as ``stretch`` and :func:`ramp`; one of ``mscale`` and ``mscale_all_dim`` without the
        other; ``attention_factor`` is not positive.
    """
    factor, original = stretch(factor, original_length, length=length, trained_length=trained_length)
    if (mscale is None) != (mscale_all_dim is None):
        raise ConfigError(f'mscale: {mscale!r} and mscale_all_dim {mscale_all_dim!r} count only together.')
    if attention_factor is None:
        attention_factor = attention_scale(factor, mscale, mscale_all_dim)
    elif not attention_factor > 0:
        raise ConfigError(f'attention_factor: {attention_factor!r} must be greater than 0.')
    dim = rope.rotating(head_dim, rotary_fraction)
    share = ramp(dim, theta, original, beta_fast, beta_slow, truncate)
    return rope.rotary(frequencies(dim, theta, factor, share, attention_factor), interleaved=interleaved)


def frequencies(
    head_dim: int, theta: float, factor: float, share: np.ndarray, attention_factor: float
) -> rope.Frequencies:
    """``theta^(-2k/H)``, of which the ``share`` (0 .. 1, 'P') is divided by the factor."""
    kept = rope.frequencies(head_dim, theta).inv_freq
    return rope.Frequencies(kept * ((1 - share) + share / factor), attention_factor)


def ramp(
    head_dim: int, theta: float, original_length: int, beta_fast: float, beta_slow: float, truncate: bool
) -> np.ndarray:
    """How far every pair is interpolated: 0 for the fast ones, 1 for the slow ones; float64 'P'.

    Raises:
      ConfigError: as :func:`~lcx.positions.rope.check`; ``beta_slow`` is not positive or ``beta_fast`` not
        greater than it.
    """
    rope.check(head_dim, theta)
    if not 0 < beta_slow < beta_fast:
        raise ConfigError(
            f'beta_fast: {beta_fast!r} must be greater than beta_slow {beta_slow!r}, and both greater than 0.'
        )
    low, high = (
        head_dim * math.log(original_length / (2 * math.pi * rotations)) / (2 * math.log(theta))
        for rotations in (beta_fast, beta_slow)
    )
    if truncate:
        low, high = math.floor(low), math.ceil(high)
    low, high = max(low, 0), min(high, head_dim - 1)
    if low == high:
        high += 0.001  # a step instead of a ramp
    return np.clip((np.arange(head_dim // 2) - low) / (high - low), 0, 1)


def attention_scale(factor: float, mscale: float | None, mscale_all_dim: float | None) -> float:
    """``0.1 ln(factor) + 1``, or its quotient with both m before the logarithm, if none is None or 0."""
    if mscale and mscale_all_dim:
        return (0.1 * mscale * math.log(factor) + 1) / (0.1 * mscale_all_dim * math.log(factor) + 1)
    return 0.1 * math.log(factor) + 1
