"""Where things lie: one table from the logical axis names of lcx.models to the axes of the mesh.

Modules name their axes, 'embed' and 'heads', and know no mesh. A strategy is the sizes of a mesh: an axis of size 1
divides nothing. A dimension that does not divide is an error, never a copy on every device.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterable, Mapping, Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding, PartitionSpec

from lcx.errors import ConfigError, unknown
from lcx.parallel.mesh import share
from lcx.types import Array, Tree

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
    'positions': ((), ()),  # vectors in a table, of absolute positions or of the cope mixer
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
    'batch': 'rows',
    'length': 'tokens of a row',
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

    def place(path: tuple, x: Tree) -> NamedSharding:
        name = jax.tree_util.keystr(path, simple=True, separator='/')
        return NamedSharding(mesh, _checked(name, x, mesh, rules))

    return jax.tree.map_with_path(place, boxed, is_leaf=lambda x: isinstance(x, nn.LogicallyPartitioned))


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


def placed(abstract: Tree, places: Tree) -> Tree:
    """Shapes and types with the shardings ``places``."""
    return jax.tree.map(
        lambda x, place: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=place), abstract, places
    )


def check_placed(tree: Tree, places: Tree) -> None:
    """Raises RuntimeError, naming the first, unless all arrays lie where ``places`` says: a guard on the compiler."""
    pairs = zip(jax.tree.leaves_with_path(tree), jax.tree.leaves(places), strict=True)
    for (path, x), place in pairs:
        if not x.sharding.is_equivalent_to(place, x.ndim):
            name = jax.tree_util.keystr(path, simple=True, separator='/')
            raise RuntimeError(f'{name}: was to lie as {place.spec}, but lies as {x.sharding}.')


def in_context() -> jax.sharding.AbstractMesh | None:
    """The mesh of several devices that :func:`jax.set_mesh` entered; None without one, or with one of one device."""
    mesh = jax.sharding.get_abstract_mesh()
    return None if mesh.empty or mesh.size == 1 else mesh


def shards(axis: str) -> int:
    """Into how many parts the mesh in context cuts activations along this logical axis."""
    mesh = in_context()
    return 1 if mesh is None else math.prod(mesh.shape.get(name, 1) for name in ACTIVATIONS[axis])


def constrain(
    x: Array, names: Sequence[str | None], rules: Mapping[str, tuple[str, ...]] = ACTIVATIONS
) -> Array:
    """``x`` where its axes' names say that it lies on the mesh in context; without one, ``x``.

    The compiler would replicate what does not divide and say nothing. Raises ConfigError: see :func:`check`.
    """
    mesh = in_context()
    if mesh is None:
        return x
    here = {name: tuple(axis for axis in axes if axis in mesh.shape) for name, axes in rules.items()}
    for axis, size in zip(names, x.shape):
        check(mesh, axis, size, here, f'an array of {" x ".join(map(str, names))}')
    return jax.lax.with_sharding_constraint(x, spec(names, here))


@functools.partial(jax.custom_vjp, nondiff_argnums=(1, 2))
def gathered(x: Array, names: tuple[str, ...], dtype: jnp.dtype) -> Array:
    """A parameter to compute with: cast, then whole along the axes of the mesh that divide parameters alone (fsdp).

    Cast first: half the bytes travel. Its gradient is summed in the parameter's own dtype, to where that lies.
    """
    return constrain(x.astype(dtype), names)


def _gathered_forward(x: Array, names: tuple[str, ...], dtype: jnp.dtype) -> tuple[Array, jnp.dtype]:
    return gathered(x, names, dtype), jnp.zeros((), x.dtype)


def _gathered_backward(names: tuple[str, ...], dtype: jnp.dtype, like: Array, dy: Array) -> tuple[Array]:
    return (constrain(dy.astype(like.dtype), names, PARAMETERS),)


gathered.defvjp(_gathered_forward, _gathered_backward)


def share_rows(mesh: Mesh, field: str, batch: int, accumulate: int = 1) -> int:
    """Rows of a batch of ``accumulate`` gradient steps that one device has. Raises ConfigError."""
    why = 'gradient steps (optimizer.accumulate)'
    return share(mesh.shape, field, batch, ACTIVATIONS['batch'], accumulate, why)


def divided(spec: PartitionSpec, mesh: Mesh) -> int:
    """Into how many different parts an array of that spec is cut."""
    parts = 1
    for entry in spec:
        for axis in _axes(entry):
            parts *= mesh.shape[axis]
    return parts


def _axes(entry: str | Iterable[str] | None) -> tuple[str, ...]:
    return () if entry is None else (entry,) if isinstance(entry, str) else tuple(entry)
