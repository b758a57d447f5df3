"""p-RoPE: only the fastest pairs turn; the slowest, which long contexts disturb most, carry no position.

Barbero et al. 2024, "Round and Round We Go! What makes Rotary Positional Encodings useful?",
arXiv:2410.06205; Hugging Face calls it 'proportional' (Gemma 4).

    f_k = theta^(-2k/H) / factor   for k < p H/2,   0 for the other pairs

where p is ``rotary_fraction``. Partial RoPE, the option of that name of every other method, differs: there the
first p H elements are a smaller head with frequencies of its own, theta^(-2k/(p H)), down to the slowest. At
p = 1 and factor 1 it is RoPE, at p = 0 it is NoPE.
"""

from __future__ import annotations

from lcx.about import About
from lcx.errors import ConfigError
from lcx.positions import rope
from lcx.positions.api import Position
from lcx.positions.extension import check_factor

ABOUT = About(
    paper='arXiv:2410.06205, Barbero et al. 2024',
    what='only the fastest pairs rotate, the others carry no position',
    trained='scratch',
    cost='none',
    hf='proportional',
)


def p_rope(
    *,
    head_dim: int,
    theta: float = 10000.0,
    rotary_fraction: float = 0.75,
    factor: float = 1.0,
    interleaved: bool = False,
) -> Position:
    """p-RoPE: the ``rotary_fraction`` (0 .. 1) of the pairs rotates; ``factor`` interpolates their positions.

    Raises:
      ConfigError: as :func:`~lcx.positions.rope.check` and :func:`~lcx.positions.extension.check_factor`;
        ``rotary_fraction`` is not in 0 .. 1.
    """
    check_factor(factor)
    if not 0 <= rotary_fraction <= 1:
        raise ConfigError(f'rotary_fraction: {rotary_fraction!r} must be from 0 to 1.')
    return rope.rotary(frequencies(head_dim, theta, rotary_fraction, factor), interleaved=interleaved)


def frequencies(head_dim: int, theta: float, rotary_fraction: float, factor: float) -> rope.Frequencies:
    """``theta^(-2k/H) / factor`` of the fastest pairs, a ``rotary_fraction`` rounded down; 0 of the others."""
    inv_freq = rope.frequencies(head_dim, theta).inv_freq / factor
    inv_freq[int(rotary_fraction * head_dim // 2) :] = 0
    return rope.Frequencies(inv_freq)
