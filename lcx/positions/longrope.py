"""LongRoPE: every pair has a factor of its own, found by search and given as a list.

Ding et al. 2024, "LongRoPE: Extending LLM Context Window Beyond 2 Million Tokens", arXiv:2402.13753; as
transformers 5.23 computes it, where Phi-3 is the model that uses it:

    f_k = theta^(-2k/H) / short_factor_k    for lengths in use up to the original one, L
    f_k = theta^(-2k/H) / long_factor_k     beyond
    s   = sqrt(1 + ln(factor) / ln(L))      at every length: on queries and on keys, scores get s^2

The length in use is that of the tokens at hand (the row), known before anything is computed, so the method is
static here. Transformers takes the largest position of the batch plus one instead, which agrees on rows that
begin at 0 and are not padded; a text that grows past L in a cache changes lists under the keys already there,
in both. The paper's exemption of the first tokens from interpolation is left out, as it is there.

The lists come from a search: :mod:`~lcx.positions.search`, and ``lcx search-factors`` on a trained model.

With all factors of both lists at 1, and ``factor`` at 1, it is RoPE.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np

from lcx.about import About
from lcx.errors import ConfigError
from lcx.positions import rope
from lcx.positions.api import Position
from lcx.positions.extension import stretch
from lcx.types import Array, Float, Int, Tree

ABOUT = About(
    paper='arXiv:2402.13753, Ding et al. 2024',
    what='a searched factor for every pair, one list within the original length and one beyond it',
    trained='tune',
    cost='none',
    hf='longrope',
)


def longrope(
    *,
    head_dim: int,
    length: int,
    trained_length: int,
    short_factor: tuple[float, ...],
    long_factor: tuple[float, ...],
    theta: float = 10000.0,
    factor: float | None = None,
    original_length: int | None = None,
    attention_factor: float | None = None,
    rotary_fraction: float = 1.0,
    interleaved: bool = False,
) -> Position:
    """LongRoPE; the lists have a number per pair, fastest first.

    ``factor`` counts for the attention scale alone; see :func:`~lcx.positions.extension.stretch` for its
    default and that of ``original_length``. ``attention_factor`` is s, or :func:`attention_scale` at None.

    Raises:
      ConfigError: as ``stretch`` and :func:`~lcx.positions.rope.rotating`; a list has the wrong length or a
        number that is not positive; ``attention_factor`` is not positive; ``original_length`` is 1.
    """
    factor, original = stretch(factor, original_length, length=length, trained_length=trained_length)
    dim = rope.rotating(head_dim, rotary_fraction)
    rope.check(dim, theta)
    for name, factors in (('short_factor', short_factor), ('long_factor', long_factor)):
        if len(factors) != dim // 2:
            raise ConfigError(f'{name}: {len(factors)} numbers; the {dim // 2} pairs need one each.')
        if not all(0 < f < math.inf for f in factors):
            raise ConfigError(f'{name}: {min(factors)!r} among its numbers; all must be finite and above 0.')
    scale = scale_in_use(attention_factor, factor, original)
    factors = long_factor if length > original else short_factor
    return rope.rotary(frequencies(dim, theta, factors, scale), interleaved=interleaved)


def frequencies(
    head_dim: int, theta: float, factors: Sequence[float], attention_factor: float
) -> rope.Frequencies:
    """``theta^(-2k/H)`` divided by the pair's factor."""
    return rope.Frequencies(rope.frequencies(head_dim, theta).inv_freq / np.array(factors), attention_factor)


def searched(
    *,
    head_dim: int,
    length: int,
    trained_length: int,
    theta: float = 10000.0,
    factor: float | None = None,
    original_length: int | None = None,
    attention_factor: float | None = None,
    rotary_fraction: float = 1.0,
    interleaved: bool = False,
) -> Position:
    """LongRoPE whose list is its parameter, ``{'factors': 'P'}``: one compiled program tries all lists.

    No method of the registry: frequencies that are no constants are rounded to fp32, and their angles have no
    gradient. The rest, and the errors, are as in :func:`longrope`.
    """
    factor, original = stretch(factor, original_length, length=length, trained_length=trained_length)
    dim = rope.rotating(head_dim, rotary_fraction)
    kept = rope.frequencies(dim, theta).inv_freq.astype(np.float32)
    scale = scale_in_use(attention_factor, factor, original)

    def compute(params: Tree, pos: Int[Array, 'B T']) -> tuple[Float[Array, 'B T P'], Float[Array, 'B T P']]:
        return rope.cos_sin(pos, rope.Frequencies(kept / params['factors'], scale))

    def turn(params: Tree, x: Float[Array, 'B T N H'], pos: Int[Array, 'B T'], tables: Tree = None) -> Array:
        made = compute(params, pos) if tables is None else tables
        return rope.rotate(x, *made, interleaved=interleaved)

    return Position(init=lambda key: {'factors': jnp.ones(dim // 2)}, tables=compute, query=turn, key=turn)


def scale_in_use(attention_factor: float | None, factor: float, original_length: int) -> float:
    """``attention_factor`` itself, checked, or :func:`attention_scale` at None."""
    if attention_factor is None:
        return attention_scale(factor, original_length)
    if not attention_factor > 0:
        raise ConfigError(f'attention_factor: {attention_factor!r} must be greater than 0.')
    return attention_factor


def attention_scale(factor: float, original_length: int) -> float:
    """``sqrt(1 + ln(factor) / ln(original_length))``.

    Raises:
      ConfigError: ``original_length`` is 1, whose logarithm is 0.
    """
    if original_length == 1:
        raise ConfigError(f'original_length: {original_length!r} must be at least 2 tokens.')
    return math.sqrt(1 + math.log(factor) / math.log(original_length))
