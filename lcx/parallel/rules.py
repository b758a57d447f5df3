"""Where things lie: one table from the logical axis names of lcx.models to the axes of the mesh.

Modules name their axes, 'embed' and 'heads', and know no mesh. A strategy is the sizes of a mesh: an axis of size 1
divides nothing. A dimension that does not divide is an error, never a copy on every device.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import flax.linen as nn
import jax
from flax import traverse_util
from jax.sharding import NamedSharding, PartitionSpec

from lcx.errors import ConfigError, unknown
from lcx.parallel import orders
from lcx.parallel.mesh import share
from lcx.types import Tree

Mesh = jax.sharding.Mesh | jax.sharding.AbstractMesh

# What divides an axis: of parameters (with gradients and moments), and of activations.
RULES: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    'layers': (('stage',), ('stage',)),  # repeats of the pattern
    'vocab': (('tensor',), ('tensor',)),
    'embed': (('fsdp',), ()),
    'heads': (('tensor',), ('tensor',)),
    'kv_heads': (('tensor',), ('tensor',)),
    'hidden': (('tensor',), ('tensor',)),
    'head_dim': ((), ()),
    'positions': ((), ()),  # vectors in a table of the cope mixer
    'rank': ((), ()),  # of an adapter
    'batch': ((), ('data', 'fsdp')),
    'length': ((), ('context',)),
}
PARAMETERS = {name: axes for name, (axes, _) in RULES.items()}
ACTIVATIONS = {name: axes for name, (_, axes) in RULES.items()}

# Which field of the configuration says how long an axis is, for messages.
FIELDS = {
    'layers': 'repeats of the pattern (model.layers)',
    'vocab': 'model.vocab',
    'embed': 'model.width',
    'heads': 'model.heads',
    'kv_heads': 'model.kv_heads',
    'hidden': 'model.hidden',
}


def spec(
    names: Sequence[str | None], rules: Mapping[str, tuple[str, ...]] = PARAMETERS, what: str = 'axes'
) -> PartitionSpec:
    """The PartitionSpec of an array whose axes have these names; None is an axis without one.

    Raises:
      ConfigError: a name is unknown, or two axes of the array are to be divided by the same axis of the mesh.
    """
    entries, owner = [], {}
    for name in names:
        if name is not None and name not in rules:
            raise ConfigError(unknown(what, name, rules))
        axes = () if name is None else rules[name]
        for axis in axes:
            if axis in owner:
                raise ConfigError(
                    f'{what}: {owner[axis]!r} and {name!r} cannot both lie along mesh axis {axis!r}; '
                    'give one of them no axis, or another.'
                )
            owner[axis] = name
        entries.append(axes[0] if len(axes) == 1 else axes or None)
    return PartitionSpec(*entries)


def shardings(boxed: Tree, mesh: Mesh, rules: Mapping[str, tuple[str, ...]] = PARAMETERS) -> Tree:
    """How parameters lie on ``mesh``: a tree of NamedShardings like that of the parameters.

    Args:
      boxed: shapes in boxes with the names of their axes, as :func:`lcx.models.decoder.boxed` gives them. What has no
        box, a position method's few numbers, is on every device.
      mesh: with the axes of :data:`lcx.parallel.mesh.AXES`; an AbstractMesh does.
      rules: a column of :data:`RULES`.

    Raises:
      ConfigError: an axis does not divide (both numbers, the nearest that do, the parameter), or see :func:`spec`.
    """
    flat = traverse_util.flatten_dict(boxed, sep='/')
    found = {name: NamedSharding(mesh, _checked(name, x, mesh, rules)) for name, x in flat.items()}
    return traverse_util.unflatten_dict(found, sep='/')


def _checked(name: str, x: Tree, mesh: Mesh, rules: Mapping[str, tuple[str, ...]]) -> PartitionSpec:
    if not isinstance(x, nn.LogicallyPartitioned):
        return PartitionSpec()
    result = spec(x.names, rules, name)
    for axis, size in zip(x.names, x.value.shape):
        check(mesh, axis, size, rules, name)
    return result


def check(
    mesh: Mesh, axis: str | None, size: int, rules: Mapping[str, tuple[str, ...]], parameter: str
) -> None:
    """Raises ConfigError unless the logical axis of that size divides; ``parameter`` names who has it."""
    try:
        share(mesh.shape, FIELDS.get(axis, axis), size, rules.get(axis, ()))
    except ConfigError as error:
        raise ConfigError(f'{error} It is axis {axis!r} of {parameter}.') from None


def share_rows(mesh: Mesh, field: str, batch: int, accumulate: int = 1) -> int:
    """Rows of a batch of ``accumulate`` gradient steps that one device has. Raises ConfigError."""
    why = 'gradient steps (optimizer.accumulate)'
    return share(mesh.shape, field, batch, ACTIVATIONS['batch'], accumulate, why)


def share_tokens(mesh: Mesh, field: str, length: int, order: str = 'contiguous') -> int:
    """Tokens of each row that one device has, in that order (:mod:`lcx.parallel.orders`). Raises ConfigError."""
    pieces = orders.ORDERS[order].pieces
    return share(mesh.shape, field, length, ACTIVATIONS['length'], pieces, f'pieces of order {order!r}')


def divided(spec: PartitionSpec, mesh: Mesh) -> int:
    """Into how many different parts an array of that spec is cut."""
    parts = 1
    for entry in spec:
        for axis in _axes(entry):
            parts *= mesh.shape[axis]
    return parts


def _axes(entry: str | Iterable[str] | None) -> tuple[str, ...]:
    return () if entry is None else (entry,) if isinstance(entry, str) else tuple(entry)
