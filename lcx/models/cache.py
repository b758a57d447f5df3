"""What a model remembers of a text it reads in pieces: an argument and a result of its forward pass.

    caches = {...}                                            # a Cache for every layer of the pattern
    hidden, caches = decoder(tokens, positions, segments, caches)

How keys and values are kept is a store's affair (:class:`Store`): static, without arrays. Its arrays are the cache's,
those of all layers of one place in the pattern stacked: they go through the scan over depth as its carry, of which a
layer writes the new tokens only. As the scan's inputs and outputs they would be copied whole for every token.

Mixers with a state of another kind hold it by the same argument: all a block asks is that it comes back.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import NamedTuple, Protocol

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from lcx.attention.cached import Blocks, Received
from lcx.errors import ConfigError
from lcx.types import PADDING, Array, Float, Int, Tree


class Shape(NamedTuple):
    """Sizes of what is kept."""

    layers: tuple[int, ...]  # the numbers of those that share one place in the pattern
    depth: int  # of how many layers in all
    batch: int
    kv_heads: int
    head_dim: int
    positions: jnp.dtype = jnp.int32  # float32 where a method draws them between the tokens


class Entry(NamedTuple):
    """New tokens of one layer."""

    k: Float[Array, 'B T K H']
    v: Float[Array, 'B T K H']
    pos: Int[Array, 'B T']
    seg: Int[Array, 'B T']


class Store(Protocol):
    """How keys and values of some layers are kept. Frozen and hashable; ``state`` is a pytree of its own."""

    def init(self, shape: Shape, dtype: jnp.dtype) -> Tree:
        """The state before any token."""

    def begin(self, state: Tree, pos: Int[Array, 'B T'], seg: Int[Array, 'B T']) -> Tree:
        """Makes room for new tokens, in all layers at once."""

    def write(self, state: Tree, layer: Array, new: Entry) -> Tree:
        """Writes them in one layer."""

    def blocks(self, state: Tree, layer: Array) -> Blocks:
        """All that one layer holds, the new tokens too."""

    def positions(self, state: Tree) -> Int[Array, 'B S'] | None:
        """Positions of all slots; None where layers or heads keep tokens of their own."""

    def settle(self, state: Tree, layer: Array, new: Entry, received: Received) -> Tree:
        """Drops what is not kept, once the new tokens have read it."""


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Cache:
    """A store with its arrays."""

    store: Store = dataclasses.field(metadata={'static': True})
    state: Tree
    newest: Int[Array, ' B']  # the greatest position of each row, for methods that follow the length

    @classmethod
    def make(cls, store: Store, shape: Shape, dtype: jnp.dtype) -> Cache:
        return cls(store, store.init(shape, dtype), jnp.zeros(shape.batch, shape.positions))

    def begin(self, pos: Int[Array, 'B T'], seg: Int[Array, 'B T']) -> Cache:
        """Called once per forward pass, before the layers."""
        newest = jnp.maximum(self.newest, jnp.max(jnp.where(seg == PADDING, 0, pos), axis=1))
        return dataclasses.replace(self, state=self.store.begin(self.state, pos, seg), newest=newest)

    def write(self, layer: Array, new: Entry) -> Cache:
        return dataclasses.replace(self, state=self.store.write(self.state, layer, new))

    def settle(self, layer: Array, new: Entry, received: Received) -> Cache:
        return dataclasses.replace(self, state=self.store.settle(self.state, layer, new, received))


class Caches(NamedTuple):
    """Those of a whole decoder, by place in the pattern: of the scanned repeats, and of the layers that follow them."""

    layers: tuple[Cache, ...]
    rest: tuple[Cache, ...]

    def begin(self, pos: Int[Array, 'B T'], seg: Int[Array, 'B T']) -> Caches:
        """See :class:`Store`."""
        return self.each(lambda cache: cache.begin(pos, seg))

    def until(self, newest: Int[Array, ' B']) -> Caches:
        """For texts whose last positions are known: what follows the length follows those from the first token on."""
        # Of its own each: they are donated.
        return self.each(
            lambda cache: dataclasses.replace(cache, newest=jnp.array(newest, cache.newest.dtype))
        )

    def each(self, f: Callable[[Cache], Cache]) -> Caches:
        """``f`` of every cache."""
        return Caches(*(tuple(map(f, part)) for part in self))


def shardings(caches: Caches, mesh: Mesh, *, batch: str | None = None, heads: str | None = None) -> Caches:
    """How ``caches`` (arrays or shapes) lie on ``mesh``: rows over the axis ``batch``, key heads over ``heads``.

    For ``jax.jit(make, out_shardings=...)``, so that no device ever holds the whole; a step keeps them where they are.
    The arrays of stores lead with 'L B K' if they are by head, and with 'B' otherwise; scalars are everywhere.

    Raises:
      ConfigError: rows or key heads do not divide over the axis.
    """

    def one(x: jax.Array | jax.ShapeDtypeStruct) -> NamedSharding:
        names = (None, batch, heads)[: x.ndim] if x.ndim > 2 else (batch,)[: x.ndim]
        for name, size in zip(names, x.shape):
            if name is not None and size % mesh.shape[name]:
                raise ConfigError(
                    f'cache: {size} rows or key heads do not divide over {mesh.shape[name]} of {name!r}.'
                )
        return NamedSharding(mesh, PartitionSpec(*names))

    return jax.tree.map(one, caches)


class Memory(NamedTuple):
    """What a mixer is handed: the cache of its place in the pattern, which of its layers it is, and tables.

    ``tables`` are those of the position method at the positions of all slots, one for each region (or one), where keys
    are kept before rotation and all layers keep the same tokens; else None.
    """

    cache: Cache
    layer: Array
    tables: Tree = None
