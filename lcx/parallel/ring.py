"""Ring attention: keys and values travel from device to device past the queries (Liu et al. 2023, arXiv 2310.01889).

With n devices, n steps; what they give, (out, lse) over the keys at hand, merges exactly (:mod:`lcx.attention.online`).

    sends    a shard of k, v and their positions n - 1 times forward and n times backward, then dk and dv (fp32) too
    holds    q, k, v, out and lse of the device's own tokens: what the backward pass keeps is O(T / n)

The backward pass is a second ring, since automatic differentiation of the first would keep the keys of every step.
The log-sum-exp over all keys is known by then, so a step makes its scores anew and gives its share of dq, dk and dv
(``gradients`` of :mod:`lcx.attention.api`); dk and dv travel behind their keys and arrive home with the last hop.

Keys are sent on before they are read, and gradients are received while the next ones are made, so XLA can send and
compute at the same time. Steps of which the rule knows that they hold no allowed pair are not computed (a branch of
each device's own; what is sent is the same on all). With tokens in their own order, a causal rule leaves the first
device one step of n and the last all of them: :mod:`lcx.parallel.orders` has orders that share the work evenly.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from lcx.attention import PARTIAL, api, blocks, online
from lcx.attention.masks import Rule
from lcx.attention.tables import Tables
from lcx.errors import UnsupportedError
from lcx.parallel.kernel import Kernel
from lcx.parallel.line import Line
from lcx.types import Array, Bool, Float, Tree, Where

PIECES = 16  # of each side, whose ends say whether a step holds a pair


class Settings(NamedTuple):
    """What is fixed while tracing."""

    line: Line
    kernel: Kernel
    rule: Rule
    scale: float | None
    softcap: float | None

    def options(self) -> dict[str, float | None]:
        return {'scale': self.scale, 'softcap': self.softcap}


class Inputs(NamedTuple):
    """What gradients may flow to."""

    q: Float[Array, 'B T N H']
    k: Float[Array, 'B S K H']
    v: Float[Array, 'B S K V']
    bias: Any  # a Bias pytree or None
    sinks: Float[Array, ' N'] | None


class Keys(NamedTuple):
    """What travels: a shard of the keys, and where they stand."""

    k: Float[Array, 'B S K H']
    v: Float[Array, 'B S K V']
    pos: Array
    seg: Array

    def seen_from(self, where: Where) -> Where:
        return where._replace(k_pos=self.pos, k_seg=self.seg)


def ring(*, kernel: Kernel, line: Line) -> Callable:
    """Attention of one shard, with the keys of all others passing by."""

    def attend(
        q: Array,
        k: Array,
        v: Array,
        where: Where,
        rule: Rule,
        bias: api.Bias | None,
        *,
        scale: float | None = None,
        softcap: float | None = None,
        sink_logits: Array | None = None,
    ) -> Tree:
        if kernel.partial is None:
            raise UnsupportedError(
                f"sequence 'ring' cannot do attention {kernel.name!r}: it gives no log-sum-exp, by which steps "
                f'merge. Choose attention: {", ".join(sorted(PARTIAL))}; or sequence: all_gather, ulysses, halo.'
            )
        settings = Settings(line, kernel, rule, scale, softcap)
        results = _ring(settings, Inputs(q, k, v, api.as_tree(bias), sink_logits), where)
        return results if kernel.lse else results[0]

    return attend


def holds_pairs(rule: Rule, where: Where) -> Bool[Array, '']:
    """May any of these queries read any of these keys? Asked of the ends of a few pieces of both."""
    q_size, k_size = (-(-x.shape[1] // PIECES) for x in (where.q_pos, where.k_pos))
    sides = blocks.sides(blocks.pad(where, q_size, k_size), q_size, k_size)
    return jnp.any(blocks.judge(rule, *sides)[0])


def _turn(line: Line, body: Callable, carry: Tree) -> Tree:
    """``body`` once for every device of the line but one."""
    if line.size == 1:
        return carry
    return blocks.scan(lambda carry, _: (body(carry), None), carry, jnp.arange(line.size - 1))[0]


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _ring(settings: Settings, inputs: Inputs, where: Where) -> tuple[Array, Array]:
    """``(out 'B T N V', lse 'B T N')``."""
    kernel, line, rule = settings.kernel, settings.line, settings.rule

    def step(keys: Keys, part: online.Partial) -> online.Partial:
        here = keys.seen_from(where)

        def read(part: online.Partial) -> online.Partial:
            results = kernel.partial(inputs.q, keys.k, keys.v, here, rule, inputs.bias, **settings.options())
            return online.merge(part, online.resume(*results))

        return jax.lax.cond(holds_pairs(rule, here), read, lambda part: part, part)

    def pass_on(carry: tuple) -> tuple:
        keys, part = carry
        coming = line.shift(keys)
        return coming, step(keys, part)

    own = Keys(inputs.k, inputs.v, where.k_pos, where.k_seg)
    last, part = _turn(line, pass_on, (own, online.empty((*inputs.q.shape[:3], inputs.v.shape[3]))))
    sinks = None if inputs.sinks is None else inputs.sinks.astype(jnp.float32)
    out, lse = online.finish(step(last, part), sinks)
    return api.hide_padding(out, where.q_seg).astype(inputs.q.dtype), lse


def _ring_forward(settings: Settings, inputs: Inputs, where: Where) -> tuple[tuple, tuple]:
    out, lse = _ring(settings, inputs, where)
    return (out, lse), (inputs, where, out, lse)


def _ring_backward(settings: Settings, residuals: tuple, d_results: tuple) -> tuple[Inputs, None]:
    inputs, where, out, lse = residuals
    kernel, line, rule = settings.kernel, settings.line, settings.rule
    d_out = api.hide_padding(d_results[0], where.q_seg)
    delta = jnp.einsum('BTNH,BTNH->BTN', d_out, out, preferred_element_type=jnp.float32)
    delta = delta - jnp.where(lse > online.FLOOR, d_results[1], 0)
    tables = Tables.of(inputs.bias)

    def shares(keys: Keys) -> tuple[tuple[Array, Array], tuple[Array, list[Array]]]:
        """``((dk, dv), (dq, d_tables))`` of one step, fp32."""
        here = keys.seen_from(where)

        def read() -> tuple:
            dq, dk, dv, d_tables = kernel.gradients(
                inputs.q, keys.k, keys.v, here, rule, inputs.bias, lse, delta, d_out, **settings.options()
            )
            return jax.tree.map(lambda x: x.astype(jnp.float32), ((dk, dv), (dq, d_tables)))

        def skip() -> tuple:
            with_keys = jnp.zeros(keys.k.shape), jnp.zeros(keys.v.shape)
            return with_keys, (jnp.zeros(inputs.q.shape), tables.zeros())

        return jax.lax.cond(holds_pairs(rule, here), read, skip)

    def add(a: Tree, b: Tree) -> Tree:
        return jax.tree.map(jnp.add, a, b)

    def pass_on(carry: tuple) -> tuple:
        keys, with_keys, stays = carry
        coming, behind = line.shift(keys), line.shift(with_keys)  # what others made for the keys at hand
        for_keys, own = shares(keys)
        return coming, add(behind, for_keys), add(stays, own)

    keys = Keys(inputs.k, inputs.v, where.k_pos, where.k_seg)
    coming = line.shift(keys) if line.size > 1 else keys
    _, with_keys, (dq, d_tables) = _turn(line, pass_on, (coming, *shares(keys)))
    dk, dv = line.shift(with_keys) if line.size > 1 else with_keys
    dq, dk, dv = (d.astype(x.dtype) for d, x in zip((dq, dk, dv), inputs))
    d_sinks = _sink_gradient(inputs.sinks, where, lse, delta)
    return Inputs(dq, dk, dv, tables.gradient(d_tables), d_sinks), None


_ring.defvjp(_ring_forward, _ring_backward)


def _sink_gradient(sinks: Array | None, where: Where, lse: Array, delta: Array) -> Array | None:
    """-sum over queries of p_sink * delta."""
    if sinks is None:
        return None
    p_sink = jnp.where((where.q_seg != api.PADDING)[..., None], jnp.exp(sinks.astype(jnp.float32) - lse), 0)
    return -jnp.sum(p_sink * delta, axis=(0, 1)).astype(sinks.dtype)
