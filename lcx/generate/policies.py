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

from lcx import config
from lcx.attention.masks import Reach
from lcx.config import Options
from lcx.errors import ConfigError
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

        def cache(place: int, numbers: range) -> Cache:
            shape = Shape(tuple(numbers), model.layers, batch, model.kv_heads, model.head_dim)
            reach = model.kinds[model.pattern[place]].reach()
            return Cache.make(self.store(reach), shape, DTYPES[model.dtype])

        scanned = model.layers - model.rest
        return Caches(
            tuple(cache(i, range(i, scanned, count)) for i in range(count if model.repeats else 0)),
            tuple(cache(i, range(scanned + i, scanned + i + 1)) for i in range(model.rest)),
        )

    def compressed(self, caches: Caches) -> Caches:
        """What is kept of ``caches`` when the prompt ends."""
        if self.compress is None:
            return caches
        return Caches(*(tuple(self.compress(cache) for cache in part) for part in caches))


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


def quantised(*, room: Room, bits: int = 4, group: int = 64, residual: int = 128) -> Policy:
    """Everything in ``bits`` bits, but at least the ``residual`` newest tokens; see :mod:`lcx.generate.quantised`.

    Keys share a scale in groups of ``group`` tokens, values in groups of as many channels (or as many as divide both).
    Layers that read a window only keep it in full precision.

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
        too_short = room.tokens < residual + group  # nothing would ever be quantised
        return plain if bounded or too_short else Quantised(room.tokens, bits, group, residual)

    return Policy(store)


POLICIES = {'full': full, 'streaming': streaming, 'quantised': quantised}

BOUNDED = ('streaming',)  # those whose memory does not grow with the text


def make_policy(options: Mapping, room: Room, path: str = 'cache') -> Policy:
    """The policy that ``{'name': ..., **options}`` describes.

    Raises :class:`~lcx.errors.ConfigError` naming ``path``, the option and the nearest valid choice.
    """
    return config.make(POLICIES, options, path, room=room)


def held_bytes(caches: Caches) -> int:
    """Bytes of all arrays of ``caches``."""
    return sum(x.nbytes for x in jax.tree.leaves(caches))
