"""Rules: which query may read which key, as a function of positions and segments, one block at a time.

A rule never sees an index, only the numbers in :class:`~lcx.types.Where`, so the same rule serves packed,
permuted, cached and sharded tokens. Rules combine: ``both(causal, same_segment)`` is a packed decoder,
``both(causal, either(window(1024), sinks(4)))`` is StreamingLLM. Constructors are cached, so equal rules
are one object and compile once.

Padding is not a rule: every implementation hides keys of segment 0 and returns zeros for queries of segment 0.

The pictures show queries 0..5 downwards and keys 0..5 to the right, 1 = may read.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp

from lcx.errors import ConfigError
from lcx.types import PADDING, Array, Bool, Int, Where

ANY = 2**31 - 1  # a distance greater than any


class Bounds(NamedTuple):
    """Smallest and largest position and segment among the real tokens of blocks of queries and keys.

    Fields broadcast against each other; blocks of padding have ``min > max``.
    """

    q_min: Array
    q_max: Array
    k_min: Array
    k_max: Array
    q_seg_min: Array
    q_seg_max: Array
    k_seg_min: Array
    k_seg_max: Array


class Band(NamedTuple):
    """An interval of keys for every query: ``q - behind <= k <= q + ahead``, where None sets no limit."""

    behind: int | None
    ahead: int | None
    segments: bool  # and only keys of the query's own segment


class Reach(NamedTuple):
    """How far back queries read: no key more than ``behind`` positions before them, but for positions below ``first``.

    None is any distance. What lies beyond, a cache may forget. It may name more than is read, never less.
    """

    behind: int | None = None
    first: int = 0


def never(bounds: Bounds) -> Array:
    """The ``surely`` of a rule that cannot tell: no block is known to be allowed as a whole."""
    return jnp.zeros(jnp.broadcast_shapes(jnp.shape(bounds.q_min), jnp.shape(bounds.k_min)), bool)


class Rule(NamedTuple):
    """Who may read whom.

    ``allow`` gives the exact answer inside one block. The others speak of whole blocks, from bounds alone:

    ``maybe``   may the block hold an allowed pair? It may say yes wrongly, never no: kernels skip a block at no.
    ``surely``  are all pairs of real tokens allowed? It may say no wrongly, never yes: kernels leave out the mask
                at yes. It knows nothing of padding inside the block: a kernel must look at that itself.
    ``band``    the interval that the rule is, if it is one and nothing else: what fused kernels can be told.
    ``whole``   does the rule count positions, so that it means nothing between them (float positions)?
    ``reach``   how far back it reads: what a cache has to keep.

    Of a block of padding alone both may say anything, since it holds no pair of real tokens.
    """

    allow: Callable[[Where], Bool[Array, 'B 1|N T S']]
    maybe: Callable[[Bounds], Array]
    surely: Callable[[Bounds], Array] = never
    band: Band | None = None
    whole: bool = False
    reach: Reach = Reach()


def pairs(q: Int[Array, 'B T'], k: Int[Array, 'B S']) -> tuple[Array, Array]:
    """Shapes that broadcast to 'B 1 T S'."""
    return q[:, None, :, None], k[:, None, None, :]


def _causal(where: Where) -> Array:
    q, k = pairs(where.q_pos, where.k_pos)
    return q >= k


causal = Rule(
    _causal,
    lambda b: b.q_max >= b.k_min,
    lambda b: b.q_min >= b.k_max,
    Band(behind=None, ahead=0, segments=False),
)
"""Keys at or before the query.

    1 0 0 0 0 0
    1 1 0 0 0 0
    1 1 1 0 0 0
    1 1 1 1 0 0
    1 1 1 1 1 0
    1 1 1 1 1 1
"""

everything = Rule(
    lambda w: jnp.ones((1, 1, 1, 1), bool),
    lambda b: b.q_max >= b.q_min,
    lambda b: b.q_max >= b.q_min,
    Band(behind=None, ahead=None, segments=False),
)
"""No restriction: an encoder, or cross-attention."""


def _same_segment(where: Where) -> Array:
    q, k = pairs(where.q_seg, where.k_seg)
    return q == k


same_segment = Rule(
    _same_segment,
    lambda b: (b.q_seg_max >= b.k_seg_min) & (b.k_seg_max >= b.q_seg_min),
    lambda b: (b.q_seg_min == b.q_seg_max) & (b.k_seg_min == b.k_seg_max) & (b.q_seg_min == b.k_seg_min),
    Band(behind=None, ahead=None, segments=True),
)
"""Keys of the query's own document. Segments 1 1 1 2 2 2:

    1 1 1 0 0 0
    1 1 1 0 0 0
    1 1 1 0 0 0
    0 0 0 1 1 1
    0 0 0 1 1 1
    0 0 0 1 1 1
