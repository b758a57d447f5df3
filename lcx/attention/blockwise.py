"""Attention with memory linear in length: a scan over query blocks, and for each a loop over the key blocks it needs.

The online softmax (arXiv 2112.05682; FlashAttention, arXiv 2205.14135) in plain JAX. The forward pass keeps only
q, k, v, out and the log-sum-exp (fp32, one number per row); the backward pass makes each block of scores anew:

    p = exp(s - lse)    dv = p^T do    dp = do v^T    ds = p * (dp - rowsum(do * out))    dq = ds k    dk = ds^T q

Which blocks a query block needs is asked of ``rule.maybe`` once, before any score exists. Those blocks are listed
first and only they are visited, so causal attention costs half, a window costs O(T * window) and packed documents
cost the sum of their squares, whatever order the tokens are stored in.

The queries of one key head are folded into the rows of one matrix, so grouped-query attention reads each key block
once and never repeats it. Equal to :mod:`lcx.attention.dense` up to fp32 rounding, gradients included.
"""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from lcx.attention import api, online
from lcx.attention.masks import Bounds, Rule, visible
from lcx.types import PADDING, Array, Float, Tree, Where

BLOCK = 512  # tokens in a block: scores of 512 x 512 stay in a core's cache, matmuls are large enough to run at speed


class Settings(NamedTuple):
    """What is fixed while tracing."""

    rule: Rule
    scale: float
    softcap: float | None
    q_block: int
    k_block: int


class Inputs(NamedTuple):
    """What gradients may flow to. Blocks lead; G query heads are folded into rows: R = G * block."""

    q: Float[Array, 'nq B K R H']
    k: Float[Array, 'nk B K S H']
    v: Float[Array, 'nk B K S H']
    bias: Any  # a Bias pytree or None
    sinks: Float[Array, ' N'] | None


def attend(
    q: Float[Array, 'B T N H'],
    k: Float[Array, 'B S K H'],
    v: Float[Array, 'B S K H'],
    where: Where,
    rule: Rule,
    bias: api.Bias | None = None,
    *,
    scale: float | None = None,
    softcap: float | None = None,
    sink_logits: Float[Array, ' N'] | None = None,
    block: int = BLOCK,
) -> Float[Array, 'B T N H']:
    """See :mod:`lcx.attention.api`. Lengths that are not a multiple of a block are padded with hidden tokens."""
    api.check(q, k, v, where, rule, sink_logits)
    (b, t, n, h), (s, kv) = q.shape, k.shape[1:3]
    settings = Settings(
        rule, h**-0.5 if scale is None else scale, softcap, even_block(t, block), even_block(s, block)
    )
    if bias is not None and not isinstance(bias, jax.tree_util.Partial):
        bias = jax.tree_util.Partial(bias)  # a plain function is a pytree without tables
    _check_blocks(settings, where, bias, b, n)
    q_blocks, k_blocks = _blocks(where, settings)
    inputs = Inputs(
        _fold(api.hide_padding(q, where.q_seg), settings.q_block, kv),
        _fold(api.hide_padding(k, where.k_seg), settings.k_block, kv),
        _fold(api.hide_padding(v, where.k_seg), settings.k_block, kv),
        bias,
        sink_logits,
    )
    out = _attend(settings, inputs, (q_blocks, k_blocks, where.heads))
    return _unfold(out, n)[:, :t].astype(q.dtype)


