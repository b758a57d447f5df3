"""NTK-aware scaling: a larger base, which interpolates the slowest pair fully and the fastest not at all.

bloc97 2023, "NTK-Aware Scaled RoPE", described in Peng et al. 2023, arXiv:2309.00071, section 3.1.

    theta' = theta factor^(H/(H-2)),  f_k = theta'^(-2k/H)

so that the last frequency, k = H/2 - 1, is exactly that of position interpolation. At factor 1 it is RoPE.
"""

from __future__ import annotations

from lcx.about import About
from lcx.errors import ConfigError
from lcx.positions import rope
from lcx.positions.api import Position
from lcx.positions.extension import stretch

ABOUT = About(
    paper='arXiv:2309.00071, section 3.1, Peng et al. 2023; bloc97 2023',
    what='a larger base: the slowest pair interpolated, the fastest kept',
    trained='none',
    cost='none',
    hf='default',
)


def ntk(
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
    """NTK-aware scaling; see :func:`~lcx.positions.extension.stretch` for the defaults and errors."""
    factor, _ = stretch(factor, original_length, length=length, trained_length=trained_length)
    dim = rope.rotating(head_dim, rotary_fraction)
    return rope.rotary(frequencies(dim, theta, factor), interleaved=interleaved)


def frequencies(head_dim: int, theta: float, factor: float) -> rope.Frequencies:
    """Those of RoPE with the base :func:`scaled_theta`."""
    return rope.frequencies(head_dim, scaled_theta(head_dim, theta, factor))


def scaled_theta(head_dim: int, theta: float, factor: float) -> float:
    """``theta factor^(H/(H-2))``; raises as :func:`power`."""
    rope.check(head_dim, theta)
    return theta * factor ** power(head_dim)


def power(head_dim: int) -> float:
    """``H/(H-2)``.

    Raises:
      ConfigError: ``head_dim`` is 2: a single pair is the fastest and the slowest at once.
    """
    if head_dim == 2:
        raise ConfigError(f'head_dim: {head_dim!r} rotating elements must be at least 4: two pairs or more.')
    return head_dim / (head_dim - 2)
