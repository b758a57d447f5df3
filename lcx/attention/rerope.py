"""ReRoPE and Leaky ReRoPE: distances end at a window, or grow more slowly behind it.

Su Jianlin 2023, "Transformer upgrade 12: ReRoPE for unlimited extrapolation?", kexue.fm/archives/9708. With window
w and leak k, the distance of query i and key j is

    i - j                        if i - j < w
    w                            otherwise: ReRoPE
    w + (i - j - w) / k          otherwise: Leaky ReRoPE

A model trained at length L knows all distances of ReRoPE if w < L, at every length, and those of Leaky ReRoPE up to
(L - w) k + w tokens. ``rerope(window=3)``:

    0 . . . . . . .
    1 0 . . . . . .
    2 1 0 . . . . .
    3 2 1 0 . . . .
    3 3 2 1 0 . . .
    3 3 3 2 1 0 . .
    3 3 3 3 2 1 0 .
    3 3 3 3 3 2 1 0

Neither needs training. Each costs a second rotation of q and k. Leak 1, or a window as long as the text, is plain
attention; an infinite leak is ReRoPE. The author also scales queries by log n, which is a position method's work.
"""

from __future__ import annotations

import jax.numpy as jnp

from lcx.about import About
from lcx.attention.masks import at_least_one, distance
from lcx.attention.regions import Positions, Region, all_at, as_they_are
from lcx.errors import ConfigError
from lcx.types import Array

ABOUT = About(
    paper='Su 2023, kexue.fm/archives/9708',
    what='distances end at the window',
    trained='none',
    cost='a second rotation of q and k',
)
LEAKY_ABOUT = About(
    paper='Su 2023, kexue.fm/archives/9708',
    what='distances grow more slowly behind the window',
    trained='none',
    cost='a second rotation of q and k',
)


def rerope(*, window: int) -> tuple[Region, ...]:
    """Regions near and far; ``window`` is the greatest distance there is, in tokens.

    Raises:
      ConfigError: ``window`` is below 1.
    """
    return _rectified(window, all_at(window), all_at(0))


def leaky_rerope(*, window: int, leak: float) -> tuple[Region, ...]:
    """Regions near and far; behind ``window`` tokens a distance grows by one in ``leak`` tokens.

    Far positions are fractions, in fp32: within 2^-24 of themselves, or 0.03 / ``leak`` of a token at 2^20.

    Raises:
      ConfigError: ``window`` or ``leak`` is below 1.
    """
    if not leak >= 1:
        raise ConfigError(f'leak: {leak} must be at least 1, where nothing changes.')

    def shrunk(positions: Array) -> Array:
        return positions.astype(jnp.float32) / leak

    return _rectified(window, lambda positions: shrunk(positions) + window * (1 - 1 / leak), shrunk)


def _rectified(window: int, query: Positions, key: Positions) -> tuple[Region, ...]:
    at_least_one('window', window)
    return Region(distance(0, window), as_they_are, as_they_are), Region(distance(window), query, key)
