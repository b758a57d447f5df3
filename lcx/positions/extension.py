"""What the methods that extend a trained model have in common: by which factor, and from which length."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping
from typing import Any

from lcx.errors import ConfigError


def stretch(
    factor: float | None, original_length: int | None, *, length: int, trained_length: int
) -> tuple[float, int]:
    """The factor and the original length (tokens) in force.

    ``original_length`` at None is ``trained_length``; ``factor`` at None is ``length / original_length``, and
    1 for lengths within the original.

    Raises:
      ConfigError: ``factor`` is below 1 or not finite; ``original_length`` is not positive, or more than both the
        trained length and the length in use where the factor follows from it, which then would extend nothing.
    """
    if original_length is None:
        original_length = trained_length
    if not original_length > 0:
        raise ConfigError(f'original_length: {original_length!r} must be greater than 0 tokens.')
    if factor is None:
        if original_length > max(length, trained_length):
            raise ConfigError(
                f'original_length: {original_length!r} exceeds the length in use, {length}, and the trained one; '
                f'give the factor too, or at most {trained_length}, which the parameters know.'
            )
        factor = max(1.0, length / original_length)
    check_factor(factor)
    return factor, original_length


def check_factor(factor: float) -> None:
    """Raises a ConfigError unless ``factor`` is a finite number of at least 1."""
    if not 1 <= factor < math.inf:
        raise ConfigError(f'factor: {factor!r} must be a finite number of at least 1; 1 extends nothing.')


def pinned(
    entry: Callable, options: Mapping[str, Any], *, length: int, trained_length: int
) -> dict[str, Any]:
    """``options`` of the registry entry with what would follow the length in use written down.

    A model tuned at ``length`` keeps the factor it was tuned with, whatever length it is used at later. Of a
    wrapper (``base``), the options of its base are written down too; ``target_length`` is what the base serves.
    """
    from lcx.positions import POSITIONS  # the registry's methods read this module

    takes = inspect.signature(entry).parameters
    given = {name: value for name, value in options.items() if value is not None}
    if 'base' in takes:
        base = given.get('base', takes['base'].default)
        reach = max(length, given.get('target_length', length))
        given['base'] = pinned(POSITIONS[base['name']], base, length=reach, trained_length=trained_length)
    if 'original_length' in takes:
        given.setdefault('original_length', trained_length)
    if 'factor' in takes and takes['factor'].default is None:
        reach = max(length, given['original_length'])  # whether it must be exceeded is for the method to say
        given['factor'], _ = stretch(
            given.get('factor'), given['original_length'], length=reach, trained_length=trained_length
        )
    return given


ROTATION = (
    'theta',
    'rotary_fraction',
    'interleaved',
)  # options of a rotary method that weights are trained with


def keep_rotation(options: Mapping[str, Any], trained: Mapping[str, Any]) -> dict[str, Any]:
    """``options`` of a position method for weights that know ``trained``: the same rotation, where none is asked for.

    That is, base, share and pairs of a rotary method go on to any other that means the same by them, inside of wrappers
    (``base``) too. p-RoPE's share counts pairs and not the head, so it is kept by p-RoPE alone.
    """
    from lcx.positions import POSITIONS  # the registry's methods read this module

    if options.get('name') not in POSITIONS:
        return dict(options)  # who makes the method says what is wrong
    takes = inspect.signature(POSITIONS[options['name']]).parameters
    if 'base' in takes:
        base = options.get('base') or takes['base'].default
        kept = keep_rotation(base, trained)
        return {**options, 'base': kept} if kept != dict(base) else dict(options)
    while trained.get('base') is not None:
        trained = trained['base']
    took = inspect.signature(POSITIONS[trained['name']]).parameters
    if 'head_dim' not in takes or 'head_dim' not in took:  # no rotation of heads
        return dict(options)
    return dict(options) | {
        name: trained[name]
        for name in ROTATION
        if trained.get(name) is not None
        and options.get(name) is None
        and name in takes
        and name in took
        and takes[name].default == took[name].default
    }
