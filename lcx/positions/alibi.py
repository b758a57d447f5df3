"""ALiBi, attention with linear biases: scores fall with the distance, at a speed of each head's own.

Press et al. 2022, "Train Short, Test Long", arXiv:2108.12409. For query position i, key position j, head n:

    b = -m_n |i - j|            j >= i            m_n = 2^(-8 (n + 1) / N)
    b = -m_n (|i - j| - s)      j < i

for N a power of two. Otherwise, as in the authors' code, the slopes of the power of two below it, followed by
every other one of those of the power of two above.

In the paper s = 0 and no key is ahead. Where attention looks both ways, s = 0 makes both sides alike, and who reads so
cannot tell left from right; s = 1/2 is what Ruoss et al. 2023, arXiv:2305.16843, have in their code.
"""

from __future__ import annotations

import math

import jax.numpy as jnp
import numpy as np

from lcx.about import About
from lcx.errors import ConfigError
from lcx.positions.api import Position
from lcx.positions.distance import distance
from lcx.types import Array, Float, Tree, Where

ABOUT = About(
    paper='arXiv:2108.12409, Press et al. 2022',
    what='scores fall linearly with the distance, each head with its own slope',
    trained='scratch',
    cost='a bias: O(T S) per layer',
)


def alibi(*, heads: int, shift: float = 0.0) -> Position:
    """ALiBi; nothing is learned. ``shift`` is s, tokens.

    Raises:
      ConfigError: ``shift`` is not at least 0 and below 1.
    """
    if not 0 <= shift < 1:
        raise ConfigError(f'shift: {shift!r} must be at least 0 and below 1, the distance of neighbours.')
    by_head = slopes(heads).astype(np.float32)

    def bias(params: Tree, where: Where) -> Float[Array, 'B N T S']:
        del params
        apart = distance(where)
        if shift:
            apart = apart - shift * (where.k_pos[:, None, None, :] < where.q_pos[:, None, :, None])
        return -jnp.asarray(by_head)[where.heads][:, None, None] * apart

    return Position(bias=bias)


def slopes(heads: int) -> np.ndarray:
    """The slope of each head; float64 'N'."""
    below = 2 ** math.floor(math.log2(heads))

    def geometric(count: int) -> np.ndarray:
        return 2.0 ** (-8 / count * np.arange(1, count + 1))

    return np.concatenate([geometric(below), geometric(2 * below)[::2][: heads - below]])
