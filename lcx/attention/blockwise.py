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
import numpy as np

from lcx.attention import api, blocks, masks, online
from lcx.attention.masks import Rule, visible
from lcx.types import PADDING, Array, Float, Tree, Where

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
    v: Float[Array, 'B S K H']
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
    key_block: int | None = None,
) -> Float[Array, 'B T N H']:
    """See :mod:`lcx.attention.api`, and :func:`partial` for the blocks."""
    options = {'scale': scale, 'softcap': softcap, 'sink_logits': sink_logits}
    return partial(q, k, v, where, rule, bias, **options, block=block, key_block=key_block)[0]


def partial(
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
    key_block: int | None = None,
) -> tuple[Float[Array, 'B T N H'], Float[Array, 'B T N']]:
    """``(out, lse)``: attention over these keys, to be merged with that over others; see :mod:`lcx.attention.api`.

    Queries are cut into blocks of at most ``block`` tokens and keys into those of at most ``key_block`` (default:
    the same), all of one size: a length of 513 makes two blocks of 257, padded with one hidden token.
    """
    api.check(q, k, v, where, rule, sink_logits)
    (b, t, n, _), s = q.shape, k.shape[1]
    key_block = block if key_block is None else key_block
    for name, value in (('block', block), ('key_block', key_block)):
        masks.at_least_one(name, value)
    q_block, k_block = blocks.even_block(t, block), blocks.even_block(s, key_block)
    settings = Settings.of(rule, q, scale, softcap, q_block, k_block)
    if bias is not None and not isinstance(bias, jax.tree_util.Partial):
        bias = jax.tree_util.Partial(bias)  # a plain function is a pytree without tables
    _check_blocks(settings, where, bias, b, n)
    inputs = Inputs(
        blocks.pad_tokens(q, q_block),
        blocks.pad_tokens(k, k_block),
        blocks.pad_tokens(v, k_block),
        bias,
        sink_logits,
    )
    out, lse = _attend(settings, inputs, blocks.pad(where, q_block, k_block))
    return out[:, :t], _by_token(lse, n)[:, :t]


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
        s = s.reshape(_by_head(shape, where, keys_lead))
    if bias is not None:
        s = s + _grouped(bias(where).astype(jnp.float32), shape[1], keys_lead)
    if hide:
        s = jnp.where(_grouped(visible(settings.rule, where), shape[1], keys_lead), s, online.HIDDEN)
    return s.reshape(shape), slope


def _by_head(shape: tuple[int, ...], where: Where, keys_lead: bool) -> tuple[int, ...]:
    """'B K G T S' for 'B K R S', or 'B K S G T' for 'B K S R' where keys lead."""
    t = where.q_pos.shape[1]
    b, kv, first, last = shape
    return (b, kv, first, last // t, t) if keys_lead else (b, kv, first // t, t, last)


def _grouped(block: Array, kv: int, keys_lead: bool) -> Array:
    """A block of a rule or bias, 'B|1 N|1 T S', to broadcast against the shapes of :func:`_by_head`."""
    b, n, t, s = block.shape
    block = block.reshape(b, *((kv, n // kv) if n > 1 else (1, 1)), t, s)
    return block.transpose(0, 1, 4, 2, 3) if keys_lead else block


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
    v: Float[Array, 'B K S H'],
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
    """``(out 'B T N H', lse 'nq B K R')``."""
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

        partial = blocks.run(key_block, plan, online.empty(q.shape))
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


def _attend_backward(settings: Settings, residuals: tuple, gradients: tuple) -> tuple[Inputs, None]:
    inputs, where, out, lse = residuals
    d_out, d_lse = gradients
    q_block, k_block = settings.q_block, settings.k_block
    q_side, k_side = blocks.sides(where, q_block, k_block)
    kv, dtype = inputs.k.shape[2], inputs.q.dtype
    delta = _delta(out, d_out, q_side, kv) - jnp.where(lse > online.FLOOR, d_lse, 0)
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
    d_sinks = _sink_gradient(inputs.sinks, q_side.seg, lse, delta)
    return Inputs(dq, blocks.join(dk), blocks.join(dv), tables.gradient(d_tables), d_sinks), None


_attend.defvjp(_attend_forward, _attend_backward)


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


def _sink_gradient(sinks: Array | None, segments: Array, lse: Array, delta: Array) -> Array | None:
    """-sum over rows of p_sink * delta, from 'nq B block' segments and 'nq B K R' statistics."""
    if sinks is None:
        return None
    kv, rows = lse.shape[2:]
    p_sink = jnp.where(_real_rows(segments, rows), jnp.exp(_sink_rows(sinks, kv, rows) - lse), 0)
    per_row = jnp.sum(p_sink * delta, axis=(0, 1))
    return -per_row.reshape(sinks.shape[0], -1).sum(axis=1).astype(sinks.dtype)


class Tables(NamedTuple):
    """The learned tables of a bias, and how their gradient is gathered block by block in fp32."""

    leaves: list
    floats: list[bool]  # tables of integers take part in a bias, without a gradient
    tree: Any

    @classmethod
    def of(cls, bias: Any) -> Tables:
        leaves, tree = jax.tree.flatten(bias)
        return cls(leaves, [jnp.issubdtype(jnp.result_type(x), jnp.inexact) for x in leaves], tree)

    def learned(self) -> list[Array]:
        return [x for x, is_float in zip(self.leaves, self.floats) if is_float]

    def zeros(self) -> list[Array]:
        return [jnp.zeros(jnp.shape(x)) for x in self.learned()]

    def merged(self, learned: list, others: list) -> Tree:
        """The pytree of the bias with its learned leaves replaced and ``others`` in the remaining places."""
        learned = iter(learned)
        pairs = zip(others, self.floats)
        return self.tree.unflatten([next(learned) if is_float else other for other, is_float in pairs])

    def add(self, total: list[Array], where: Where, ds: Float[Array, 'B K S R']) -> list[Array]:
        """``total`` plus the gradient over one block of score gradients, in which keys lead."""
        if not total:
            return total
        by_head = _by_head(ds.shape, where, keys_lead=True)

        def block(learned: list[Array]) -> Array:
            bias = self.merged(learned, self.leaves)
            return _grouped(bias(where).astype(jnp.float32), ds.shape[1], keys_lead=True)

        values, pull = jax.vjp(block, self.learned())
        summed = tuple(i for i, (have, want) in enumerate(zip(values.shape, by_head)) if have != want)
        (gradients,) = pull(jnp.sum(ds.reshape(by_head), axis=summed, keepdims=True))
        return [a + g for a, g in zip(total, gradients)]

    def gradient(self, total: list[Array]) -> Tree:
        """``total`` as the cotangent of the bias."""
        learned = [g.astype(jnp.result_type(x)) for g, x in zip(total, self.learned())]
        return self.merged(learned, [np.zeros(np.shape(x), jax.dtypes.float0) for x in self.leaves])


def _check_blocks(settings: Settings, where: Where, bias: Any, b: int, n: int) -> None:
    """Asks the rule and the bias for the shape of one block, without computing it."""
    t, s = settings.q_block, settings.k_block
    block = Where(where.q_pos[:, :t], where.k_pos[:, :s], where.q_seg[:, :t], where.k_seg[:, :s], where.heads)
    rule = jax.eval_shape(lambda w: visible(settings.rule, w), block)
    api.check_block('rule', rule, b, n, t, s)
    if bias is not None:
        api.check_block('bias', jax.eval_shape(lambda w: bias(w), block), b, n, t, s)
