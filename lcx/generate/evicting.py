"""Keys and values of the tokens that a rule of :mod:`lcx.generate.eviction` keeps: each head has tokens of its own.

Kept tokens lie in the first slots, a new piece behind them. Once the piece has been read, what is too much is dropped:

  several tokens  the best ones move together, in the order of their slots;
  one token       it takes the place of the worst one, and nothing else moves. The slots are then in no order.

Every token is read at the position it has in the text. Rows are padded on the left; padding is never kept.
"""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp

from lcx.attention.cached import Blocks, Keys, window_of
from lcx.errors import ConfigError
from lcx.generate.eviction import Rule, survivors, worst
from lcx.models.cache import Cache, Entry, Received, Shape
from lcx.types import PADDING, Array, Float, Int


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Kept:
    """What is held. ``budgets`` are those of the layers, of which some may be smaller than the slots allow."""

    k: Float[Array, 'L B K S H']
    v: Float[Array, 'L B K S H']
    pos: Int[Array, 'L B K S']
    seg: Int[Array, 'L B K S']
    mass: Float[Array, 'L B K S']  # what tokens have received, fp32
    start: Int[Array, '']  # where the newest tokens are written
    used: Int[Array, '']
    budgets: tuple[int, ...] = dataclasses.field(metadata={'static': True})

    @property
    def slots(self) -> int:
        return self.k.shape[3]


@dataclasses.dataclass(frozen=True)
class Evicting:
    """Slots for a budget of tokens, of each layer and head, and for a piece of at most ``piece`` more.

    The budget is ``tokens``, or what ``bytes`` of keys and values hold in one layer, all rows and heads together. With
    ``whole`` there are that many slots and nothing is dropped, until :func:`compressed` is called.

    Raises:
      ConfigError: ``bytes`` are too few for the rule (when arrays are made); a piece is too long (when it is read).
    """

    rule: Rule
    piece: int
    tokens: int | None = None
    bytes: int | None = None
    whole: int | None = None

    def init(self, shape: Shape, dtype: jnp.dtype) -> Kept:
        every = self.rule.budgets(self._budget(shape, dtype), shape.depth)
        budgets = tuple(every[i] for i in shape.layers)
        slots = self.whole or max(budgets) + self.piece
        heads = len(shape.layers), shape.batch, shape.kv_heads, slots
        k, v = (
            jnp.zeros((*heads, shape.head_dim), dtype) for _ in range(2)
        )  # of its own each: they are donated
        pos, seg = jnp.zeros(heads, shape.positions), jnp.full(heads, PADDING, jnp.int32)
        start, used = (jnp.zeros((), jnp.int32) for _ in range(2))
        return Kept(k, v, pos, seg, jnp.zeros(heads, jnp.float32), start, used, budgets)

    def _budget(self, shape: Shape, dtype: jnp.dtype) -> int:
        if self.tokens is not None:
            return self.tokens
        each = 2 * shape.batch * shape.kv_heads * shape.head_dim * jnp.dtype(dtype).itemsize
        if self.bytes // each < self.rule.least:
            raise ConfigError(
                f'bytes: {self.bytes} hold {self.bytes // each} tokens of a layer; this policy needs '
                f'{self.rule.least}, that is {self.rule.least * each} bytes.'
            )
        return self.bytes // each

    def begin(self, state: Kept, pos: Int[Array, 'B T'], seg: Int[Array, 'B T']) -> Kept:
        t, start = pos.shape[1], state.used
        if not self.whole:
            if t > self.piece:
                raise ConfigError(f'chunk: {t} tokens at a time, in a cache made for pieces of {self.piece}.')
            start = jnp.minimum(start, state.slots - self.piece)
        return dataclasses.replace(state, start=start, used=start + t)

    def write(self, state: Kept, layer: Array, new: Entry) -> Kept:
        t = new.pos.shape[1]
        heads = state.k.shape[1], state.k.shape[2], t
        fresh = self.rule.start(jnp.arange(t, 0, -1))
        mass = jnp.broadcast_to(fresh.astype(jnp.float32), heads)
        pos, seg = (jnp.broadcast_to(x[:, None], heads) for x in (new.pos, new.seg))
        k, v = (x.swapaxes(1, 2) for x in (new.k, new.v))
        return _put(state, layer, state.start, k=k, v=v, pos=pos, seg=seg, mass=mass)

    def blocks(self, state: Kept, layer: Array) -> Blocks:
        def read(j: Array, size: int) -> Keys:
            start, fresh = window_of(j, size, state.slots)

            def cut(x: Array) -> Array:
                _, b, kv, _, *rest = x.shape
                at = layer, 0, 0, start, *[0 for _ in rest]
                return jax.lax.dynamic_slice(x, at, (1, b, kv, size, *rest))[0]

            k, v, pos, seg = map(cut, (state.k, state.v, state.pos, state.seg))
            return Keys(k, v, pos, jnp.where(fresh, seg, PADDING))

        return Blocks(read, state.slots, state.used)

    def positions(self, state: Kept) -> None:
        return None

    def settle(self, state: Kept, layer: Array, new: Entry, received: Received) -> Kept:
        t, rule = new.pos.shape[1], self.rule
        mass, pos, seg = (_of(x, layer) for x in (state.mass, state.pos, state.seg))
        held = jnp.sum(seg != PADDING, axis=-1)[..., None, None]
        slot = jnp.arange(state.slots)
        fresh = (slot >= state.start) & (slot < state.start + t)
        mass = jnp.where(fresh, mass, mass * rule.stays(t))
        mass = mass + received(lambda p: rule.weigh(p, held), rule.window)
        if rule.together:
            mass = jnp.broadcast_to(jnp.mean(mass, axis=1, keepdims=True), mass.shape)
        state = _put(state, layer, 0, mass=mass)
        if self.whole:
            return state
        budget = jnp.array(state.budgets)[layer]
        rank = rule.rank(mass, pos, seg, budget, pooled=t > 1)
        return _replaced(state, layer, rank, budget) if t == 1 else self._chosen(state, layer, rank, budget)

    def _chosen(self, state: Kept, layer: Array, rank: Array, budget: Array) -> Kept:
        """The best tokens together, and no others."""
        index, real = survivors(rank, budget, state.slots - self.piece)
        k, v, pos, mass, seg = (
            _taken(_of(x, layer), index) for x in (state.k, state.v, state.pos, state.mass, state.seg)
        )
        seg = jnp.pad(
            jnp.where(real, seg, PADDING), [(0, 0), (0, 0), (0, self.piece)], constant_values=PADDING
        )
        return _put(state, layer, 0, k=k, v=v, pos=pos, mass=mass, seg=seg)


