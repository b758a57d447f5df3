"""Sandwich: scores get the inner product of the two tokens' sinusoidal embeddings, and nothing else of them.

Chi et al. 2023, "Dissecting Transformer Length Extrapolation via the Lens of Receptive Field Analysis",
arXiv:2212.10356. For query position i, key position j, head n of N and D' = ``dims``:

    b = (p_i . p_j - D'/2) / (8 (n + 1) / N),    p_i . p_j = sum_k cos((i - j) theta^(-2k/D')),  k < D'/2

which falls about logarithmically with the distance, from 0 at the query itself.
"""

from __future__ import annotations

import math

import jax.numpy as jnp
import numpy as np

from lcx.about import About
from lcx.errors import ConfigError
from lcx.positions import rope
from lcx.positions.api import Position
from lcx.types import Array, Float, Int, Tree, Where

ABOUT = About(
    paper='arXiv:2212.10356, Chi et al. 2023',
    what='scores fall with the inner product of sinusoidal embeddings',
    trained='scratch',
    cost='a bias: O(T S dims) per layer',
)


def sandwich(*, heads: int, dims: int = 128, theta: float = 10000.0) -> Position:
    """Sandwich; nothing is learned. ``dims`` is the paper's only number, 128 there whatever the model's width.

    Raises:
      ConfigError: ``dims`` is not an even positive number, or ``theta`` not a finite number above 1.
    """
    if dims < 2 or dims % 2:
        raise ConfigError(
            f'dims: {dims!r} must be even and positive: a sine and a cosine for each frequency.'
        )
    if not 1 < theta < math.inf:
        raise ConfigError(f'theta: {theta!r} must be a finite number greater than 1; 10000 is usual.')
    frequencies = rope.Frequencies(theta ** (-np.arange(0, dims, 2) / dims))
    share = (heads / (8 * np.arange(1, heads + 1))).astype(np.float32)

    def waves(pos: Int[Array, 'B T']) -> Float[Array, 'B T E']:
        return jnp.concatenate(rope.cos_sin(pos, frequencies), axis=-1)

    def bias(params: Tree, where: Where) -> Float[Array, 'B N T S']:
        del params
        q, k = waves(where.q_pos), waves(where.k_pos)
        alike = jnp.einsum('BTE,BSE->BTS', q, k, precision='highest') - dims / 2
        return jnp.asarray(share)[where.heads][:, None, None] * alike[:, None]

    return Position(bias=bias)
