"""Llama 3.1's scaling: NTK-by-parts that interpolates only pairs turning fewer than four times.

Grattafiori et al. 2024, "The Llama 3 Herd of Models", arXiv:2407.21783; Hugging Face calls it 'llama3'. It is
:mod:`~lcx.positions.ntk_by_parts` under other names: ``low_freq_factor`` is its ``beta_slow`` and
``high_freq_factor`` its ``beta_fast``. Llama 3.1 itself is theta 500,000, factor 8, original length 8192; at
factor 1 it is RoPE.
"""

from __future__ import annotations

from lcx.about import About
from lcx.errors import ConfigError
from lcx.positions import ntk_by_parts, rope, yarn
from lcx.positions.api import Position
from lcx.positions.extension import stretch

ABOUT = About(
    paper='arXiv:2407.21783, Grattafiori et al. 2024',
    what='NTK-by-parts with a ramp from 1 to 4 turns, as Llama 3.1 was tuned with',
    trained='tune',
    cost='none',
    hf='llama3',
)


def llama3(
    *,
    head_dim: int,
    length: int,
    trained_length: int,
    theta: float = 10000.0,
    factor: float | None = None,
    original_length: int | None = None,
    low_freq_factor: float = 1.0,
    high_freq_factor: float = 4.0,
    rotary_fraction: float = 1.0,
    interleaved: bool = False,
) -> Position:
    """Llama 3.1's scaling; see :func:`~lcx.positions.extension.stretch` for factor and original length.

    Pairs that turn more than ``high_freq_factor`` times within the original length are kept, those that turn
    less than ``low_freq_factor`` times are interpolated.

    Raises:
      ConfigError: as ``stretch`` and :func:`~lcx.positions.rope.rotating`; ``low_freq_factor`` is not
        positive or ``high_freq_factor`` not greater than it.
    """
    factor, original = stretch(factor, original_length, length=length, trained_length=trained_length)
    if not 0 < low_freq_factor < high_freq_factor:
        raise ConfigError(
            f'high_freq_factor: {high_freq_factor!r} must be greater than '
            f'low_freq_factor {low_freq_factor!r}, and both greater than 0.'
        )
    dim = rope.rotating(head_dim, rotary_fraction)
    share = ntk_by_parts.ramp(dim, theta, original, high_freq_factor, low_freq_factor)
    return rope.rotary(yarn.frequencies(dim, theta, factor, share, 1.0), interleaved=interleaved)
