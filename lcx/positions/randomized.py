"""Randomized positions: every document is trained on random positions, in order, out of a longer range.

Ruoss et al. 2023, "Randomized Positional Encodings Boost Length Generalization of Transformers",
arXiv:2305.16843. A document of n tokens gets a uniformly random subset of n numbers of 0 .. L - 1, sorted, where
L = ``target_length`` is longer than any text met later: no position, and no distance, is new then.

Evaluation draws too, as in the authors' code: a model that never saw neighbours at distance 1 only would meet a
text of plain positions as something new.
"""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp

from lcx.about import About
from lcx.config import Options
from lcx.positions import wrap
from lcx.positions.api import Position
from lcx.positions.documents import Documents
from lcx.types import Array, Int

ABOUT = About(
    paper='arXiv:2305.16843, Ruoss et al. 2023',
    what='any method, trained on random increasing positions of a longer range',
    trained='scratch',
    cost='none per layer; a random subset of target_length numbers per row and step',
)


def randomized(
    *,
    head_dim: int,
    length: int,
    trained_length: int,
    heads: int,
    width: int,
    target_length: int,
    base: Options = Options(name='rope'),
    draw_at_evaluation: bool = True,
) -> Position:
    """``base`` on random positions below ``target_length`` (tokens, at least those of a row).

    The base is made for ``target_length`` tokens. ``draw_at_evaluation=False`` leaves positions as they are there.

    Raises:
      ConfigError: as the base, and at drawing where rows are longer than ``target_length``.
    """
    context = {'head_dim': head_dim, 'trained_length': trained_length, 'heads': heads, 'width': width}
    position = wrap.made(base, length=max(length, target_length), **context)
    return wrap.remapped(position, functools.partial(remap, target_length, draw_at_evaluation))


def remap(
    target_length: int, draw_at_evaluation: bool, key: Array, positions: Int[Array, 'B T'], train: bool
) -> Int[Array, 'B T']:
    """Random increasing positions for each document; those of one token, and padding, stay where they are."""
    if not (train or draw_at_evaluation):
        return positions
    rows, tokens = positions.shape
    wrap.check_target(target_length, tokens)
    # The places of the largest of target_length random numbers: a random subset, in random order, so that any
    # part of it, sorted, is a random subset too.
    values = jax.random.bits(key, (rows, target_length), jnp.uint32)
    drawn = jax.lax.top_k(values, tokens)[1]
    documents = Documents.of(positions)
    _, drawn = jax.lax.sort((documents.number, drawn), dimension=1, num_keys=2)
    return jnp.where(documents.alone(), positions, drawn)