def even_block(length: int, block: int) -> int:
    """The block size that cuts ``length`` into the fewest blocks of at most ``block`` with the least padding."""
    count = -(-length // block)
    return -(-length // count)


class Side(NamedTuple):
    """Positions and segments of one side of the scores, in blocks that lead."""

    pos: Array  # 'n B block'
    seg: Array


def _blocks(where: Where, settings: Settings) -> tuple[Side, Side]:
    def cut(x: Array, size: int) -> Array:
        x = jnp.pad(x, ((0, 0), (0, -x.shape[1] % size)), constant_values=PADDING)
        return x.reshape(x.shape[0], -1, size).swapaxes(0, 1)

    q, k = settings.q_block, settings.k_block
    return Side(cut(where.q_pos, q), cut(where.q_seg, q)), Side(cut(where.k_pos, k), cut(where.k_seg, k))


def _fold(x: Float[Array, 'B T N H'], size: int, kv: int) -> Float[Array, 'n B K R H']:
    x = jnp.pad(x, ((0, 0), (0, -x.shape[1] % size), (0, 0), (0, 0)))
    b, t, n, h = x.shape
    x = x.reshape(b, t // size, size, kv, n // kv, h).transpose(1, 0, 3, 4, 2, 5)
    return x.reshape(t // size, b, kv, n // kv * size, h)


def _unfold(x: Float[Array, 'n B K R H'], heads: int) -> Float[Array, 'B T N H']:
    count, b, kv, rows, h = x.shape
    x = x.reshape(count, b, kv, heads // kv, rows * kv // heads, h).transpose(1, 0, 4, 2, 3, 5)
    return x.reshape(b, count * x.shape[2], heads, h)


def _plan(rule: Rule, q: Side, k: Side) -> tuple[Array, Array]:
    """``(order 'nq nk', count 'nq')``: the key blocks each query block needs come first, ``count`` of them."""

    def ends(side: Side) -> list[Array]:
        real = side.seg != PADDING
        big = jnp.iinfo(jnp.int32).max
        return [
            extreme(jnp.where(real, x, fill), axis=-1)
            for x in side
            for extreme, fill in ((jnp.min, big), (jnp.max, -big))
        ]

    q_ends = [x[:, None] for x in ends(q)]  # 'nq 1 B'
    k_ends = [x[None] for x in ends(k)]  # '1 nk B'
    bounds = Bounds(*q_ends[:2], *k_ends[:2], *q_ends[2:], *k_ends[2:])
    some = (bounds.q_seg_max != -jnp.iinfo(jnp.int32).max) & (bounds.k_seg_max != -jnp.iinfo(jnp.int32).max)
    need = jnp.any(rule.maybe(bounds) & some, axis=-1)
    return jnp.argsort(~need, axis=1, stable=True), jnp.sum(need, axis=1)


def _where(q: Side, k: Side, heads: Array) -> Where:
    return Where(q.pos, k.pos, q.seg, k.seg, heads)


def _at(tree: Tree, i: Array) -> Tree:
    return jax.tree.map(lambda x: jax.lax.dynamic_index_in_dim(x, i, keepdims=False), tree)


def _scores(settings: Settings, q: Array, k: Array, where: Where, bias: Any) -> Array:
    """Logits of one block, 'B K R S' fp32, hidden pairs at HIDDEN."""
    s = jnp.einsum('BKRH,BKSH->BKRS', q, k, preferred_element_type=jnp.float32) * settings.scale
    if settings.softcap is not None:
        s = settings.softcap * jnp.tanh(s / settings.softcap)
    per_head = _by_head(s.shape, where)
    seen = _to_grouped(visible(settings.rule, where), per_head)
    grouped = s.reshape(per_head)
    if bias is not None:
        grouped = grouped + _to_grouped(bias(where).astype(jnp.float32), per_head)
    return jnp.where(seen, grouped, online.HIDDEN).reshape(s.shape)


def _by_head(shape: tuple[int, ...], where: Where) -> tuple[int, ...]:
    """'B K G T S' for a block of scores 'B K R S'."""
    b, kv, rows, s = shape
    t = where.q_pos.shape[1]
    return b, kv, rows // t, t, s


def _to_grouped(block: Array, per_head: tuple[int, ...]) -> Array:
    """A rule's or bias's block 'B|1 N|1 T S' with its head axis split into 'K G'."""
    b, n, t, s = block.shape
    groups = per_head[1:3] if n > 1 else (1, 1)
    return block.reshape(b, *groups, t, s)


def _sink_rows(sinks: Array | None, kv: int, rows: int) -> Array | None:
    """The sink logit of each row, 'K R'."""
    if sinks is None:
        return None
    per_head = sinks.astype(jnp.float32).reshape(kv, -1)
    return jnp.repeat(per_head, rows // per_head.shape[1], axis=1)


def _needed(count: Array, order: Array, body: Any, init: Tree) -> Tree:
    """Runs ``body(key_block, carry)`` over the needed key blocks; a single block needs no loop."""
    if order.shape[0] == 1:
        return body(0, init)
    return jax.lax.fori_loop(0, count, lambda j, carry: body(order[j], carry), init)


def _scan(body: Any, carry: Tree, xs: Tree) -> tuple[Tree, Tree]:
    """lax.scan that does not make a loop of one step."""
    if jax.tree.leaves(xs)[0].shape[0] > 1:
        return jax.lax.scan(body, carry, xs)
    carry, y = body(carry, jax.tree.map(lambda x: x[0], xs))
    return carry, jax.tree.map(lambda x: x[None], y)


def _forward(settings: Settings, inputs: Inputs, sides: tuple) -> tuple[Array, Array]:
    q_side, k_side, heads = sides
    kv, rows = inputs.q.shape[2:4]
    sink_rows = _sink_rows(inputs.sinks, kv, rows)

    def query_block(_: None, xs: tuple) -> tuple[None, tuple[Array, Array]]:
        q, side, order, count = xs

        def key_block(j: Array, carry: online.Partial) -> online.Partial:
            k, v, other = _at((inputs.k, inputs.v, k_side), j)
            s = _scores(settings, q, k, _where(side, other, heads), inputs.bias)
            top = jnp.maximum(carry.max, jnp.max(s, axis=-1))
            p = jnp.exp(s - top[..., None])
            acc = jnp.einsum('BKRS,BKSH->BKRH', p.astype(v.dtype), v, preferred_element_type=jnp.float32)
            old = jnp.exp(carry.max - top)
            return online.Partial(
                carry.acc * old[..., None] + acc, top, carry.den * old + jnp.sum(p, axis=-1)
            )

        partial = _needed(count, order, key_block, online.empty(q.shape))
        out, lse = online.finish(partial, sink_rows)
        if sink_rows is not None:  # a row of padding sees the sink, and still gives zeros
            real = _rows(side.seg != PADDING, rows)
            out = jnp.where(real[..., None], out, 0)
        return None, (out.astype(q.dtype), lse)

    order, count = _plan(settings.rule, q_side, k_side)
    _, (out, lse) = _scan(query_block, None, (inputs.q, q_side, order, count))
    return out, lse


def _rows(x: Array, rows: int) -> Array:
    """'B T' repeated for the G heads of a group: 'B 1 R'."""
    return jnp.tile(x, (1, rows // x.shape[1]))[:, None]


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _attend(settings: Settings, inputs: Inputs, sides: tuple) -> Array:
    return _forward(settings, inputs, sides)[0]


def _attend_forward(settings: Settings, inputs: Inputs, sides: tuple) -> tuple[Array, tuple]:
    out, lse = _forward(settings, inputs, sides)
    return out, (inputs, sides, out, lse)


def _attend_backward(settings: Settings, residuals: tuple, d_out: Array) -> tuple[Inputs, None]:
    inputs, sides, out, lse = residuals
    q_side, k_side, heads = sides
    kv, rows = inputs.q.shape[2:4]
    sink_rows = _sink_rows(inputs.sinks, kv, rows)

    def query_block(carry: tuple, xs: tuple) -> tuple[tuple, Array]:
        q, do, o, row_lse, side, order, count = xs
        real = _rows(side.seg != PADDING, rows)
        do = jnp.where(real[..., None], do, 0)
        delta = jnp.sum(do.astype(jnp.float32) * o.astype(jnp.float32), axis=-1)

        def key_block(j: Array, inner: tuple) -> tuple:
            dq, dk, dv, d_bias = inner
            k, v, other = _at((inputs.k, inputs.v, k_side), j)
            where = _where(side, other, heads)
            s = _scores(settings, q, k, where, inputs.bias)
            p = jnp.exp(s - row_lse[..., None])
            dp = jnp.einsum('BKRH,BKSH->BKRS', do, v, preferred_element_type=jnp.float32)
            ds = p * (dp - delta[..., None])
            d_bias = _add_bias_gradient(d_bias, inputs.bias, where, ds)
            ds = _through_softcap(settings, ds, q, k) * settings.scale
            ds, p = ds.astype(q.dtype), p.astype(v.dtype)
            dq = dq + jnp.einsum('BKRS,BKSH->BKRH', ds, k, preferred_element_type=jnp.float32)
            dk = dk.at[j].add(jnp.einsum('BKRS,BKRH->BKSH', ds, q, preferred_element_type=jnp.float32))
            dv = dv.at[j].add(jnp.einsum('BKRS,BKRH->BKSH', p, do, preferred_element_type=jnp.float32))
            return dq, dk, dv, d_bias

        dk, dv, d_bias, d_sink = carry
        dq, dk, dv, d_bias = _needed(count, order, key_block, (jnp.zeros(q.shape), dk, dv, d_bias))
        if sink_rows is not None:
            p_sink = jnp.where(real, jnp.exp(sink_rows - row_lse), 0)
            d_sink = d_sink - jnp.sum(p_sink * delta, axis=0)
        return (dk, dv, d_bias, d_sink), dq.astype(q.dtype)

    order, count = _plan(settings.rule, q_side, k_side)
    start = (
        jnp.zeros(inputs.k.shape),
        jnp.zeros(inputs.v.shape),
        jax.tree.map(lambda x: jnp.zeros(jnp.shape(x)), inputs.bias),
        None if sink_rows is None else jnp.zeros((kv, rows)),
    )
    (dk, dv, d_bias, d_sink), dq = _scan(
        query_block, start, (inputs.q, d_out, out, lse, q_side, order, count)
    )
    if d_sink is not None:
        d_sink = d_sink.reshape(inputs.sinks.shape[0], -1).sum(axis=1).astype(inputs.sinks.dtype)
    d_bias = jax.tree.map(lambda g, x: g.astype(jnp.result_type(x)), d_bias, inputs.bias)
    return Inputs(dq, dk.astype(inputs.k.dtype), dv.astype(inputs.v.dtype), d_bias, d_sink), None


_attend.defvjp(_attend_forward, _attend_backward)


def _through_softcap(settings: Settings, ds: Array, q: Array, k: Array) -> Array:
    """The gradient of the raw logits from that of the capped ones."""
    if settings.softcap is None:
        return ds
    s = jnp.einsum('BKRH,BKSH->BKRS', q, k, preferred_element_type=jnp.float32) * settings.scale
    return ds * (1 - jnp.tanh(s / settings.softcap) ** 2)


def _add_bias_gradient(total: Tree, bias: Any, where: Where, ds: Array) -> Tree:
    """Adds the gradient of the bias's tables over one block of score gradients 'B K R S'."""
    if not jax.tree.leaves(bias):
        return total
    per_head = _by_head(ds.shape, where)
    _, pull = jax.vjp(lambda b: _to_grouped(b(where).astype(jnp.float32), per_head), bias)
    shape = jax.eval_shape(lambda b: _to_grouped(b(where), per_head), bias).shape
    ds = ds.reshape(per_head)
    summed = tuple(i for i, (have, want) in enumerate(zip(shape, per_head)) if have != want)
    (gradient,) = pull(jnp.sum(ds, axis=summed, keepdims=True))
    return jax.tree.map(lambda a, g: a + g, total, gradient)


def _check_blocks(settings: Settings, where: Where, bias: Any, b: int, n: int) -> None:
    """Asks the rule and the bias for the shape of one block, without computing it."""
    t, s = settings.q_block, settings.k_block
    block = Where(where.q_pos[:, :t], where.k_pos[:, :s], where.q_seg[:, :t], where.k_seg[:, :s], where.heads)
    rule = jax.eval_shape(lambda w: visible(settings.rule, w), block)
    api.check_block('rule', rule, b, n, t, s)
    if bias is not None:
        api.check_block('bias', jax.eval_shape(lambda w: bias(w), block), b, n, t, s)