def _replaced(state: Kept, layer: Array, rank: Array, budget: Array) -> Kept:
    """The newest token in the place of the worst one, which may be itself; where there is room it stays."""
    slot, full = jnp.arange(state.slots), state.start >= budget
    ours = (slot < budget) | (slot == state.start)
    last = worst(jnp.where(ours, rank, jnp.inf), jnp.where(ours, _of(state.pos, layer), jnp.inf))
    place = jnp.where(full, last, state.start)  # 'B K'
    b, kv = place.shape
    at = layer, jnp.arange(b)[:, None], jnp.arange(kv), place

    def moved(x: Array) -> Array:
        _, _, _, _, *rest = x.shape
        newest = jax.lax.dynamic_slice(
            x, (layer, 0, 0, state.start, *[0 for _ in rest]), (1, b, kv, 1, *rest)
        )
        return x.at[at].set(newest[0, :, :, 0])

    seg = moved(state.seg)
    own = jax.lax.dynamic_slice(seg, (layer, 0, 0, state.start), (1, b, kv, 1))
    seg = jax.lax.dynamic_update_slice(seg, jnp.where(full, PADDING, own), (layer, 0, 0, state.start))
    k, v, pos, mass = map(moved, (state.k, state.v, state.pos, state.mass))
    return dataclasses.replace(state, k=k, v=v, pos=pos, seg=seg, mass=mass)


def compressed(cache: Cache, more: int = 0) -> Cache:
    """A cache that held the whole prompt, reduced to its budget, and with room for ``more`` tokens beside it.

    It drops from then on what is above that.
    """
    state, store = cache.state, dataclasses.replace(cache.store, whole=None)
    largest = max(state.budgets)
    size, slots = min(largest, state.slots), largest + more + store.piece

    def reduced(k: Array, v: Array, pos: Array, seg: Array, mass: Array, budget: Array) -> tuple:
        index, real = survivors(store.rule.rank(mass, pos, seg, budget, pooled=True), budget, size)
        k, v, pos, seg, mass = (_taken(x, index) for x in (k, v, pos, seg, mass))
        found = k, v, pos, jnp.where(real, seg, PADDING), mass
        return tuple(jnp.pad(x, [(0, 0), (0, 0), (0, slots - size), *[(0, 0)] * (x.ndim - 3)]) for x in found)

    every = state.k, state.v, state.pos, state.seg, state.mass, jnp.array(state.budgets)
    kept = jax.lax.map(lambda xs: reduced(*xs), every)  # a layer at a time
    start, used = jnp.zeros((), jnp.int32), jnp.minimum(state.used, size)
    budgets = tuple(budget + more for budget in state.budgets)
    return dataclasses.replace(cache, store=store, state=Kept(*kept, start, used, budgets))


def _of(x: Float[Array, 'L ...'], layer: Array) -> Array:
    return jax.lax.dynamic_index_in_dim(x, layer, keepdims=False)


def _taken(x: Float[Array, 'B K S ...'], index: Int[Array, 'B K M']) -> Float[Array, 'B K M ...']:
    return jnp.take_along_axis(x, index.reshape(*index.shape, *[1] * (x.ndim - 3)), axis=2)


def _put(state: Kept, layer: Array, start: Array | int, **new: Float[Array, 'B K T ...']) -> Kept:
    """``state`` with the arrays that are named written into one layer, from slot ``start`` on."""

    def written(x: Array, y: Array) -> Array:
        return jax.lax.dynamic_update_slice(
            x, y[None].astype(x.dtype), (layer, 0, 0, start, *[0] * (x.ndim - 4))
        )

    return dataclasses.replace(state, **{name: written(getattr(state, name), x) for name, x in new.items()})
