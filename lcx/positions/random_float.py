"""Random Float Sampling (RFS): every document gets random real positions, in order, out of a shared range.

Shimizu, Taniguchi, Matsuo 2026, "Position Encoding with Random Float Sampling Enhances Length Generalization of
Transformers", arXiv:2602.14050. From the paper (its abstract): positions are continuous random numbers instead of
a discrete set, drawn from one range in training and at inference, so that no length is new; it goes with the
sinusoidal encoding, RoPE and ALiBi. Our reading of what the abstract leaves open: a document of n tokens gets n
independent uniform numbers of [0, L), sorted, with L = ``target_length``; each document of a packed row has draws
of its own; a document of one token stays at 0.

Two tokens must not get the same number, or a causal query could read the token after it. So the numbers are those
of a grid of 2^22 cells, and token i of a document moves on by i cells: n sorted draws of 2^22 - n cells become n
different ones (each set of cells is reached by one multiset of draws), which fp32 keeps apart. A cell is L / 2^22.

All methods read fractions: RoPE's family and the sinusoids turn by them, biases take distances (T5 rounds them
down to its buckets), a learned table is interpolated. The rules ``dilated`` and ``strided`` count whole positions
and are refused. :mod:`~lcx.positions.randomized` draws whole numbers.
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
from lcx.types import Array, Float, Int

ABOUT = About(
    paper='arXiv:2602.14050, Shimizu et al. 2026',
    what='any method, on random real positions of a longer range, in training and later',
    trained='scratch',
    cost='none per layer; a random number per token and step, sorted',
)

CELLS = 2**22  # a step of 2^-22 survives the rounding of fp32 to 2^-24 on both sides of it


def random_float(
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
    """``base``, made for ``target_length`` tokens, on random real positions below it (at least the tokens of a row).

    ``draw_at_evaluation=False`` leaves positions as they are there, which is not the paper.

    Raises:
      ConfigError: as the base; ``target_length`` exceeds 2^22; at drawing, where rows are longer than it.
    """
    if target_length > CELLS:
        raise ConfigError(
            f'target_length: {target_length} must be at most {CELLS}: fp32 tells no more positions apart.'
        )
    context = {'head_dim': head_dim, 'trained_length': trained_length, 'heads': heads, 'width': width}
    position = wrap.made(base, length=max(length, target_length), **context)
    remapped = wrap.remapped(position, functools.partial(remap, target_length, draw_at_evaluation))
    return remapped._replace(whole=False)


def remap(
    target_length: int, draw_at_evaluation: bool, key: Array, positions: Int[Array, 'B T'], train: bool
) -> Float[Array, 'B T']:
    """Increasing random numbers for each document; those of one token, and padding, stay where they are."""
    if not (train or draw_at_evaluation):
        return positions
    wrap.check_target(target_length, positions.shape[1])
    documents = Documents.of(positions)
    free = jax.random.randint(key, positions.shape, 0, CELLS - documents.length + 1)
    _, free = jax.lax.sort((documents.number, free), dimension=1, num_keys=2)
    cells = jnp.where(documents.alone(), 0, free + positions)
    return cells.astype(jnp.float32) * (target_length / CELLS)
