"""Attention with memory linear in length: a scan over blocks, and for each a loop over the blocks it needs.

The online softmax (arXiv 2112.05682; FlashAttention, arXiv 2205.14135) in plain JAX. The forward pass keeps only
q, k, v, out and the log-sum-exp (fp32, one number per row); the backward pass makes each block of scores anew:

    p = exp(s - lse)    dv = p^T do    dp = do v^T    ds = p * (dp - delta)    dq = ds k    dk = ds^T q

with delta = rowsum(do * out) - d_lse, where the log-sum-exp is a result too (:func:`partial`).
Equal to :mod:`lcx.attention.dense` up to fp32 rounding, gradients included. Why it is fast:

* Which blocks hold an allowed pair is asked of the rule once, before any score exists, and only those are visited
  (:func:`lcx.attention.blocks.plan`). Causal attention costs half, a window costs O(T * window), packed documents
  cost the sum of their squares, whatever order the tokens are stored in. Blocks that the rule allows as a whole are
  done first, without a mask: one pass less over the scores.
* No matmul contracts the leading axis of its left factor, which XLA does by way of a strided copy on CPU, at a
  third of the speed. The backward pass holds scores with keys leading, so that dk = ds^T q and dv = p^T do are
  plain products, and dq^T = k^T ds^T is too once the (small) key block is transposed.
* The backward pass takes key blocks outside and query blocks inside: dk and dv are complete when a key block is
  done and are written once; only dq is accumulated in memory, in fp32.
"""

from __future__ import annotations

import functools
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from lcx.attention import api, blocks, masks, online
from lcx.attention.masks import Rule, visible
from lcx.attention.tables import Tables, by_head, grouped
from lcx.types import PADDING, Array, Float, Where

BLOCK = 512  # tokens in a block: scores of 512 x 512 stay in a core's cache, matmuls are large enough to run at speed


class Settings(NamedTuple):
    """What is fixed while tracing."""

    rule: Rule
    q_scale: float  # on the queries, where multiplying them rounds no more than multiplying scores would
    scale: float  # on the scores otherwise, which costs a pass over them; the other of the two is 1
    softcap: float | None
    q_block: int
    k_block: int

    @classmethod
    def of(
        cls, rule: Rule, q: Array, scale: float | None, softcap: float | None, q_block: int, k_block: int
    ) -> Settings:
        """``scale`` as in :mod:`lcx.attention.api`, put where it costs least."""
        scale = q.shape[-1] ** -0.5 if scale is None else float(scale)
        exact = q.dtype == jnp.float32 or math.frexp(abs(scale))[0] == 0.5  # a power of two
        return cls(rule, *((scale, 1.0) if exact else (1.0, scale)), softcap, q_block, k_block)


class Inputs(NamedTuple):
    """What gradients may flow to; lengths are multiples of the blocks."""

    q: Float[Array, 'B T N H']
    k: Float[Array, 'B S K H']
    v: Float[Array, 'B S K V']
    bias: Any  # a Bias pytree or None
    sinks: Float[Array, ' N'] | None


def attend(
    q: Float[Array, 'B T N H'],
    k: Float[Array, 'B S K H'],
    v: Float[Array, 'B S K V'],
    where: Where,
    rule: Rule,
    bias: api.Bias | None = None,
    *,
    scale: float | None = None,
    softcap: float | None = None,
    sink_logits: Float[Array, ' N'] | None = None,
    block: int = BLOCK,
    key_block: int | None = None,
) -> Float[Array, 'B T N V']:
    """See :mod:`lcx.attention.api`, and :func:`partial` for the blocks."""
    options = {'scale': scale, 'softcap': softcap, 'sink_logits': sink_logits}
    return partial(q, k, v, where, rule, bias, **options, block=block, key_block=key_block)[0]


def partial(
    q: Float[Array, 'B T N H'],
    k: Float[Array, 'B S K H'],
    v: Float[Array, 'B S K V'],
    where: Where,
    rule: Rule,
    bias: api.Bias | None = None,
    *,
    scale: float | None = None,
    softcap: float | None = None,
    sink_logits: Float[Array, ' N'] | None = None,
    block: int = BLOCK,
    key_block: int | None = None,
) -> tuple[Float[Array, 'B T N V'], Float[Array, 'B T N']]:
    """``(out, lse)``: attention over these keys, to be merged with that over others; see :mod:`lcx.attention.api`.

    Queries are cut into blocks of at most ``block`` tokens and keys into those of at most ``key_block`` (default:
    the same), all of one size: a length of 513 makes two blocks of 257, padded with one hidden token.
    """
    options = (scale, softcap, sink_logits, block, key_block)
    settings, inputs, padded = _prepare(q, k, v, where, rule, bias, *options)
    out, lse = _attend(settings, inputs, padded)
    t, n = q.shape[1:3]
    return out[:, :t], _by_token(lse, n)[:, :t]


