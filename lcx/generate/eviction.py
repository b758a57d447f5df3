"""Which tokens a full cache drops: the rules of the papers, as pure functions of what tokens have received.

A token's mass is gathered from the attention that queries pay to it. A rule says which queries count, how their
probabilities are weighed, and what is kept of it all: see :class:`Rule`. What one key head gathers is the mean over the
query heads that share it.

The papers' rules speak of one query at a time. Of a piece of several, all read what was held before and the piece
itself, and then the cache drops what is too much, at once: pieces of one token are the papers' case.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from lcx.errors import ConfigError, unknown
from lcx.types import PADDING, Array, Bool, Float, Int


def _alike(budget: int, depth: int) -> tuple[int, ...]:
    return (budget,) * depth


def _as_it_is(x: Array, _: Array) -> Array:
    return x


class Rule(NamedTuple):
    """How tokens are judged.

    ``window`` is the number of queries whose attention counts, the newest ones; None: all. Of a piece of T the last
    ``window`` count in full, and of what was gathered before it 1 - T / window stays (none below 0): a piece as long
    as the window takes its place, and in steps of one token the window has a soft edge.
    """

    least: int  # the smallest budget
    recent: Callable[[Array], Array]  # how many of the newest tokens a budget always keeps
    window: int | None = None
    weigh: Callable[[Array, Array], Array] = _as_it_is  # probabilities 'B K R S', tokens held 'B K 1 1'
    # The mass of a piece's tokens before any query counts, from how many queries there are from each on: T, ..., 1.
    start: Callable[[Array], Array] = jnp.zeros_like
    pool: Callable[[Array, Array], Array] = _as_it_is  # over neighbours, without those that are apart
    together: bool = False  # whether all heads of a layer keep the same tokens
    budgets: Callable[[int, int], tuple[int, ...]] = (
        _alike  # of every layer, from their mean and how many there are
    )

    def stays(self, queries: int) -> float:
        """The share of a mass that is left after so many more queries."""
        return 1.0 if self.window is None else max(0.0, 1 - queries / self.window)

    def rank(
        self,
        mass: Float[Array, 'B K S'],
        pos: Int[Array, 'B K S'],
        seg: Int[Array, 'B K S'],
        budget: Array,
        *,
        pooled: bool,
    ) -> Float[Array, 'B K S']:
        """What is kept first: the newest tokens are at infinity, empty slots below all others.

        Tokens are newest by their positions: a row is one text.
        """
        empty = seg == PADDING
        newest = jnp.max(jnp.where(empty, -1, pos), axis=-1, keepdims=True)
        recent = (pos > newest - self.recent(budget)) & ~empty
        rank = self.pool(mass, recent | empty) if pooled else mass
        return jnp.where(empty, -jnp.inf, jnp.where(recent, jnp.inf, rank))


def survivors(
    rank: Float[Array, 'B K S'], budget: Array, size: int
) -> tuple[Int[Array, 'B K size'], Bool[Array, 'B K size']]:
    """``(index, real)``: slots of the ``budget`` first tokens by rank, in the order of the slots; those at -inf never.

    Of equals the ones in higher slots go first. ``size`` is no less than ``budget``; what is left over is not real.
    """
    slots = rank.shape[-1]
    values, index = jax.lax.top_k(jnp.flip(rank, axis=-1), size)  # of equals it takes the first
    kept = (jnp.arange(size) < budget) & (values > -jnp.inf)
    index = jnp.sort(jnp.where(kept, slots - 1 - index, slots), axis=-1)
    return jnp.minimum(index, slots - 1), index < slots


def worst(rank: Float[Array, 'B K S'], pos: Int[Array, 'B K S']) -> Int[Array, 'B K']:
    """The slot that is last by rank; of equals, the one of the oldest token."""
    least = rank == jnp.min(rank, axis=-1, keepdims=True)
    return jnp.argmin(jnp.where(least, pos, jnp.inf), axis=-1)


def _max_pool(mass: Array, apart: Array, width: int) -> Array:
    return jax.lax.reduce_window(
        jnp.where(apart, -jnp.inf, mass), -jnp.inf, jax.lax.max, (1, 1, width), (1, 1, 1), 'SAME'
    )


def _mean_pool(mass: Array, apart: Array, width: int) -> Array:
    total = jax.lax.reduce_window(
        jnp.where(apart, 0.0, mass), 0.0, jax.lax.add, (1, 1, width), (1, 1, 1), 'SAME'
    )
    return total / width


POOLS = {
    'max': _max_pool,
    'mean': _mean_pool,
}  # tokens that are apart count as nothing, as those past the ends


@functools.cache  # equal rules are one object, and compile once
def h2o(recent: int | None) -> Rule:
    """Heavy hitters (Zhang et al. 2023, arXiv 2306.14048): the most attention, summed over all queries so far.

    ``recent`` None: half of the budget.
    """
    count = (lambda budget: budget // 2) if recent is None else (lambda budget: recent)
    return Rule(2 if recent is None else recent + 1, count)


@functools.cache
def tova() -> Rule:
    """Oren et al. 2024 (arXiv 2401.06104): the most attention from the last query, on average over a layer's heads."""
    return Rule(1, lambda budget: 0, window=1, together=True)


@functools.cache
def scissorhands(history: int, recent: int) -> Rule:
    """Liu et al. 2023 (arXiv 2305.17118): the fewest low scores within the last ``history`` queries.

    A score is low if it is below 1 / n, the average, of the n tokens that are held when the piece has been read.
    """

    def low(p: Array, held: Array) -> Array:
        return -(p < 1 / jnp.maximum(held, 1)).astype(jnp.float32)

    def before(after: Array) -> Array:
        """Takes back the low scores of those queries of the piece that come before a token and cannot see it."""
        return jnp.maximum(min(history, after.shape[0]) - after, 0)

    return Rule(recent + 1, lambda budget: recent, window=history, weigh=low, start=before)


@functools.cache
def snapkv(observe: int, pool: str, width: int) -> Rule:
    """Li et al. 2024 (arXiv 2404.14469): attention of the last ``observe`` queries, pooled over ``width`` neighbours.

    The observing tokens are kept. Neighbours are those in the cache: of the text, as long as none was dropped.

    Raises:
      ConfigError: an unknown pool, or a width that is even.
    """
    if pool not in POOLS:
        raise ConfigError(unknown('pool', pool, POOLS))
    if width < 1 or width % 2 == 0:
        raise ConfigError(f'width: {width} must be an odd number, for as many neighbours on either side.')
    return Rule(
        observe + 1,
        lambda budget: observe,
        window=observe,
        pool=functools.partial(POOLS[pool], width=width),
    )


@functools.cache
def pyramidkv(observe: int, pool: str, width: int, beta: float, longest: int) -> Rule:
    """Cai et al. 2024 (arXiv 2406.02069): SnapKV with budgets that fall by equal steps from first to last layer.

    Beside the observing tokens the last layer keeps a share of 1 / ``beta`` of the mean, and the first one as much
    above the mean as the last one is below it; none more than the ``longest`` text.
    """
    if not beta >= 1:
        raise ConfigError(f'beta: {beta} must be at least 1 (all layers alike).')

    def budgets(budget: int, depth: int) -> tuple[int, ...]:
        spread = max(0.0, min((budget - observe) * (1 - 1 / beta), longest - budget))
        # round() treats both signs alike, so that the mean is exact.
        return tuple(budget + round(spread * (1 - 2 * i / max(1, depth - 1))) for i in range(depth))

    return snapkv(observe, pool, width)._replace(budgets=budgets if beta > 1 else _alike)
