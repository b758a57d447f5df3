"""Cutting attention into blocks: tokens to blocks and back, and the list of blocks that a rule leaves to be done.

Letters as in :mod:`lcx.types`, and R = G * block: the queries of the G heads that share one key head are the rows of
one matrix, so grouped-query attention reads each key block once and never repeats it.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from lcx.attention import api
from lcx.attention.masks import Bounds, Rule
from lcx.types import PADDING, Array, Bool, Float, Int, Tree, Where

_FAR = jnp.iinfo(jnp.int32).max


def even_block(length: int, block: int) -> int:
    """The block size that cuts ``length`` into the fewest blocks of at most ``block`` with the least padding."""
    count = -(-length // block)
    return -(-length // count)


class Side(NamedTuple):
    """Positions and segments of the queries or of the keys, in blocks that lead; all counts are 'n B block'."""

    pos: Int[Array, 'n B block']
    seg: Int[Array, 'n B block']


def sides(where: Where, q_block: int, k_block: int) -> tuple[Side, Side]:
    """The two sides of the scores; lengths are multiples of the blocks."""

    def cut(x: Array, size: int) -> Array:
        return x.reshape(x.shape[0], -1, size).swapaxes(0, 1)

    queries = Side(cut(where.q_pos, q_block), cut(where.q_seg, q_block))
    return queries, Side(cut(where.k_pos, k_block), cut(where.k_seg, k_block))


def pad(where: Where, q_block: int, k_block: int) -> Where:
    """``where`` with hidden tokens added up to a multiple of the blocks."""
    q_pos, q_seg = (pad_tokens(x, q_block) for x in (where.q_pos, where.q_seg))
    k_pos, k_seg = (pad_tokens(x, k_block) for x in (where.k_pos, where.k_seg))
    return Where(q_pos, k_pos, q_seg, k_seg, where.heads)


def pad_tokens(x: Array, block: int) -> Array:
    """Axis 1 of ``x`` filled up with zeros to a multiple of ``block``; PADDING is zero."""
    rest = -x.shape[1] % block
    return jnp.pad(x, [(0, 0), (0, rest)] + [(0, 0)] * (x.ndim - 2)) if rest else x


def rows(x: Float[Array, 'B T N H'], i: Array, side: Side, kv: int) -> Float[Array, 'B K R H']:
    """Block ``i`` of ``x`` with the heads of a group folded into rows; ``side`` is the block's, ``kv`` is K.

    Padding is zeroed. The copy is as small as the block: no second array of the length of ``x`` exists. The barrier
    makes XLA write it: fused into a matmul, the transposition takes the matmul off its fast path.
    """
    t, n, h = side.pos.shape[-1], *x.shape[2:]
    x = jax.lax.dynamic_slice_in_dim(x, i * t, t, axis=1)
    x = api.hide_padding(x, side.seg)
    x = x.reshape(-1, t, kv, n // kv, h).transpose(0, 2, 3, 1, 4)
    return jax.lax.optimization_barrier(x.reshape(-1, kv, n // kv * t, h))


def tokens(x: Float[Array, 'B K R H'], t: int) -> Float[Array, 'B t N H']:
    """Undoes :func:`rows`."""
    b, kv, r, h = x.shape
    return x.reshape(b, kv, r // t, t, h).transpose(0, 3, 1, 2, 4).reshape(b, t, kv * r // t, h)


def join(x: Float[Array, 'n B t N H']) -> Float[Array, 'B T N H']:
    """Blocks of tokens that lead, as one sequence."""
    n, b, t, *rest = x.shape
    return x.swapaxes(0, 1).reshape(b, n * t, *rest)


def at(tree: Tree, i: Array) -> Tree:
    """Block ``i`` of arrays whose blocks lead."""
    return jax.tree.map(lambda x: jax.lax.dynamic_index_in_dim(x, i, keepdims=False), tree)


def add(x: Float[Array, 'B T N H'], i: Array, block: Float[Array, 'B t N H']) -> Float[Array, 'B T N H']:
    """``x`` with ``block`` added to its block ``i``, in place where ``x`` is the carry of a loop."""
    start, t = i * block.shape[1], block.shape[1]
    before = jax.lax.dynamic_slice_in_dim(x, start, t, axis=1)
    return jax.lax.dynamic_update_slice_in_dim(x, before + block, start, axis=1)


class Plan(NamedTuple):
    """What is to be done for each block of one side: blocks of the other side, in the order of the work.

    The first ``full`` of ``order`` hold allowed pairs only and need no mask; those up to ``needed`` need it; the
    others hold no allowed pair.
    """

    order: Int[Array, 'n m']
    full: Int[Array, ' n']
    needed: Int[Array, ' n']


def plan(rule: Rule, q: Side, k: Side) -> tuple[Plan, Plan]:
    """``(for each query block, for each key block)``, from the positions and segments at the ends of blocks."""
    need, full = judge(rule, q, k)
    return _schedule(need, full), _schedule(need.T, full.T)


def judge(rule: Rule, q: Side, k: Side) -> tuple[Bool[Array, 'nq nk'], Bool[Array, 'nq nk']]:
    """``(need, full)``: which pairs of blocks may hold an allowed pair of tokens, and which hold no other."""
    (q_ends, q_some, q_all), (k_ends, k_some, k_all) = ends(q), ends(k)
    q_ends, q_some, q_all = ([x[:, None] for x in q_ends], q_some[:, None], q_all[:, None])  # 'nq 1 B'
    bounds = Bounds(*q_ends[:2], *k_ends[:2], *q_ends[2:], *k_ends[2:])
    need = jnp.any(rule.maybe(bounds) & q_some & k_some, axis=-1)
    return need, need & jnp.all(rule.surely(bounds) & q_all & k_all, axis=-1)


def _schedule(need: Bool[Array, 'n m'], full: Bool[Array, 'n m']) -> Plan:
    rank = 2 - need.astype(jnp.int32) - full.astype(jnp.int32)
    return Plan(jnp.argsort(rank, axis=1, stable=True), jnp.sum(full, axis=1), jnp.sum(need, axis=1))


def ends(side: Side) -> tuple[list[Array], Array, Array]:
    """Lowest and highest position and segment of the real tokens, whether there are any, and whether all are."""
    is_real = side.seg != PADDING
    ends = [
        extreme(jnp.where(is_real, x, fill), axis=-1)
        for x in side
        for extreme, fill in ((jnp.min, _FAR), (jnp.max, -_FAR))
    ]
    return ends, jnp.any(is_real, axis=-1), jnp.all(is_real, axis=-1)


def run(body: Any, plan: Plan, init: Tree) -> Tree:
    """``body(block, carry, hide)`` over the blocks of one row of a plan; ``hide`` (static) says whether to mask.

    The two loops have bounds that are data, so work that no query needs is not done, under jit and whatever the
    order of the tokens. A single block needs no loop.
    """
    if plan.order.shape[0] == 1:
        return body(0, init, True)
    carry = jax.lax.fori_loop(0, plan.full, lambda i, carry: body(plan.order[i], carry, False), init)
    return jax.lax.fori_loop(plan.full, plan.needed, lambda i, carry: body(plan.order[i], carry, True), carry)


def scan(body: Any, carry: Tree, xs: Tree) -> tuple[Tree, Tree]:
    """lax.scan that does not make a loop of one step."""
    if jax.tree.leaves(xs)[0].shape[0] > 1:
        return jax.lax.scan(body, carry, xs)
    carry, y = body(carry, jax.tree.map(lambda x: x[0], xs))
    return carry, jax.tree.map(lambda x: x[None], y)
