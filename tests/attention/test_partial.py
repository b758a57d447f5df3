"""Attention over parts of the keys merges into attention over all of them, gradients included."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lcx.attention import blockwise, both, causal, dense, online, window
from lcx.attention.masks import Rule
from tests.contracts.attention_contract import BY_NAME, close
from tests.contracts.attention_reference import BIASES, Inputs, draw
from tests.contracts.attention_reference import reference as exact

PACKED = BY_NAME['packed, all at once']
NEAR = window(5)
FAR = Rule(lambda where: ~NEAR.allow(where), lambda b: b.q_max - b.k_min >= 5)
PARTIALS = {'dense': dense.partial, 'blockwise': functools.partial(blockwise.partial, block=16)}
GRADIENTS = {'dense': dense.gradients, 'blockwise': functools.partial(blockwise.gradients, block=16)}


@pytest.mark.parametrize('name', PARTIALS)
def test_near_and_far_keys_merge_into_all_keys(name):
    x, where, d_out = draw(PACKED)  # bias table, softcap, sinks, grouped heads, documents, padding

    def merged(x: Inputs) -> jax.Array:
        bias = jax.tree_util.Partial(BIASES[PACKED.bias].apply, x.table)
        parts = []
        for region, sinks in ((NEAR, x.sinks), (FAR, None)):  # the sink counts once
            out, lse = PARTIALS[name](
                *x[:3], where, both(PACKED.rule, region), bias, softcap=PACKED.softcap, sink_logits=sinks
            )
            parts.append(online.resume(out, lse))
        return online.finish(online.merge(*parts))[0]

    @jax.jit
    def run(x, d_out):
        out, pull = jax.vjp(merged, x)
        return out, pull(d_out)[0]

    found = jax.device_get(run(x, d_out))
    close(found, exact(PACKED, x, where, d_out), 2e-5)


@pytest.mark.parametrize('name', PARTIALS)
def test_gradients_over_near_and_far_keys_add_up_to_those_over_all(name):
    """From the statistics of attention over all keys, whatever made them: a ring makes them step by step."""
    x, where, d_out = draw(PACKED)
    out, expected = exact(PACKED, x, where, d_out)
    options = {'softcap': PACKED.softcap}

    @jax.jit
    def run(x, d_out):
        bias = jax.tree_util.Partial(BIASES[PACKED.bias].apply, x.table)
        _, lse = PARTIALS[name](*x[:3], where, PACKED.rule, bias, sink_logits=x.sinks, **options)
        hidden = jnp.where((where.q_seg != 0)[..., None, None], d_out, 0)
        delta = jnp.sum(hidden * out, axis=-1)
        parts = [
            GRADIENTS[name](*x[:3], where, both(PACKED.rule, region), bias, lse, delta, d_out, **options)
            for region in (NEAR, FAR)
        ]
        dq, dk, dv, (d_table,) = jax.tree.map(jnp.add, *parts)
        return dq, dk, dv, d_table

    for found, wanted in zip(run(x, d_out), expected):
        np.testing.assert_allclose(found, wanted, atol=2e-5 * max(1, np.max(np.abs(wanted))))


@pytest.mark.parametrize('name', PARTIALS)
def test_lse_is_the_logarithm_of_the_denominator_and_has_its_gradient(name):
    x, where, _ = draw(PACKED)
    q, k, v = (a[:1, :20, :2] for a in x[:3])
    where = where._replace(**{f: getattr(where, f)[:1, :20] for f in where._fields if f != 'heads'})
    where = where._replace(heads=np.arange(2), q_seg=np.ones((1, 20), int), k_seg=np.ones((1, 20), int))

    def lse(q, k):
        return PARTIALS[name](q, k, v, where, causal)[1]

    def formula(q, k):
        s = jnp.einsum('BTNH,BSNH->BTNS', q, k) / np.sqrt(q.shape[-1])
        seen = where.q_pos[:, :, None, None] >= where.k_pos[:, None, None, :]
        return jax.nn.logsumexp(jnp.where(seen, s, -jnp.inf), axis=-1)

    d_lse = np.random.default_rng(1).normal(size=(1, 20, 2)).astype(np.float32)
    for found, expected in zip(
        *(jax.jit(lambda q, k, f=f: [f(q, k), *jax.vjp(f, q, k)[1](d_lse)])(q, k) for f in (lse, formula))
    ):
        np.testing.assert_allclose(found, expected, atol=2e-5)
