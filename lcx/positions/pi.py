"""Position interpolation: positions are divided by the factor, so that none is larger than in training.

Chen et al. 2023, "Extending Context Window of Large Language Models via Positional Interpolation",
arXiv:2306.15595; Hugging Face calls it 'linear'.

    f_k = theta^(-2k/H) / factor

At factor 1 it is RoPE.
"""

from __future__ import annotations

from lcx.about import About
from lcx.positions import rope
from lcx.positions.api import Position
from lcx.positions.extension import stretch

ABOUT = About(
    paper='arXiv:2306.15595, Chen et al. 2023',
    what='positions divided by the factor',
    trained='tune',
    cost='none',
    hf='linear',
)


def pi(
    *,
    head_dim: int,
    length: int,
    trained_length: int,
    theta: float = 10000.0,
    factor: float | None = None,
    original_length: int | None = None,
    rotary_fraction: float = 1.0,
    interleaved: bool = False,
) -> Position:
    """Position interpolation; see :func:`~lcx.positions.extension.stretch` for the defaults and errors."""
    factor, _ = stretch(factor, original_length, length=length, trained_length=trained_length)
    dim = rope.rotating(head_dim, rotary_fraction)
    return rope.rotary(frequencies(dim, theta, factor), interleaved=interleaved)


def frequencies(head_dim: int, theta: float, factor: float) -> rope.Frequencies:
    """``theta^(-2k/H) / factor``."""
    return rope.Frequencies(rope.frequencies(head_dim, theta).inv_freq / factor)