def gradients(
    q: Float[Array, 'B T N H'],
    k: Float[Array, 'B S K H'],
    v: Float[Array, 'B S K V'],
    where: Where,
    rule: Rule,
    bias: api.Bias | None,
    lse: Float[Array, 'B T N'],
    delta: Float[Array, 'B T N'],
    d_out: Float[Array, 'B T N V'],
    *,
    scale: float | None = None,
    softcap: float | None = None,
    block: int = BLOCK,
    key_block: int | None = None,
) -> tuple[Array, Array, Array, list[Array]]:
    """``(dq, dk, dv, d_tables)``: what these keys give to the gradients of attention over them and others.

    ``lse``, ``delta`` and ``d_out`` are those of attention over all keys, ``d_tables`` as of :class:`Tables`, fp32.
    """
    settings, inputs, padded = _prepare(q, k, v, where, rule, bias, scale, softcap, None, block, key_block)
    lse, delta = (_by_row(x, settings.q_block, k.shape[2]) for x in (lse, delta))
    d_out = blocks.pad_tokens(d_out, settings.q_block)
    (dq, dk, dv), d_tables = _backward(settings, inputs, padded, lse, delta, d_out)
    return dq[:, : q.shape[1]], dk[:, : k.shape[1]], dv[:, : k.shape[1]], d_tables


def _prepare(
    q: Array,
    k: Array,
    v: Array,
    where: Where,
    rule: Rule,
    bias: api.Bias | None,
    scale: float | None,
    softcap: float | None,
    sink_logits: Array | None,
    block: int,
    key_block: int | None,
) -> tuple[Settings, Inputs, Where]:
    """Checks a call, and fills its tokens up to whole blocks."""
    api.check(q, k, v, where, rule, sink_logits)
    (b, t, n, _), s = q.shape, k.shape[1]
    key_block = block if key_block is None else key_block
    for name, value in (('block', block), ('key_block', key_block)):
        masks.at_least_one(name, value)
    q_block, k_block = blocks.even_block(t, block), blocks.even_block(s, key_block)
    settings = Settings.of(rule, q, scale, softcap, q_block, k_block)
    bias = api.as_tree(bias)
    _check_blocks(settings, where, bias, b, n)
    inputs = Inputs(
        blocks.pad_tokens(q, q_block),
        blocks.pad_tokens(k, k_block),
        blocks.pad_tokens(v, k_block),
        bias,
        sink_logits,
    )
    return settings, inputs, blocks.pad(where, q_block, k_block)


def scores(
    settings: Settings, raw: Array, where: Where, bias: Any, *, keys_lead: bool, hide: bool
) -> tuple[Array, Array | None]:
    """``(s, slope)`` of one block of products q k^T, 'B K R S' or, where keys lead, 'B K S R'; fp32.

    Pairs that may not be seen are at HIDDEN if ``hide``; ``slope`` is the derivative of the softcap.
    """
    shape, slope = raw.shape, None
    s = raw if settings.scale == 1 else raw * settings.scale
    if settings.softcap is not None:
        tanh = jnp.tanh(s / settings.softcap)
        s, slope = settings.softcap * tanh, 1 - tanh**2
    if bias is not None or hide:
        s = s.reshape(by_head(shape, where, keys_lead))
    if bias is not None:
        s = s + grouped(bias(where).astype(jnp.float32), shape[1], keys_lead)
    if hide:
        s = jnp.where(grouped(visible(settings.rule, where), shape[1], keys_lead), s, online.HIDDEN)
    return s.reshape(shape), slope


