"""Strict dataclasses: configuration enters here as a mapping and leaves as a frozen, checked dataclass.

Nothing behind this edge reads a ConfigDict. An unknown key, a wrong type or a missing field is a
:class:`~lcx.errors.ConfigError` that names the full path of the field.
"""

from __future__ import annotations

import dataclasses
import inspect
import types
import typing
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from lcx.errors import ConfigError, unknown

T = TypeVar('T')


class Options(Mapping):
    """An immutable, hashable mapping: the free-form arguments of a registry entry (``name`` and its numbers)."""

    def __init__(self, items: Mapping[str, Any] | None = None, **more: Any):
        self._items = {k: freeze(v) for k, v in {**dict(items or {}), **more}.items()}

    def __getitem__(self, key: str) -> Any:
        return self._items[key]

    def __iter__(self):
        return iter(self._items)

    def __len__(self) -> int:
        return len(self._items)

    def __hash__(self) -> int:
        return hash(frozenset(self._items.items()))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Mapping) and dict(self) == dict(other)

    def __repr__(self) -> str:
        return f'Options({self._items})'

    def set(self) -> dict[str, Any]:
        """The entries that are not None: an option left at None means the method's own default."""
        return {k: v for k, v in self._items.items() if v is not None}


def freeze(value: Any) -> Any:
    """Lists become tuples and mappings become Options, recursively: hashable static arguments for jit."""
    if isinstance(value, Mapping):
        return Options({k: value[k] for k in value})
    if isinstance(value, (list, tuple)):
        return tuple(freeze(v) for v in value)
    return value


def build(cls: type[T], values: Mapping[str, Any], path: str = '') -> T:
    """Makes the frozen dataclass ``cls`` from ``values``; ``path`` is the field's name in error messages."""
    values = _mapping(values, path or cls.__name__)
    hints = typing.get_type_hints(cls)
    fields = {f.name: f for f in dataclasses.fields(cls) if f.init}
    for key in values:
        if key not in fields:
            raise ConfigError(unknown(f'{path}.{key}' if path else str(key), key, fields))
    kwargs = {}
    for name, field in fields.items():
        here = f'{path}.{name}' if path else name
        if name in values:
            kwargs[name] = _convert(values[name], hints[name], here)
        elif field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
            raise ConfigError(f'{here}: missing; it is required.')
    try:
        return cls(**kwargs)
    except ConfigError as error:
        raise ConfigError(f'{path}.{error}' if path else str(error)) from None


def make(registry: Mapping[str, Callable], options: Mapping[str, Any], path: str, **context: Any) -> Any:
    """Calls the registry entry that ``options['name']`` names with the other options as keyword arguments.

    A registry is a literal dict from name to a function with keyword-only arguments; its signature is the
    documentation of its options. ``context`` holds what the caller knows (head size, length, ...): an entry
    receives those it asks for. An option at None means the entry's own default.
    """
    given = Options(_mapping(options, path)).set()
    name = given.pop('name', None)
    if name not in registry:
        raise ConfigError(unknown(f'{path}.name', name, registry))
    entry = registry[name]
    parameters = inspect.signature(entry).parameters
    hints = typing.get_type_hints(entry)
    takes = [p for p in parameters if p not in context]
    for key in given:
        if key not in takes:
            raise ConfigError(
                unknown(f'{path}.{key} (of {name!r})', key, takes or ['none: it has no options'])
            )
    kwargs = {k: _convert(v, hints.get(k, Any), f'{path}.{k}') for k, v in given.items()}
    kwargs |= {k: v for k, v in context.items() if k in parameters}
    missing = [
        p.name for p in parameters.values() if p.default is inspect.Parameter.empty and p.name not in kwargs
    ]
    if missing:
        raise ConfigError(f'{path}.{missing[0]}: {name!r} needs it.')
    try:
        return entry(**kwargs)
    except ConfigError as error:
        if str(error).partition(':')[0] in context:
            raise  # not an option of the entry: the caller knows where it comes from
        raise ConfigError(f'{path}.{error}') from None


def _convert(value: Any, hint: Any, path: str) -> Any:
    """``value`` as ``hint`` asks, or a ConfigError. Only exact conversions: an int may serve as a float."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if hint is Any:
        return freeze(value)
    if origin in (typing.Union, types.UnionType):
        if value is None and type(None) in arguments:
            return None
        rest = [a for a in arguments if a is not type(None)]
        for choice in rest[:-1]:
            try:
                return _convert(value, choice, path)
            except ConfigError:
                continue
        return _convert(value, rest[-1], path)
    if dataclasses.is_dataclass(hint):
        return value if isinstance(value, hint) else build(hint, value, path)
    if hint is Options:
        return Options(_mapping(value, path))
    if origin is Mapping:
        return Options(
            {k: _convert(v, arguments[1], f'{path}.{k}') for k, v in _mapping(value, path).items()}
        )
    if origin is tuple:
        if not isinstance(value, (list, tuple)):
            raise ConfigError(f'{path}: {value!r} is a {type(value).__name__}; expected a tuple.')
        return tuple(_convert(v, arguments[0], f'{path}[{i}]') for i, v in enumerate(value))
    if hint is float and type(value) is int:
        return float(value)
    if type(value) is not hint:
        raise ConfigError(f'{path}: {value!r} is a {type(value).__name__}; expected a {hint.__name__}.')
    return value


def completed(hint: Any, value: Any) -> Any:
    """``value`` for a field of type ``hint``, plain, with what its dataclasses lack at their defaults.

    So a file that was written before a field existed says the same as one written since, where the default of a new
    field is what was done before it.
    """
    arguments = typing.get_args(hint)
    if dataclasses.is_dataclass(hint) and isinstance(value, Mapping):
        hints = typing.get_type_hints(hint)
        absent = {f.name: plain(_default(f)) for f in dataclasses.fields(hint) if f.name not in value}
        given = {k: completed(hints.get(k), v) for k, v in value.items()}
        return {**{k: v for k, v in absent.items() if v is not dataclasses.MISSING}, **given}
    if typing.get_origin(hint) is Mapping and isinstance(value, Mapping):
        return {k: completed(arguments[1], v) for k, v in value.items()}
    if typing.get_origin(hint) is tuple and isinstance(value, (list, tuple)):
        return [completed(arguments[0], v) for v in value]
    return value


def _default(field: dataclasses.Field) -> Any:
    made = field.default_factory
    return field.default if made is dataclasses.MISSING else made()


def _mapping(value: Any, path: str) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise ConfigError(f'{path}: {value!r} is a {type(value).__name__}; expected named fields.')
    return value


def freeze_fields(owner: object) -> None:
    """Freezes the fields of a frozen dataclass in its ``__post_init__``: made by hand with dicts, it still hashes."""
    for field in dataclasses.fields(owner):
        object.__setattr__(owner, field.name, freeze(getattr(owner, field.name)))


def positive(owner: object, *names: str) -> None:
    """Raises a ConfigError for the first named field that is not greater than zero (None is allowed)."""
    for name in names:
        value = getattr(owner, name)
        if value is not None and not value > 0:
            raise ConfigError(f'{name}: {value!r} must be greater than 0.')


def plain(value: Any) -> Any:
    """The inverse: dataclasses, Options and tuples as JSON-ready dicts and lists."""
    if dataclasses.is_dataclass(value):
        return {f.name: plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {k: plain(value[k]) for k in value}
    if isinstance(value, (list, tuple)):
        return [plain(v) for v in value]
    return value
