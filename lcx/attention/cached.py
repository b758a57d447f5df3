"""Attention over keys that lie in a cache, read block by block in whatever form they are kept. Forward only.

    out, lse = attend(Query(...), Blocks(read, slots, used))

A cache gives blocks of keys and values (:class:`Keys`), each already in the dtype of the queries: quantised ones are
dequantised a block at a time, keys kept before rotation are turned a block at a time. Slots are in no order and may be
empty: positions and segments are data. Tokens may differ from one key head to another, as eviction leaves them.

The softmax is that of :mod:`lcx.attention.blockwise`, by the same step. Only blocks in use are visited, those without a
visible pair are skipped, and those visible as a whole need no mask. A single query reads larger blocks: what counts
then is how often a loop turns.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from lcx.attention import blocks, blockwise, masks, online
from lcx.attention.masks import Rule
from lcx.types import Array, Float, Int, Tree, Where

QUERIES = 512  # in a block of queries
SCORES = 512 * 512  # of one head that exist at one time, at most
LARGEST = 8192  # tokens in a block of keys, unless a cache says otherwise


class Keys(NamedTuple):
    """A block of a cache. Empty slots have segment PADDING and finite numbers."""

    k: Float[Array, 'B K S H']
    v: Float[Array, 'B K S V']
    pos: Array  # 'B S', or 'B K S' where heads keep tokens of their own
    seg: Array


class Blocks(NamedTuple):
    """How a cache is read: ``read(j, size)`` is block ``j`` of ``size`` slots, no slot in two of them."""

    read: Callable[[Array, int], Keys]
    slots: int
    used: Int[Array, '']  # slots that may hold a token: the first ones
    largest: int = LARGEST  # tokens in a block, for however few queries


class Side(NamedTuple):
    """Pairs that ``rule`` allows, and the queries and keys turned as they are for those pairs."""

    rule: Rule
    q: Float[Array, 'B T N E']
    turn: Callable | None = (
        None  # (k 'B S K H', pos 'B S', tables) -> 'B S K E', as q; None: keys are kept turned
    )
    tables: Tree = None  # of all slots, 'B S ...', where all heads keep the same tokens


class Query(NamedTuple):
    """Who asks: sides with disjoint rules, and the true positions, segments and numbers of heads."""

    sides: tuple[Side, ...]
    pos: Int[Array, 'B T']
    seg: Int[Array, 'B T']
    heads: Int[Array, ' N']
    bias: Any = None
    scale: float | None = None
    softcap: float | None = None

    def rows(self, x: Float[Array, 'B T N ...'], kv: int) -> Float[Array, 'B K R ...']:
        """Numbers or vectors of queries, with the heads that share a key head as the rows of one matrix."""
        b, t, n, *rest = x.shape
        x = x.reshape(b, t, kv, n // kv, *rest).swapaxes(1, 2).swapaxes(2, 3)
        return x.reshape(b, kv, n // kv * t, *rest)

    def scaled(self, kv: int) -> list[tuple[blockwise.Settings, Array]]:
        """Settings and scaled queries 'B K R H' of each side."""
        t = self.pos.shape[1]
        found = []
        for side in self.sides:
            settings = blockwise.Settings.of(side.rule, side.q, self.scale, self.softcap, t, t)
            found.append((settings, self.rows(side.q, kv) * settings.q_scale))
        return found

    def last(self, count: int | None) -> Query:
        """The last ``count`` queries; all for None."""
        if count is None or count >= self.pos.shape[1]:
            return self
        sides = tuple(side._replace(q=side.q[:, -count:]) for side in self.sides)
        return self._replace(sides=sides, pos=self.pos[:, -count:], seg=self.seg[:, -count:])

    def over_blocks(self, f: Callable[[Query, Tree], Tree], xs: Tree = None) -> Tree:
        """``f`` of each block of queries, and of ``xs`` 'B T ...' cut alike; the results lead by block."""
        b, t = self.pos.shape
        size = blocks.even_block(t, QUERIES)
        if size == t:
            return jax.tree.map(lambda y: y[None], f(self, xs))

        def cut(x: Array) -> Array:
            x = blocks.pad_tokens(x, size)
            return x.reshape(b, -1, size, *x.shape[2:]).swapaxes(0, 1)

        def one(xs: tuple) -> Tree:
            qs, pos, seg, rest = xs
            sides = tuple(side._replace(q=q) for side, q in zip(self.sides, qs))
            return f(self._replace(sides=sides, pos=pos, seg=seg), rest)

        return jax.lax.map(one, jax.tree.map(cut, ([side.q for side in self.sides], self.pos, self.seg, xs)))


def block_size(queries: int, cache: Blocks) -> int:
    """Slots in a block: few for many queries, whose scores should stay in a core's cache.

    Blocks are alike, up to a multiple of 64: a last one that is read again from further in front would be work twice.
    """
    most = min(cache.largest, max(1, SCORES // queries))
    even = blocks.even_block(cache.slots, most)
    return min(cache.slots, most, -(-even // 64) * 64)


def attend(query: Query, cache: Blocks) -> tuple[Float[Array, 'B T N V'], Float[Array, 'B T N']]:
    """``(out, lse)``: attention over the whole cache; zeros for queries that see nothing."""
    found = query.over_blocks(lambda part, _: _attend(part, cache))
    out, lse = (blocks.join(y)[:, : query.pos.shape[1]] for y in found)
    return out, lse


def _attend(query: Query, cache: Blocks) -> tuple[Array, Array]:
    (b, t, n, _), size = query.sides[0].q.shape, block_size(query.pos.shape[1], cache)
    _, kv, _, width = _values(cache, size)
    sides = query.scaled(kv)

    def body(j: Array, carry: online.Partial) -> online.Partial:
        keys = cache.read(j, size)
        for side, (settings, q) in zip(query.sides, sides):
            carry = _folded(query, _at(side, j, size, cache.slots), settings, carry, q, keys)
        return carry

    start = online.empty((b, kv, n // kv * t, width))
    out, lse = online.finish(_for_blocks(cache, size, body, start))
    out = out.astype(query.sides[0].q.dtype)
    return blocks.tokens(out, t), blocks.tokens(lse[..., None], t)[..., 0]


def received(
    query: Query, lse: Float[Array, 'B T N'], cache: Blocks, weigh: Callable[[Array], Array]
) -> Float[Array, 'B K S']:
    """What each slot receives: ``weigh(probabilities 'B K R S')`` summed over the queries, by a second pass over keys.

    ``lse`` is what :func:`attend` gave for these queries.
    """

    return jnp.sum(query.over_blocks(lambda part, own: _received(part, own, cache, weigh), lse), axis=0)


def _received(query: Query, lse: Array, cache: Blocks, weigh: Callable) -> Float[Array, 'B K S']:
    size = block_size(query.pos.shape[1], cache)
    at = probabilities(query, lse, cache, size)

    def body(j: Array, total: Array) -> Array:
        start, _ = window_of(j, size, cache.slots)
        before = jax.lax.dynamic_slice_in_dim(total, start, size, axis=2)
        after = before + jnp.sum(weigh(at(j)), axis=2)
        return jax.lax.dynamic_update_slice_in_dim(total, after, start, axis=2)

    kv = _key_heads(cache, size)
    return _for_blocks(cache, size, body, jnp.zeros((lse.shape[0], kv, cache.slots)))


def probabilities(query: Query, lse: Float[Array, 'B T N'], cache: Blocks, size: int) -> Callable:
    """``at(j) -> 'B K R S'``: probabilities of all queries over block ``j`` of ``size`` slots, fp32; ``lse`` as above.

    Zero for what is not seen, and for slots of the last block that were in the one before.
    """
    kv = _key_heads(cache, size)
    sides, lse = query.scaled(kv), query.rows(lse, kv)

    def at(j: Array) -> Float[Array, 'B K R S']:
        keys = cache.read(j, size)
        return sum(
            _probabilities(query, _at(side, j, size, cache.slots), settings, lse, q, keys)
            for side, (settings, q) in zip(query.sides, sides)
        )

    return at


class Received(NamedTuple):
    """What queries have read in a cache, for whoever asks.

    Called with ``(weigh, last)`` it is :func:`received` of the newest ``last`` queries, or of all for None, on average
    over the heads that share a key head.
    """

    query: Query
    lse: Float[Array, 'B T N']
    cache: Blocks

    def __call__(self, weigh: Callable[[Array], Array], last: int | None) -> Float[Array, 'B K S']:
        asked = self.query.last(last)
        total = received(asked, self.lse[:, -asked.pos.shape[1] :], self.cache, weigh)
        return total / (self.query.heads.shape[0] // total.shape[1])


def _key_heads(cache: Blocks, size: int) -> int:
    return _values(cache, size)[1]


def _values(cache: Blocks, size: int) -> tuple[int, ...]:
    """The shape 'B K S V' of a block of values."""
    return jax.eval_shape(lambda: cache.read(jnp.int32(0), size)).v.shape


def window_of(j: Array, size: int, slots: int) -> tuple[Array, Array]:
    """``(start, fresh)``: where block ``j`` is read, and which of its slots were in no block before it.

    The last block starts early enough to be whole.
    """
    start = jnp.minimum(j * size, slots - size)
    return start, start + jnp.arange(size) >= j * size


def _for_blocks(cache: Blocks, size: int, body: Callable, start: Any) -> Any:
    if size == cache.slots:
        return body(jnp.int32(0), start)
    return jax.lax.fori_loop(0, -(-cache.used // size), body, start)


def _at(side: Side, j: Array, size: int, slots: int) -> Side:
    """``side`` with the tables of one block."""
    start, _ = window_of(j, size, slots)
    cut = lambda x: jax.lax.dynamic_slice_in_dim(x, start, size, axis=1)  # noqa: E731
    return side._replace(tables=jax.tree.map(cut, side.tables))


def _folded(
    query: Query, side: Side, settings: blockwise.Settings, carry: online.Partial, q: Array, keys: Keys
) -> online.Partial:
    def fold(carry: online.Partial, q: Array, keys: Keys, heads: Array, hide: bool) -> online.Partial:
        where = Where(query.pos, keys.pos, query.seg, keys.seg, heads)
        return blockwise.fold(settings, carry, q, _turned(side, keys), keys.v, where, query.bias, hide=hide)

    if keys.pos.ndim == 3:
        return _each_head(lambda *xs: fold(*xs, True), q.shape[1], query.heads)(carry, q, keys)
    cases = (
        lambda carry: carry,
        lambda carry: fold(carry, q, keys, query.heads, True),
        lambda carry: fold(carry, q, keys, query.heads, False),
    )
    needed, whole = _bounds(settings.rule, query, keys)
    if query.pos.shape[1] == 1:  # a mask over one row costs less than to compile without it
        return jax.lax.cond(needed, cases[1], cases[0], carry)
    return jax.lax.switch(needed.astype(jnp.int32) + (needed & whole), cases, carry)


def _bounds(rule: Rule, query: Query, keys: Keys) -> tuple[Array, Array]:
    """Whether the block holds a visible pair, and whether all its pairs are visible."""
    (q, q_some, q_all), (k, k_some, k_all) = (
        blocks.ends(blocks.Side(pos, seg)) for pos, seg in ((query.pos, query.seg), (keys.pos, keys.seg))
    )
    bounds = masks.Bounds(*q[:2], *k[:2], *q[2:], *k[2:])
    needed = jnp.any(rule.maybe(bounds) & q_some & k_some)
    return needed, jnp.all(rule.surely(bounds) & q_all & k_all)


def _probabilities(
    query: Query, side: Side, settings: blockwise.Settings, lse: Array, q: Array, keys: Keys
) -> Float[Array, 'B K R S']:
    def p(lse: Array, q: Array, keys: Keys, heads: Array) -> Array:
        where = Where(query.pos, keys.pos, query.seg, keys.seg, heads)
        raw = jnp.einsum('BKRH,BKSH->BKRS', q, _turned(side, keys), preferred_element_type=jnp.float32)
        s, _ = blockwise.scores(settings, raw, where, query.bias, keys_lead=False, hide=True)
        return jnp.exp(s - lse[..., None])

    if keys.pos.ndim == 3:
        return _each_head(p, q.shape[1], query.heads)(lse, q, keys)
    return p(lse, q, keys, query.heads)


def _each_head(f: Callable, kv: int, heads: Array) -> Callable:
    """``f`` for one key head at a time: arrays 'B K ...' reach it as 'B 1 ...', positions and segments as 'B S'."""

    def one(*xs: Any) -> Any:
        *arrays, keys, own = xs
        arrays, k, v = jax.tree.map(lambda x: x[:, None], (arrays, keys.k, keys.v))
        return jax.tree.map(lambda y: y[:, 0], f(*arrays, keys._replace(k=k, v=v), own))

    return lambda *xs: jax.vmap(one, in_axes=(*[1] * len(xs), 0), out_axes=1)(*xs, heads.reshape(kv, -1))


def _turned(side: Side, keys: Keys) -> Float[Array, 'B K S H']:
    if side.turn is None:
        return keys.k
    return side.turn(keys.k.swapaxes(1, 2), keys.pos, side.tables).swapaxes(1, 2)
