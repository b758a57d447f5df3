"""A position method around another: what it adds is its own, everything else is the base's.

    {'name': 'pose', 'target_length': 32768, 'base': {'name': 'yarn'}}

The base is any method of the registry, made in the wrapper's own context (:func:`made`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from lcx.config import make
from lcx.errors import ConfigError
from lcx.positions.api import Position


def made(base: Mapping[str, Any], **context: int) -> Position:
    """The method that the options ``base`` name.

    ``context`` is what :func:`lcx.config.make` hands to methods: head_dim, length, trained_length, heads, width.

    Raises:
      ConfigError: an option of the base cannot be used; the field named is ``base.OPTION``.
    """
    from lcx.positions import POSITIONS  # the registry lists the wrappers themselves

    return make(POSITIONS, base, 'base', **context)


def remapped(position: Position, remap: Callable) -> Position:
    """``position`` trained on the positions that ``remap`` draws; see :class:`~lcx.positions.api.Position`.

    Everything that reads positions reads the drawn ones, rules that measure distances (``window``) included.

    Raises:
      ConfigError: ``position`` draws positions already.
    """
    if position.remap is not None:
        raise ConfigError('base: draws the positions it trains on itself; only one method can.')
    return position._replace(remap=remap)


def reading(position: Position, part: str) -> Position:
    """``position``, whose parameters are ``params[part]`` of its wrapper's; the wrapper's ``init`` puts them there.

    A position without parameters has no part: trees that go through a list of their leaves lose empty branches.
    """

    def of(f: Callable | None) -> Callable | None:
        return None if f is None else lambda params, *rest, **named: f(params.get(part, {}), *rest, **named)

    names = ('embed', 'tables', 'query', 'key', 'gain', 'bias')
    return position._replace(**{name: of(getattr(position, name)) for name in names})


def check_gain(position: Position) -> None:
    """Raises a ConfigError if the base ``position`` has a gain, where its wrapper brings one."""
    if position.gain is not None:
        raise ConfigError('base: sharpens scores itself; only one method can.')


def check_target(target_length: int, tokens: int) -> None:
    """Raises a ConfigError unless rows of ``tokens`` fit into the positions below ``target_length``."""
    if target_length < tokens:
        raise ConfigError(
            f'target_length: {target_length} is less than the {tokens} tokens of a row; '
            f'it must be at least {tokens}.'
        )
