"""LongRoPE's search: rescale factors, one for each pair of dimensions, bred for a low objective.

Ding et al. 2024, "LongRoPE: Extending LLM Context Window Beyond 2 Million Tokens", arXiv:2402.13753, section 3.2.
An individual is a list of factors, fastest pair first, with

    1 <= f_0 <= f_1 <= ... <= 1.25 factor          on a grid of 0.01, factor = target / original length

The first generation is PI, NTK-aware scaling, YaRN and mutations of them. Every later one keeps the better half of
what there is as parents, and adds a quarter of mutated and a quarter of crossed ones. Children are drawn as if
again and again until their factors rise, which is how the paper keeps them monotone:

    mutated    each factor is drawn anew with a probability of 0.3, between those that stay on either side of it
    crossed    each factor is one parent's or the other's

The paper's other unknown, how many first tokens are left without interpolation, stays at 0 here, as it is in
transformers' LongRoPE, which has no place for it.

A generation follows from the seed, its number and the parents, so a search goes on from any generation as if it had
never stopped.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np

from lcx.positions import ntk, pi, rope, yarn

STEP = 0.01  # between the values that a factor can be mutated to
REACH = 1.25  # the largest factor, in extension factors
PROBABILITY = 0.3  # that a factor of a mutated individual is drawn anew

Factors = tuple[float, ...]


class Generation(NamedTuple):
    """What has been found so far, best first."""

    number: int  # 0: the first individuals
    individuals: tuple[Factors, ...]
    scores: tuple[float, ...]  # lower is better


def known(head_dim: int, theta: float, original_length: int, factor: float) -> dict[str, Factors]:
    """The factors of PI, NTK-aware scaling and YaRN, by name; ``head_dim`` elements rotate."""
    share = yarn.ramp(head_dim, theta, original_length, 32.0, 1.0, True)
    found = {
        'pi': pi.frequencies(head_dim, theta, factor),
        'ntk': ntk.frequencies(head_dim, theta, factor),
        'yarn': yarn.frequencies(head_dim, theta, factor, share, 1.0),
    }
    kept = rope.frequencies(head_dim, theta).inv_freq
    rising = {name: np.maximum.accumulate(kept / made.inv_freq) for name, made in found.items()}
    return {name: tuple(map(float, np.maximum(1.0, factors))) for name, factors in rising.items()}


def search(
    objective: Callable[[Factors], float],
    first: Sequence[Sequence[float]],
    *,
    factor: float,
    population: int,
    iterations: int,
    seed: int,
    after: Generation | None = None,
) -> Iterator[Generation]:
    """Generations 0 .. ``iterations``, or those ``after`` one that was found before with the same arguments.

    Args:
      objective: of an individual; lower is better, and NaN is the worst.
      first: the individuals to start from, as they are.
      factor: of the extension, at least 1.
      population: individuals of a generation, at least 4 and as many as in ``first``.
    """
    limit = REACH * factor
    if after is None:
        random, chosen = np.random.default_rng([seed, 0]), [tuple(map(float, f)) for f in first]
        while len(chosen) < population:
            chosen.append(mutated(random, chosen[random.integers(len(first))], limit))
        after = ranked(0, chosen, [objective(f) for f in chosen])
        yield after
    for number in range(after.number + 1, iterations + 1):
        parents = after.individuals[: population // 2]
        children = bred(np.random.default_rng([seed, number]), parents, population - len(parents), limit)
        scores = [*after.scores[: len(parents)], *(objective(child) for child in children)]
        after = ranked(number, [*parents, *children], scores)
        yield after


def ranked(number: int, individuals: Sequence[Factors], scores: Sequence[float]) -> Generation:
    """The generation with its best first; the earlier of equals comes first."""
    order = np.argsort(np.where(np.isnan(scores), np.inf, scores), kind='stable')
    return Generation(number, tuple(individuals[i] for i in order), tuple(float(scores[i]) for i in order))


def bred(random: np.random.Generator, parents: Sequence[Factors], count: int, limit: float) -> list[Factors]:
    """``count`` children, half of them mutated and half crossed."""
    children = []
    for i in range(count):
        if i < count // 2:
            children.append(mutated(random, parents[random.integers(len(parents))], limit))
        else:
            one, other = random.choice(len(parents), 2, replace=False)
            children.append(crossed(random, parents[one], parents[other]))
    return children


def mutated(random: np.random.Generator, factors: Factors, limit: float) -> Factors:
    """``factors`` with some drawn anew: uniform on the grid from 1 to ``limit``, given that all rise.

    Neighbours that are drawn together are sorted numbers between the two that stay around them.
    """
    anew = random.random(len(factors)) < PROBABILITY
    kept = [-1, *np.flatnonzero(~anew), len(factors)]
    child = np.array(factors)
    for before, after in itertools.pairwise(kept):
        low = child[before] if before >= 0 else 1.0
        high = child[after] if after < len(factors) else max(limit, low)
        drawn = np.sort(random.uniform(low, high, after - before - 1))
        child[before + 1 : after] = np.clip(np.round(np.round(drawn / STEP) * STEP, 6), low, high)
    return tuple(map(float, child))


def crossed(random: np.random.Generator, one: Factors, other: Factors) -> Factors:
    """A child that takes each factor from a random parent, or from the same as before where the other's is too low."""
    parents, child, chosen = (one, other), [], 0
    for i in range(len(one)):
        tossed = int(random.integers(2))
        if not child or parents[tossed][i] >= child[-1]:
            chosen = tossed
        child.append(parents[chosen][i])
    return tuple(child)
