"""Attention by its definition: the whole 'B N T S' score matrix in fp32. The reference for every other file here.

Memory grows with T * S. Use it to test, and for sequences so short that blocks are pointless.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from lcx.attention import api, online
from lcx.attention.masks import Rule, visible
from lcx.attention.tables import Tables
from lcx.types import Array, Float, Where


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
) -> Float[Array, 'B T N V']:
    """See :mod:`lcx.attention.api`."""
    return partial(q, k, v, where, rule, bias, scale=scale, softcap=softcap, sink_logits=sink_logits)[0]


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
) -> tuple[Float[Array, 'B T N V'], Float[Array, 'B T N']]:
    """``(out, lse)``: attention over these keys, to be merged with that over others; see :mod:`lcx.attention.api`."""
    api.check(q, k, v, where, rule, sink_logits)
    (b, t, n, _), (s, kv) = q.shape, k.shape[1:3]
    scores = _scores(q, k, where, rule, bias, scale, softcap)
    v = api.hide_padding(v, where.k_seg)
    top = jax.lax.stop_gradient(jnp.maximum(jnp.max(scores, axis=-1), online.FLOOR))
    weights = jnp.exp(scores - top[..., None])
    den = jnp.sum(weights, axis=-1)
    weights = weights.reshape(b, kv, n // kv, t, s).astype(v.dtype)
    acc = jnp.einsum('BKGTS,BSKH->BKGTH', weights, v, preferred_element_type=jnp.float32)
    acc = acc.reshape(b, n, t, -1)
    out, lse = online.finish(
        online.Partial(acc, top, den),
        None if sink_logits is None else sink_logits.astype(jnp.float32)[:, None],
    )
    out = jnp.where((where.q_seg != api.PADDING)[:, None, :, None], out, 0)  # also where only a sink was seen
    return out.transpose(0, 2, 1, 3).astype(q.dtype), lse.swapaxes(1, 2)


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
) -> tuple[Array, Array, Array, list[Array]]:
    """``(dq, dk, dv, d_tables)``: what these keys give to the gradients; see :mod:`lcx.attention.api`."""
    (b, t, n, _), (s, kv) = q.shape, k.shape[1:3]
    tables = Tables.of(api.as_tree(bias))

    def scores_of(q: Array, k: Array, learned: list[Array]) -> Array:
        return _scores(q, k, where, rule, tables.merged(learned, tables.leaves), scale, softcap)

    scores, pull = jax.vjp(scores_of, q, k, tables.learned())
    p = jnp.exp(scores - lse.swapaxes(1, 2)[..., None])
    d_out = api.hide_padding(d_out, where.q_seg).reshape(b, t, kv, n // kv, -1)
    hidden = api.hide_padding(v, where.k_seg)
    dp = jnp.einsum('BTKGH,BSKH->BKGTS', d_out, hidden, preferred_element_type=jnp.float32)
    ds = p * (dp.reshape(b, n, t, s) - delta.swapaxes(1, 2)[..., None])
    p = p.reshape(b, kv, n // kv, t, s).astype(v.dtype)
    dv = jnp.einsum('BKGTS,BTKGH->BSKH', p, d_out, preferred_element_type=jnp.float32)
    dq, dk, d_tables = pull(ds)
    return dq, dk, dv.astype(v.dtype), [d.astype(jnp.float32) for d in d_tables]


def _scores(
    q: Array,
    k: Array,
    where: Where,
    rule: Rule,
    bias: api.Bias | None,
    scale: float | None,
    softcap: float | None,
) -> Float[Array, 'B N T S']:
    """The scores of all pairs, fp32; those that may not be seen are at HIDDEN."""
    (b, t, n, h), (s, kv) = q.shape, k.shape[1:3]
    q = api.hide_padding(q, where.q_seg)
    k = api.hide_padding(k, where.k_seg)
    grouped = q.reshape(b, t, kv, n // kv, h)
    scores = jnp.einsum('BTKGH,BSKH->BKGTS', grouped, k, preferred_element_type=jnp.float32)
    scores = scores.reshape(b, n, t, s) * (h**-0.5 if scale is None else scale)
    if softcap is not None:
        scores = softcap * jnp.tanh(scores / softcap)
    if bias is not None:
        block = bias(where)
        api.check_block('bias', block, b, n, t, s)
        scores = scores + block.astype(jnp.float32)
    seen = visible(rule, where)
    api.check_block('rule', seen, b, n, t, s)
    return jnp.where(seen, scores, online.HIDDEN)