"""


def one_object(constructor: Callable[..., Rule]) -> Callable[..., Rule]:
    """A cache that does not tell ``window(2)`` from ``window(size=2)``."""
    cached, signature = functools.cache(constructor), inspect.signature(constructor)

    @functools.wraps(constructor)
    def construct(*values: int, **named: int) -> Rule:
        given = signature.bind(*values, **named)
        given.apply_defaults()
        return cached(*given.args)

    return construct


@one_object
def window(size: int) -> Rule:
    """Keys less than ``size`` positions away, on either side; add ``causal`` for a decoder.

    ``both(causal, window(3))`` (Longformer, arXiv 2004.05150; Mistral's sliding window):

        1 0 0 0 0 0
        1 1 0 0 0 0
        1 1 1 0 0 0
        0 1 1 1 0 0
        0 0 1 1 1 0
        0 0 0 1 1 1
    """
    at_least_one('size', size)

    def allow(where: Where) -> Array:
        q, k = pairs(where.q_pos, where.k_pos)
        return jnp.abs(q - k) < size

    return Rule(
        allow,
        lambda b: (b.q_min - b.k_max < size) & (b.k_min - b.q_max < size),
        lambda b: (b.q_max - b.k_min < size) & (b.k_max - b.q_min < size),
        Band(behind=size - 1, ahead=size - 1, segments=False),
        reach=Reach(size - 1),
    )


@one_object
def distance(low: int, high: int | None = None) -> Rule:
    """Keys at least ``low`` and less than ``high`` positions before the query; None sets no limit.

    ``distance(1, 4)``; ``distance(0)`` is ``causal``:

        0 0 0 0 0 0
        1 0 0 0 0 0
        1 1 0 0 0 0
        1 1 1 0 0 0
        0 1 1 1 0 0
        0 0 1 1 1 0
    """
    end = ANY if high is None else high
    if low >= end:
        raise ConfigError(f'high: {high} must be greater than low={low}.')

    def allow(where: Where) -> Array:
        q, k = pairs(where.q_pos, where.k_pos)
        return (q - k >= low) & (q - k < end)

    # Kernels that are told an interval take it that a query lies within its own.
    band = None if low > 0 else Band(None if high is None else high - 1, -low, segments=False)
    return Rule(
        allow,
        lambda b: (b.q_max - b.k_min >= low) & (b.q_min - b.k_max < end),
        lambda b: (b.q_min - b.k_max >= low) & (b.q_max - b.k_min < end),
        band,
        reach=Reach(None if high is None else max(0, high - 1)),
    )


@one_object
def sinks(count: int) -> Rule:
    """The first ``count`` positions (attention sinks, StreamingLLM, arXiv 2309.17453).

    ``both(causal, either(window(2), sinks(1)))``:

        1 0 0 0 0 0
        1 1 0 0 0 0
        1 1 1 0 0 0
        1 0 1 1 0 0
        1 0 0 1 1 0
        1 0 0 0 1 1
    """
    at_least_one('count', count)

    def allow(where: Where) -> Array:
        return (where.k_pos < count)[:, None, None, :]

    return Rule(allow, lambda b: b.k_min < count, lambda b: b.k_max < count, reach=Reach(0, count))


def prefix(length: int) -> Rule:
    """Prefix language model: causal, and everybody reads the first ``length`` positions.

    ``prefix(3)``:

        1 1 1 0 0 0
        1 1 1 0 0 0
        1 1 1 0 0 0
        1 1 1 1 0 0
        1 1 1 1 1 0
        1 1 1 1 1 1
    """
    return either(causal, sinks(length))


@functools.cache
def both(*rules: Rule) -> Rule:
    """Pairs that every one of ``rules`` allows; of no rule: everything."""
    if not rules:
        return everything
    # The nearest of them: a key that it cannot read, nobody can.
    reach = min((r.reach for r in rules), key=lambda r: (ANY if r.behind is None else r.behind, r.first))
    return _combine(rules, jnp.logical_and, _intersection([r.band for r in rules]), reach)


@functools.cache
def either(*rules: Rule) -> Rule:
    """Pairs that any one of ``rules`` allows."""
    if not rules:
        raise ConfigError('rules: either() needs at least one rule.')
    bands = {r.band for r in rules}
    behind = [r.reach.behind for r in rules]
    reach = Reach(None if None in behind else max(behind), max(r.reach.first for r in rules))
    return _combine(rules, jnp.logical_or, bands.pop() if len(bands) == 1 else None, reach)


def _combine(rules: tuple[Rule, ...], join: Callable, band: Band | None, reach: Reach) -> Rule:
    """Joins the answers of ``rules``. Of ``either``, ``surely`` is too careful: parts may cover a block together."""
    if len(rules) == 1:
        return rules[0]

    def joined(answer: str) -> Callable:
        return lambda x: functools.reduce(join, [getattr(r, answer)(x) for r in rules])

    whole = any(r.whole for r in rules)
    return Rule(joined('allow'), joined('maybe'), joined('surely'), band, whole, reach)


def _intersection(bands: list[Band | None]) -> Band | None:
    if None in bands:
        return None

    def nearest(limits: list[int | None]) -> int | None:
        return min((x for x in limits if x is not None), default=None)

    behind, ahead, segments = zip(*bands)
    return Band(nearest(behind), nearest(ahead), any(segments))


def at_least_one(name: str, value: int) -> None:
    if value < 1:
        raise ConfigError(f'{name}: {value} must be at least 1.')


def visible(rule: Rule, where: Where) -> Bool[Array, 'B 1|N T S']:
    """The rule inside one block, with padding hidden on both sides."""
    q, k = pairs(where.q_seg, where.k_seg)
    return rule.allow(where) & (q != PADDING) & (k != PADDING)
