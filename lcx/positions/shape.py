"""SHAPE, shifted absolute position embeddings: every row is trained at a random offset.

Kiyono et al. 2021, "SHAPE: Shifted Absolute Position Embedding for Transformers", arXiv:2109.05644. All positions
of a row move by one offset, uniform in 0 .. K, K = ``max_offset``: what the model learns from absolute embeddings
becomes relative, and later positions are known. Evaluation uses positions as they are. Methods that depend on
distances alone (RoPE, ALiBi) do not notice it.
"""

from __future__ import annotations

import functools

import jax

from lcx.about import About
from lcx.config import Options
from lcx.errors import ConfigError
from lcx.positions import wrap
from lcx.positions.api import Position
from lcx.types import Array, Int

ABOUT = About(
    paper='arXiv:2109.05644, Kiyono et al. 2021',
    what='any absolute method, trained at random offsets',
    trained='scratch',
    cost='none',
)


def shape(
    *,
    head_dim: int,
    length: int,
    trained_length: int,
    heads: int,
    width: int,
    max_offset: int,
    base: Options = Options(name='sinusoidal'),
) -> Position:
    """``base`` on positions shifted by up to ``max_offset`` tokens; a learned table must reach that much farther.

    Raises:
      ConfigError: as the base; ``max_offset`` is not positive.
    """
    if max_offset < 1:
        raise ConfigError(f'max_offset: {max_offset!r} must be at least 1 token; 0 shifts nothing.')
    context = {'head_dim': head_dim, 'trained_length': trained_length, 'heads': heads, 'width': width}
    position = wrap.made(base, length=length, **context)
    return wrap.remapped(position, functools.partial(remap, max_offset))


def remap(max_offset: int, key: Array, positions: Int[Array, 'B T'], train: bool) -> Int[Array, 'B T']:
    """All positions of a row plus one offset of 0 .. ``max_offset``."""
    if not train:
        return positions
    return positions + jax.random.randint(key, (positions.shape[0], 1), 0, max_offset + 1)
