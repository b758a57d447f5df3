"""T5's relative bias: distances share a number of buckets, and each head learns a bias for each bucket.

Raffel et al. 2020, "Exploring the Limits of Transfer Learning with a Unified Text-to-Text Transformer",
arXiv:1910.10683, section 2.1. The first half of the E buckets hold one distance each; the others grow
logarithmically up to ``max_distance`` M, and everything beyond shares the last:

    bucket(d) = d                                                          d < E/2
    bucket(d) = min(E - 1, E/2 + floor(E/2 ln(2d / E) / ln(2M / E)))       otherwise

as transformers 5.23 computes it for a decoder (``bidirectional=False``), rounding included. Keys ahead of the
query share bucket 0. For an encoder (``bidirectional=True``) they have the second half of the buckets, those behind
the first: bucket(d) with E / 2 in place of E. Unlike T5, scores stay divided by sqrt(H).
"""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import numpy as np

from lcx.about import About
from lcx.errors import ConfigError
from lcx.positions.api import Position
from lcx.types import Array, Float, Tree, Where

ABOUT = About(
    paper='arXiv:1910.10683, Raffel et al. 2020',
    what='a learned bias for each head and bucket of distances',
    trained='scratch',
    cost='a bias: O(T S) look-ups per layer',
)


def t5(
    *, heads: int, width: int, num_buckets: int = 32, max_distance: int = 128, bidirectional: bool = False
) -> Position:
    """T5's bias; the table starts normal with the standard deviation ``width**-0.5``, as in T5.

    Raises:
      ConfigError: as :func:`buckets`, and for ``bidirectional`` with ``num_buckets`` that is no multiple of 4.
    """
    if bidirectional and num_buckets % 4:
        raise ConfigError(f'num_buckets: {num_buckets!r} must be a multiple of 4 with bidirectional.')
    behind_of = buckets(num_buckets // 2 if bidirectional else num_buckets, max_distance)
    ahead_of = num_buckets // 2 + behind_of[:0:-1] if bidirectional else behind_of[:0]
    bucket_of, first = (
        np.concatenate([ahead_of, behind_of]),
        -len(ahead_of),
    )  # of the distance first, first + 1, ...

    def init(key: Array) -> Tree:
        return {'table': width**-0.5 * jax.random.normal(key, (num_buckets, heads))}

    def bias(params: Tree, where: Where) -> Float[Array, 'B N T S']:
        behind = where.q_pos[:, None, :, None] - where.k_pos[:, None, None, :]
        at = jnp.clip(behind.astype(jnp.int32), first, max_distance) - first
        by_distance = params['table'][bucket_of].T[where.heads]  # 'N distances'
        return jnp.take(by_distance, at[:, 0], axis=1).swapaxes(0, 1)

    return Position(init=init, bias=bias)


def buckets(num_buckets: int, max_distance: int) -> np.ndarray:
    """The bucket of each distance from 0 to ``max_distance``, that of all greater ones; int32.

    Raises:
      ConfigError: ``num_buckets`` is not an even number of at least 2, or ``max_distance`` not above half of it.
    """
    if num_buckets < 2 or num_buckets % 2:
        raise ConfigError(f'num_buckets: {num_buckets!r} must be even and at least 2.')
    exact = num_buckets // 2
    if max_distance <= exact:
        raise ConfigError(
            f'max_distance: {max_distance!r} must be greater than half of num_buckets, {exact}: '
            'so many distances have a bucket of their own.'
        )
    far = np.arange(exact, max_distance + 1, dtype=np.float32) / np.float32(exact)
    # Where the logarithm is a whole number of buckets, its rounding to fp32 decides.
    step = np.log(far.astype(np.float64)).astype(np.float32) / np.float32(math.log(max_distance / exact))
    grown = exact + (step * np.float32(num_buckets - exact)).astype(np.int32)
    return np.concatenate([np.arange(exact, dtype=np.int32), np.minimum(grown, num_buckets - 1)])
