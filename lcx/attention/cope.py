"""CoPE, contextual position encoding: positions that count tokens by what they are.

Golovneva et al. 2024, "Contextual Position Encoding: Learning to Count What's Important", arXiv:2405.18719. Every
query decides of every key whether it counts, and a key's position is how many count from it up to the query:

    s_ij = scale q_i k_j        g_ij = sigmoid(s_ij)        p_ij = min(sum over m from j to i of g_im, P - 1)
    out  = softmax(s_ij + q_i e[p_ij]) v

over the visible keys m and j. The table e holds P vectors, for the positions 0 .. P - 1, and q e[p] is interpolated
between the whole positions about p. As in the paper's listing, gates see the scaled scores, q e[p] is not scaled,
and the heads of a layer share e. With e = 0 it is attention without positions. Models must be trained with it.

Two implementations of the same numbers. Beside plain attention each score takes a sigmoid, a cumulative sum and two
look-ups; each query H * P multiplications. ``blockwise`` has memory linear in length. It takes key blocks from the
last to the first with the count so far as carry, skips those without a visible key, and its backward pass makes
the scores twice more.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from lcx.about import About
from lcx.attention import api, blocks, masks, online
from lcx.attention.masks import Rule, visible
from lcx.types import Array, Float, Where

ABOUT = About(
    paper='arXiv:2405.18719, Golovneva et al. 2024',
    what='positions count the tokens that the query finds to matter',
    trained='scratch',
    cost='a sigmoid, a cumulative sum and two look-ups per score; H P multiplications per query',
)

BLOCK = 256  # tokens in a block


def dense(
    q: Float[Array, 'B T N H'],
    k: Float[Array, 'B S K H'],
    v: Float[Array, 'B S K H'],
    where: Where,
    rule: Rule,
    table: Float[Array, 'P H'],
    *,
    scale: float | None = None,
) -> Float[Array, 'B T N H']:
    """CoPE by its definition: memory grows with T * S, and work with T * S * S.

    Raises:
      ValueError: an argument has a wrong shape.
    """
    _check(q, k, v, where, rule, table)
    q = api.hide_padding(q, where.q_seg)
    k, v = (api.hide_padding(x, where.k_seg) for x in (k, v))
    s, seen = _scores(q, k, _scale(q, scale)), visible(rule, where)
    later = where.k_pos[:, None, :] >= where.k_pos[:, :, None]  # 'B j m': keys m from j on
    counted = jnp.einsum('BNTM,BSM->BNTS', _gates(s, seen), later.astype(jnp.float32))
    s = s + _at(_of_positions(q, table), counted)
    return _finish(_part(s, seen, v), q, where.q_seg)


def blockwise(
    q: Float[Array, 'B T N H'],
    k: Float[Array, 'B S K H'],
    v: Float[Array, 'B S K H'],
    where: Where,
    rule: Rule,
    table: Float[Array, 'P H'],
    *,
    scale: float | None = None,
    block: int = BLOCK,
) -> Float[Array, 'B T N H']:
    """CoPE with memory linear in length; queries and keys are cut into blocks of at most ``block`` tokens.

    Raises:
      ValueError: an argument has a wrong shape, or ``block`` is below 1.
    """
    _check(q, k, v, where, rule, table)
    masks.at_least_one('block', block)
    length, scale = q.shape[1], _scale(q, scale)
    k, v, where = _in_order(k, v, where)
    q = api.hide_padding(q, where.q_seg)
    k, v = (api.hide_padding(x, where.k_seg) for x in (k, v))
    q_block, k_block = blocks.even_block(length, block), blocks.even_block(k.shape[1], block)
    q_side, k_side = blocks.sides(blocks.pad(where, q_block, k_block), q_block, k_block)
    keys = _cut(k, k_block), _cut(v, k_block), k_side
    plan, _ = blocks.plan(rule, q_side, k_side)
    needed = (
        jnp.argsort(plan.order, axis=1) < plan.needed[:, None]
    )  # 'nq nk': the rank of a block in the order

    @jax.checkpoint
    def query_block(xs: tuple) -> Array:
        q, side, needed = xs
        of_positions = _of_positions(q, table)

        def read(carry: tuple, k: Array, v: Array, other: blocks.Side) -> tuple:
            done, count = carry
            seen = visible(rule, Where(side.pos, other.pos, side.seg, other.seg, where.heads))
            s = _scores(q, k, scale)
            counted = jax.lax.cumsum(_gates(s, seen), axis=3, reverse=True) + count[..., None]
            part = _part(s + _at(of_positions, counted), seen, v)
            return online.merge(done, part), counted[..., 0]

        @jax.checkpoint
        def key_block(carry: tuple, xs: tuple) -> tuple[tuple, None]:
            *keys, is_needed = xs
            return jax.lax.cond(is_needed, read, lambda carry, *_: carry, carry, *keys), None

        (b, t, n, h) = q.shape
        start = online.empty((b, n, t, h)), jnp.zeros((b, n, t))
        (done, _), _ = jax.lax.scan(key_block, start, (*keys, needed), reverse=True)
        return _finish(done, q, side.seg)

    out = jax.lax.map(query_block, (_cut(q, q_block), q_side, needed))
    return blocks.join(out)[:, :length]


def _scale(q: Array, scale: float | None) -> float:
    return q.shape[-1] ** -0.5 if scale is None else scale


def _scores(q: Array, k: Array, scale: float) -> Float[Array, 'B N T S']:
    (b, t, n, h), (s, kv) = q.shape, k.shape[1:3]
    grouped = q.reshape(b, t, kv, n // kv, h)
    raw = jnp.einsum('BTKGH,BSKH->BKGTS', grouped, k, preferred_element_type=jnp.float32)
    return raw.reshape(b, n, t, s) * scale


def _gates(s: Float[Array, 'B N T S'], seen: Array) -> Float[Array, 'B N T S']:
    return jnp.where(seen, jax.nn.sigmoid(s), 0)


def _of_positions(q: Array, table: Array) -> Float[Array, 'B N T P']:
    """q e for every whole position."""
    return jnp.einsum('BTNH,PH->BNTP', q, table.astype(q.dtype), preferred_element_type=jnp.float32)


def _at(of_positions: Float[Array, 'B N T P'], counted: Float[Array, 'B N T S']) -> Float[Array, 'B N T S']:
    """``of_positions`` at fractional positions, of which the last is as far as any goes."""
    last = of_positions.shape[-1] - 1
    counted = jnp.minimum(counted, last)
    below = counted.astype(jnp.int32)
    low = jnp.take_along_axis(of_positions, below, axis=-1)
    high = jnp.take_along_axis(of_positions, jnp.minimum(below + 1, last), axis=-1)
    return low + (counted - below) * (high - low)


def _part(s: Float[Array, 'B N T S'], seen: Array, v: Float[Array, 'B S K H']) -> online.Partial:
    """The partial result over these keys."""
    (b, n, t, _), kv = s.shape, v.shape[2]
    s = jnp.where(seen, s, online.HIDDEN)
    top = jax.lax.stop_gradient(jnp.maximum(jnp.max(s, axis=-1), online.FLOOR))
    weights = jnp.exp(s - top[..., None])
    grouped = weights.reshape(b, kv, n // kv, t, -1).astype(v.dtype)
    acc = jnp.einsum('BKGTS,BSKH->BKGTH', grouped, v, preferred_element_type=jnp.float32)
    return online.Partial(acc.reshape(b, n, t, -1), top, jnp.sum(weights, axis=-1))


def _finish(done: online.Partial, q: Array, segments: Array) -> Float[Array, 'B T N H']:
    out, _ = online.finish(done)
    return api.hide_padding(out.swapaxes(1, 2).astype(q.dtype), segments)


def _in_order(k: Array, v: Array, where: Where) -> tuple[Array, Array, Where]:
    """Keys by document and position: counting goes from one to the next, wherever they are in memory."""
    order = jnp.lexsort((where.k_pos, where.k_seg))
    k, v = (jnp.take_along_axis(x, order[..., None, None], axis=1) for x in (k, v))
    k_pos, k_seg = (jnp.take_along_axis(x, order, axis=1) for x in (where.k_pos, where.k_seg))
    return k, v, where._replace(k_pos=k_pos, k_seg=k_seg)


def _cut(x: Float[Array, 'B T N H'], block: int) -> Float[Array, 'n B block N H']:
    """``x`` in blocks that lead, filled up with zeros."""
    x = blocks.pad_tokens(x, block)
    return x.reshape(x.shape[0], -1, block, *x.shape[2:]).swapaxes(0, 1)


def _check(q: Array, k: Array, v: Array, where: Where, rule: Rule, table: Array) -> None:
    api.check(q, k, v, where, rule, sink_logits=None)
    if table.ndim != 2 or table.shape[0] < 1 or table.shape[1] != q.shape[-1]:
        raise ValueError(f'table has shape {table.shape}; expected (positions, {q.shape[-1]}) (P H).')
