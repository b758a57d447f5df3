"""Learned position embeddings, added to the token embeddings: a row of a table for each position.

Gehring et al. 2017, "Convolutional Sequence to Sequence Learning", arXiv:1705.03122, and GPT-2. The table
holds as many rows as the model was trained with. A longer text reads between them, as image models are moved to
larger images (Dosovitskiy et al. 2021, arXiv:2010.11929, section 3.2): position p is row p / factor,
interpolated linearly. At factor 1 it is the table. Positions beyond the last row read the last row.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from lcx.about import About
from lcx.positions.api import Position
from lcx.positions.extension import stretch
from lcx.types import Array, Float, Int, Tree

ABOUT = About(
    paper='arXiv:1705.03122, Gehring et al. 2017',
    what='a learned vector for each position, interpolated for longer texts',
    trained='scratch',
    cost='none per layer',
)


def learned(
    *,
    width: int,
    length: int,
    trained_length: int,
    factor: float | None = None,
    original_length: int | None = None,
) -> Position:
    """A table of ``original_length`` rows; see :func:`~lcx.positions.extension.stretch` for the defaults and errors.

    It may have more rows than any text so far has tokens. It starts normal with standard deviation 0.02, as in GPT-2.
    """
    reach = max(length, original_length or 0)
    factor, rows = stretch(factor, original_length, length=reach, trained_length=trained_length)

    def init(key: Array) -> Tree:
        return {'table': 0.02 * jax.random.normal(key, (rows, width))}

    def embed(params: Tree, pos: Int[Array, 'B T']) -> Float[Array, 'B T D']:
        row = jnp.clip(pos / factor, 0, rows - 1)
        below = jnp.floor(row).astype(jnp.int32)
        above, share = jnp.minimum(below + 1, rows - 1), (row - below)[..., None]
        return (1 - share) * params['table'][below] + share * params['table'][above]

    return Position(init=init, embed=embed)
