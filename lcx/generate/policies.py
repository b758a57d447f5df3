"""Cache policies by name, as configuration writes them: ``{'name': 'streaming', 'window': 1020, 'sinks': 4}``.

A policy says who reads whom while it is in force (``model``), how the layers that read so far back keep their keys and
values (``store``), and what becomes of them when the prompt ends (``compress``). An entry's options are its arguments;
``room`` is what is asked of it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp

from lcx import config
from lcx.attention.masks import Reach
from lcx.config import Options
from lcx.errors import ConfigError, unknown
from lcx.generate import evicting, eviction
from lcx.generate.evicting import Evicting
from lcx.generate.quantised import Quantised
from lcx.generate.ring import Ring
from lcx.models import ModelConfig
from lcx.models.cache import Cache, Caches, Shape, Store
from lcx.models.config import DTYPES, LayerKind


class Room(NamedTuple):
    """What is asked of a cache."""

    prompt: int  # tokens of the longest prompt, padding included
    new: int  # tokens after it
    chunk: int  # most tokens handed in at a time

    @property
    def tokens(self) -> int:
        """Of the whole text."""
        return self.prompt + self.new


class Policy(NamedTuple):
    """See the module."""

    store: Callable[[Reach], Store]
    model: Callable[[ModelConfig], ModelConfig] = lambda model: model
    compress: Callable[[Cache], Cache] | None = None  # of every cache, when the prompt ends

    def caches(self, model: ModelConfig, batch: int) -> Caches:
        """Empty caches of every layer of ``model``."""
        count = len(model.pattern)
        methods = (model.read_position(kind, model.trained_length) for kind in set(model.depth))
        positions = jnp.int32 if all(method.whole for method in methods) else jnp.float32

        def cache(place: int, numbers: range) -> Cache:
            shape = Shape(tuple(numbers), model.layers, batch, model.kv_heads, model.head_dim, positions)
            reach = model.kinds[model.pattern[place]].reach()
            return Cache.make(self.store(reach), shape, DTYPES[model.dtype])

        scanned = model.layers - model.rest
        return Caches(
            tuple(cache(i, range(i, scanned, count)) for i in range(count if model.repeats else 0)),
            tuple(cache(i, range(scanned + i, scanned + i + 1)) for i in range(model.rest)),
        )

    def compressed(self, caches: Caches) -> Caches:
        """What is kept of ``caches`` when the prompt ends."""
        return caches if self.compress is None else caches.each(self.compress)


def lossless(reach: Reach, room: Room) -> Ring:
    """Keeps all that layers of this reach can still read: the whole text, or the newest and the first tokens of it."""
    if reach.behind is None or reach.first + reach.behind + 1 + 2 * room.chunk >= room.tokens:
        return Ring(room.tokens)
    return Ring(reach.behind + 1 + 2 * room.chunk, reach.first)


def full(*, room: Room, tokens: int | None = None) -> Policy:
    """All that can still be read, in full precision; local layers keep their window only.

    ``tokens`` is the most that a cache may hold; None: whatever the text needs.

    Raises:
      ConfigError: the text needs more than ``tokens``.
    """
    if tokens is not None and room.tokens > tokens:
        raise ConfigError(
            f'tokens: {tokens} cannot hold a prompt of {room.prompt} and {room.new} new tokens; give {room.tokens}, or '
            f'a policy that holds any text: {", ".join(name for name in POLICIES if name in BOUNDED)}.'
        )
    return Policy(lambda reach: lossless(reach, room))


def streaming(*, room: Room, window: int = 1020, sinks: int = 4, reposition: bool = True) -> Policy:
    """The ``window`` newest tokens and the first ``sinks``; see :mod:`lcx.attention.streaming`.

    With ``reposition`` positions are counted inside the cache, as in the paper; else tokens keep those of the text, and
    distances to the sinks grow without end. ``sinks`` may be 0: a window alone. Layers that read less far already stay
    as they are.

    Raises:
      ConfigError: ``window`` is below 1 or ``sinks`` below 0; layers have regions of their own.
    """
    if window < 1:
        raise ConfigError(f'window: {window} must be at least 1.')
    if sinks < 0:
        raise ConfigError(f'sinks: {sinks} must be at least 0.')

    def applied(model: ModelConfig) -> ModelConfig:
        kinds = {name: streamed(name, kind) for name, kind in model.kinds.items()}
        return dataclasses.replace(model, kinds=Options(kinds))

    def streamed(name: str, kind: LayerKind) -> LayerKind:
        behind = kind.reach().behind
        if behind is not None and behind < window:
            return kind
        if kind.read_regions():
            raise ConfigError(
                f"name: 'streaming' has regions of its own, beside {kind.regions['name']!r} of {name!r}."
            )
        if sinks and reposition:
            return dataclasses.replace(kind, regions=Options(name='streaming', window=window, sinks=sinks))
        read = [{'name': 'window', 'size': window}, *([{'name': 'sinks', 'count': sinks}] if sinks else [])]
        return dataclasses.replace(kind, rule=(*kind.rule, Options(name='either', rules=tuple(read))))

    return Policy(lambda reach: lossless(reach, room), applied)


def quantised(*, room: Room, bits: int = 4, group: int = 64, residual: int = 64) -> Policy:
    """Everything in ``bits`` bits, but at least the ``residual`` newest tokens; see :mod:`lcx.generate.quantised`.

    Keys share a scale in groups of ``group`` tokens, values in groups of as many channels (or as many as divide both).
    Layers that read a window only keep it in full precision.

    With the default, 16,384 tokens in 4 bits are 0.298 of bfloat16 where the newest are fp32; KIVI keeps 128.

    Raises:
      ConfigError: ``bits`` are not 2, 4 or 8; ``group`` does not fill bytes; ``residual`` is below 0.
    """
    if bits not in (2, 4, 8):
        raise ConfigError(f'bits: {bits} must be 2, 4 or 8.')
    if group < 1 or group * bits % 8:
        raise ConfigError(f'group: {group} must be a multiple of {8 // bits}: as many codes are a byte.')
    if residual < 0:
        raise ConfigError(f'residual: {residual} must be at least 0.')

    def store(reach: Reach) -> Store:
        plain = lossless(reach, room)
        bounded = reach.behind is not None and plain.newest < room.tokens
        return plain if bounded else Quantised(room.tokens, bits, group, residual)

    return Policy(store)


AFTER = ('chunk', 'prompt')  # when tokens are dropped


def _evicting(
    rule: eviction.Rule, room: Room, budget: int | None, size: int | None, after: str, more: int = 0
) -> Policy:
    """Layers that read all of the text keep ``budget`` tokens of it, or ``size`` bytes; local ones their window.

    ``after`` 'chunk': never more than that beside a piece. 'prompt': the whole prompt until it ends, and then the
    ``more`` tokens after it, too.
    """
    if (budget is None) == (size is None):
        raise ConfigError(
            'budget: give tokens for each layer and head, or bytes for each layer (all rows and heads): one of both.'
        )
    if budget is not None and budget < rule.least:
        raise ConfigError(
            f'budget: {budget} must be at least {rule.least}: one token beside those that are always kept.'
        )
    if after not in AFTER:
        raise ConfigError(unknown('after', after, AFTER))
    whole = room.tokens if after == 'prompt' else None
    store = Evicting(rule, room.chunk, budget, size, whole)

    def compress(cache: Cache) -> Cache:
        return evicting.compressed(cache, more) if isinstance(cache.store, Evicting) else cache

    def kept(reach: Reach) -> Store:
        return store if reach.behind is None else lossless(reach, room)

    return Policy(kept, compress=None if whole is None else compress)


def h2o(
    *,
    room: Room,
    budget: int | None = None,
    bytes: int | None = None,
    after: str = 'chunk',
    recent: int | None = None,
) -> Policy:
    """See :func:`lcx.generate.eviction.h2o`; ``recent`` None: half of the budget, as in the paper.

    Raises:
      ConfigError: none or both of ``budget`` and ``bytes``; too few for what is always kept; a negative ``recent``.
    """
    return _evicting(eviction.h2o(_count('recent', recent, 0)), room, budget, bytes, after)


def tova(*, room: Room, budget: int | None = None, bytes: int | None = None, after: str = 'chunk') -> Policy:
    """See :func:`lcx.generate.eviction.tova`. Raises a ConfigError as :func:`h2o` does."""
    return _evicting(eviction.tova(), room, budget, bytes, after)


def scissorhands(
    *,
    room: Room,
    budget: int | None = None,
    bytes: int | None = None,
    after: str = 'chunk',
    history: int = 400,
    recent: int = 10,
) -> Policy:
    """See :func:`lcx.generate.eviction.scissorhands`. Raises a ConfigError as :func:`h2o` does."""
    rule = eviction.scissorhands(_count('history', history, 1), _count('recent', recent, 0))
    return _evicting(rule, room, budget, bytes, after)


def snapkv(
    *,
    room: Room,
    budget: int | None = None,
    bytes: int | None = None,
    after: str = 'prompt',
    observe: int = 32,
    pool: str = 'max',
    width: int = 7,
) -> Policy:
    """See :func:`lcx.generate.eviction.snapkv`; what follows the prompt is kept, as many tokens as ``room`` says.

    Raises:
      ConfigError: as :func:`h2o` does; an unknown ``pool``, or an even ``width``.
    """
    rule = eviction.snapkv(_count('observe', observe, 1), pool, width)
    return _evicting(rule, room, budget, bytes, after, more=room.new)


def pyramidkv(
    *,
    room: Room,
    budget: int | None = None,
    bytes: int | None = None,
    after: str = 'prompt',
    observe: int = 32,
    pool: str = 'max',
    width: int = 7,
    beta: float = 20.0,
) -> Policy:
    """See :func:`lcx.generate.eviction.pyramidkv`; ``budget`` is the mean of all layers.

    Slots are those of the largest budget in each stack of layers.

    Raises:
      ConfigError: as :func:`snapkv` does; ``beta`` is below 1.
    """
    rule = eviction.pyramidkv(_count('observe', observe, 1), pool, width, beta, room.prompt)
    return _evicting(rule, room, budget, bytes, after, more=room.new)


def _count(name: str, value: int | None, least: int) -> int | None:
    if value is not None and value < least:
        raise ConfigError(f'{name}: {value} must be at least {least}.')
    return value


POLICIES = {
    'full': full,
    'streaming': streaming,
    'h2o': h2o,
    'tova': tova,
    'scissorhands': scissorhands,
    'snapkv': snapkv,
    'pyramidkv': pyramidkv,
    'quantised': quantised,
}

BOUNDED = ('streaming', 'h2o', 'tova', 'scissorhands')  # those whose memory does not grow with the text


def make_policy(options: Mapping, room: Room, path: str = 'cache') -> Policy:
    """The policy that ``{'name': ..., **options}`` describes.

    Raises :class:`~lcx.errors.ConfigError` naming ``path``, the option and the nearest valid choice.
    """
    return config.make(POLICIES, options, path, room=room)


def held_bytes(caches: Caches) -> int:
    """Bytes of all arrays of ``caches``, or of their shapes."""
    return sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(caches))
