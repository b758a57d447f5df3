"""PoSE, positional skip-wise training: short rows whose positions skip ahead, as far as the target length.

Zhu et al. 2024, "PoSE: Efficient Context Window Extension of LLMs via Positional Skip-wise Training",
arXiv:2309.10400. A document of n tokens is cut at random into N chunks; the positions of chunk i are those of the
document plus a skip u_i,

    u_0 = 0,    u_i uniform in u_(i-1) .. L - n

so that every distance below L = ``target_length`` is trained at the cost of n. The text itself stays contiguous
(the paper's v_i = 0). Evaluation uses positions as they are.
"""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp

from lcx.about import About
from lcx.config import Options
from lcx.errors import ConfigError
from lcx.positions import wrap
from lcx.positions.api import Position
from lcx.positions.documents import Documents
from lcx.types import Array, Int

ABOUT = About(
    paper='arXiv:2309.10400, Zhu et al. 2024',
    what='any method, tuned on short rows whose positions skip up to the target length',
    trained='tune',
    cost='none',
)


def pose(
    *,
    head_dim: int,
    length: int,
    trained_length: int,
    heads: int,
    width: int,
    target_length: int,
    chunks: int = 2,
    base: Options = Options(name='rope'),
) -> Position:
    """``base``, made for ``target_length`` tokens, trained on skipping positions below it.

    Raises:
      ConfigError: as the base; ``chunks`` is below 2; at drawing, where rows are longer than ``target_length``.
    """
    if chunks < 2:
        raise ConfigError(f'chunks: {chunks!r} must be at least 2; one chunk skips nothing.')
    context = {'head_dim': head_dim, 'trained_length': trained_length, 'heads': heads, 'width': width}
    position = wrap.made(base, length=max(length, target_length), **context)
    return wrap.remapped(position, functools.partial(remap, target_length, chunks))


def remap(
    target_length: int, chunks: int, key: Array, positions: Int[Array, 'B T'], train: bool
) -> Int[Array, 'B T']:
    """Positions plus the skip of the chunk that each token is in, drawn anew for each document."""
    if not train:
        return positions
    rows, tokens = positions.shape
    wrap.check_target(target_length, tokens)
    documents = Documents.of(positions)
    # One draw for each document a row can hold, read by its tokens.
    draws = jax.random.uniform(key, (2, chunks - 1, rows, tokens))
    where_cut, how_far = draws[..., jnp.arange(rows)[:, None], documents.number]
    cuts = jnp.sort(1 + below(where_cut, documents.length - 1), axis=0)
    skip = skips = jnp.zeros_like(positions)
    for cut, share in zip(cuts, how_far):
        step = below(share, target_length - documents.length - skips + 1)
        skips = skips + step
        skip = skip + jnp.where(positions >= cut, step, 0)
    return positions + skip


def below(uniform: Array, count: Int[Array, 'B T']) -> Int[Array, 'B T']:
    """An integer of 0 .. ``count`` - 1 from a uniform number of [0, 1); 0 where ``count`` is not positive."""
    return jnp.clip(jnp.floor(uniform * count).astype(jnp.int32), 0, jnp.maximum(count - 1, 0))