def _sink_rows(sinks: Array | None, kv: int, rows: int) -> Array | None:
    """The sink logit of each row, 'K R'."""
    if sinks is None:
        return None
    per_head = sinks.astype(jnp.float32).reshape(kv, -1)
    return jnp.repeat(per_head, rows // per_head.shape[1], axis=1)


def _real_rows(segments: Array, rows: int) -> Array:
    """Which rows are no padding: '... B T' as '... B 1 R'."""
    groups = rows // segments.shape[-1]
    return jnp.tile(segments != PADDING, (*[1] * (segments.ndim - 1), groups))[..., None, :]


def fold(
    settings: Settings,
    carry: online.Partial,
    q: Float[Array, 'B K R H'],
    k: Float[Array, 'B K S H'],
    v: Float[Array, 'B K S V'],
    where: Where,
    bias: Any,
    *,
    hide: bool,
) -> online.Partial:
    """``carry`` and one more block of keys, for one block of queries that are scaled; ``hide`` as in the scores."""
    raw = jnp.einsum('BKRH,BKSH->BKRS', q, k, preferred_element_type=jnp.float32)
    s, _ = scores(settings, raw, where, bias, keys_lead=False, hide=hide)
    top = jnp.maximum(carry.max, jnp.max(s, axis=-1))
    p = jnp.exp(s - top[..., None])
    acc = jnp.einsum('BKRS,BKSH->BKRH', p.astype(v.dtype), v, preferred_element_type=jnp.float32)
    old = jnp.exp(carry.max - top)
    return online.Partial(carry.acc * old[..., None] + acc, top, carry.den * old + jnp.sum(p, axis=-1))


def _forward(settings: Settings, inputs: Inputs, where: Where) -> tuple[Array, Array]:
    """``(out 'B T N V', lse 'nq B K R')``."""
    q_side, k_side = blocks.sides(where, settings.q_block, settings.k_block)
    kv = inputs.k.shape[2]

    def query_block(_: None, xs: tuple) -> tuple[None, tuple[Array, Array]]:
        i, side, plan = xs
        q = blocks.rows(inputs.q, i, side, kv) * settings.q_scale

        def key_block(j: Array, carry: online.Partial, hide: bool) -> online.Partial:
            other = blocks.at(k_side, j)
            k, v = (blocks.rows(x, j, other, kv) for x in (inputs.k, inputs.v))
            block = Where(side.pos, other.pos, side.seg, other.seg, where.heads)
            return fold(settings, carry, q, k, v, block, inputs.bias, hide=hide)

        partial = blocks.run(key_block, plan, online.empty((*q.shape[:3], inputs.v.shape[3])))
        sinks = _sink_rows(inputs.sinks, *q.shape[1:3])
        out, lse = online.finish(partial, sinks)
        if sinks is not None:  # a row of padding sees the sink, and still gives zeros
            out = jnp.where(_real_rows(side.seg, q.shape[2])[..., None], out, 0)
        return None, (blocks.tokens(out.astype(inputs.q.dtype), settings.q_block), lse)

    for_queries, _ = blocks.plan(settings.rule, q_side, k_side)
    _, (out, lse) = blocks.scan(query_block, None, (_indices(q_side), q_side, for_queries))
    return blocks.join(out), lse


def _indices(side: blocks.Side) -> Array:
    return jnp.arange(side.pos.shape[0])


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _attend(settings: Settings, inputs: Inputs, where: Where) -> tuple[Array, Array]:
    return _forward(settings, inputs, where)


def _attend_forward(settings: Settings, inputs: Inputs, where: Where) -> tuple[tuple, tuple]:
    out, lse = _forward(settings, inputs, where)
    return (out, lse), (inputs, where, out, lse)


def _attend_backward(settings: Settings, residuals: tuple, d_results: tuple) -> tuple[Inputs, None]:
    inputs, where, out, lse = residuals
    d_out, d_lse = d_results
    q_side, _ = blocks.sides(where, settings.q_block, settings.k_block)
    delta = _delta(out, d_out, q_side, inputs.k.shape[2]) - jnp.where(lse > online.FLOOR, d_lse, 0)
    (dq, dk, dv), d_tables = _backward(settings, inputs, where, lse, delta, d_out)
    d_bias = Tables.of(inputs.bias).gradient(d_tables)
    return Inputs(dq, dk, dv, d_bias, _sink_gradient(inputs.sinks, q_side.seg, lse, delta)), None


_attend.defvjp(_attend_forward, _attend_backward)


def _backward(
    settings: Settings, inputs: Inputs, where: Where, lse: Array, delta: Array, d_out: Array
) -> tuple[tuple[Array, Array, Array], list[Array]]:
    """``((dq, dk, dv), d_tables)`` for given statistics of rows, 'nq B K R'."""
    q_block, k_block = settings.q_block, settings.k_block
    q_side, k_side = blocks.sides(where, q_block, k_block)
    kv, dtype = inputs.k.shape[2], inputs.q.dtype
    tables = Tables.of(inputs.bias)

    def key_block(carry: tuple, xs: tuple) -> tuple[tuple, tuple[Array, Array]]:
        j, side, plan = xs
        k, v = (blocks.rows(x, j, side, kv) for x in (inputs.k, inputs.v))
        k_transposed = k.swapaxes(-1, -2)

        def query_block(i: Array, inner: tuple, hide: bool) -> tuple:
            dq, dk, dv, d_tables = inner
            row_lse, row_delta, other = blocks.at((lse, delta, q_side), i)
            q = blocks.rows(inputs.q, i, other, kv) * settings.q_scale
            do = blocks.rows(d_out, i, other, kv)
            block = Where(other.pos, side.pos, other.seg, side.seg, where.heads)
            raw = jnp.einsum('BKSH,BKRH->BKSR', k, q, preferred_element_type=jnp.float32)
            s, slope = scores(settings, raw, block, inputs.bias, keys_lead=True, hide=hide)
            p = jnp.exp(s - row_lse[..., None, :])
            dp = jnp.einsum('BKSH,BKRH->BKSR', v, do, preferred_element_type=jnp.float32)
            ds = p * (dp - row_delta[..., None, :])
            d_tables = tables.add(d_tables, block, ds)
            ds = ds if slope is None else ds * slope
            ds = ds if settings.scale == 1 else ds * settings.scale
            ds, p = ds.astype(dtype), p.astype(dtype)
            dq_block = jnp.einsum('BKHS,BKSR->BKHR', k_transposed, ds, preferred_element_type=jnp.float32)
            dk = dk + jnp.einsum('BKSR,BKRH->BKSH', ds, q, preferred_element_type=jnp.float32)
            dv = dv + jnp.einsum('BKSR,BKRH->BKSH', p, do, preferred_element_type=jnp.float32)
            dq_block = jax.lax.optimization_barrier(
                dq_block
            )  # XLA would put the transposition into the matmul
            dq = blocks.add(dq, i, blocks.tokens(dq_block.swapaxes(-1, -2), q_block))
            return dq, dk, dv, d_tables

        dq, d_tables = carry
        start = (dq, jnp.zeros(k.shape), jnp.zeros(v.shape), d_tables)
        dq, dk, dv, d_tables = blocks.run(query_block, plan, start)
        dk, dv = (blocks.tokens(d.astype(x.dtype), k_block) for d, x in ((dk, inputs.k), (dv, inputs.v)))
        return (dq, d_tables), (dk, dv)

    _, for_keys = blocks.plan(settings.rule, q_side, k_side)
    start = (jnp.zeros(inputs.q.shape), tables.zeros())
    (dq, d_tables), (dk, dv) = blocks.scan(key_block, start, (_indices(k_side), k_side, for_keys))
    dq = (dq * settings.q_scale).astype(dtype)
    return (dq, blocks.join(dk), blocks.join(dv)), d_tables


def _delta(out: Array, d_out: Array, side: blocks.Side, kv: int) -> Array:
    """rowsum(do * out), 'nq B K R' as lse; by blocks, since XLA holds the product of whole arrays on CPU."""

    def query_block(_: None, xs: tuple) -> tuple[None, Array]:
        i, block = xs
        do, o = (blocks.rows(x, i, block, kv).astype(jnp.float32) for x in (d_out, out))
        return None, jnp.sum(do * o, axis=-1)

    return blocks.scan(query_block, None, (_indices(side), side))[1]


def _by_token(x: Float[Array, 'nq B K R'], heads: int) -> Float[Array, 'B T N']:
    """Numbers of rows as numbers of tokens and heads."""
    count, b, _, _ = x.shape
    x = x.reshape(count, b, heads, -1)  # 'nq B N block'
    return x.transpose(1, 0, 3, 2).reshape(b, -1, heads)


def _by_row(x: Float[Array, 'B T N'], block: int, kv: int) -> Float[Array, 'nq B K R']:
    """Undoes :func:`_by_token`, for tokens that are filled up to whole blocks."""
    x = blocks.pad_tokens(x, block)
    b, _, n = x.shape
    x = x.reshape(b, -1, block, n).transpose(1, 0, 3, 2)
    return x.reshape(-1, b, kv, n // kv * block)


def _sink_gradient(sinks: Array | None, segments: Array, lse: Array, delta: Array) -> Array | None:
    """-sum over rows of p_sink * delta, from 'nq B block' segments and 'nq B K R' statistics."""
    if sinks is None:
        return None
    kv, rows = lse.shape[2:]
    p_sink = jnp.where(_real_rows(segments, rows), jnp.exp(_sink_rows(sinks, kv, rows) - lse), 0)
    per_row = jnp.sum(p_sink * delta, axis=(0, 1))
    return -per_row.reshape(sinks.shape[0], -1).sum(axis=1).astype(sinks.dtype)


def _check_blocks(settings: Settings, where: Where, bias: Any, b: int, n: int) -> None:
    """Asks the rule and the bias for the shape of one block, without computing it."""
    t, s = settings.q_block, settings.k_block
    block = Where(where.q_pos[:, :t], where.k_pos[:, :s], where.q_seg[:, :t], where.k_seg[:, :s], where.heads)
    rule = jax.eval_shape(lambda w: visible(settings.rule, w), block)
    api.check_block('rule', rule, b, n, t, s)
    if bias is not None:
        api.check_block('bias', jax.eval_shape(lambda w: bias(w), block), b, n, t, s)
