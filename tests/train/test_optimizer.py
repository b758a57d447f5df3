"""AdamW as configured: what decays, how clipping scales, and which step has which rate."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from lcx.models import ModelConfig, init
from lcx.train.optimizer import decayed, optimizer

MODEL = ModelConfig(
    vocab=11,
    width=8,
    layers=2,
    heads=2,
    kv_heads=1,
    head_dim=4,
    hidden=16,
    qk_norm=True,
    tie_embeddings=False,
)
NORMS = ('mixer_norm', 'feed_forward_norm', 'final_norm', 'query_norm', 'key_norm')


@pytest.fixture(scope='module')
def params():
    """Random numbers in the shape of a model's parameters."""
    random = np.random.default_rng(0)
    shapes = jax.eval_shape(lambda: init(MODEL, jax.random.key(0)))
    return jax.tree.map(lambda x: jnp.asarray(random.normal(size=x.shape), x.dtype), shapes)


def named(tree):
    return {jax.tree_util.keystr(path): x for path, x in jax.tree_util.tree_flatten_with_path(tree)[0]}


def adamw(rate=lambda step: 0.1, **changes):
    return optimizer('adamw', rate, **{**dict(beta1=0.9, beta2=0.95, weight_decay=0.5, clip=1.0), **changes})


def test_every_matrix_decays_and_no_norm_does(params):
    mask = named(decayed(params))
    assert len(mask) == 14
    for name, decays in mask.items():
        assert decays == (not any(norm in name for norm in NORMS)), name


def test_no_bias_decays():
    model = dataclasses.replace(MODEL, bias=('qkv', 'out', 'feed_forward'), norm='layer')
    mask = named(decayed(jax.eval_shape(lambda: init(model, jax.random.key(0)))))
    biases = [name for name in mask if name.endswith("['bias']")]
    assert len(biases) == 4 + 3 + 5 and not any(mask[name] for name in biases)


def test_without_gradient_only_weight_decay_acts(params):
    chain = adamw()

    @jax.jit
    def step(params):
        updates, _ = chain.update(jax.tree.map(jnp.zeros_like, params), chain.init(params), params)
        return optax.apply_updates(params, updates)

    after = named(step(params))
    for name, before in named(params).items():
        if any(norm in name for norm in NORMS):
            np.testing.assert_array_equal(after[name], before, err_msg=name)
        else:
            np.testing.assert_allclose(after[name], before * (1 - 0.1 * 0.5), rtol=1e-5, err_msg=name)


@pytest.mark.parametrize(('clip', 'scale'), [(1.0, 1 / 5), (50.0, 1)])
def test_a_gradient_is_clipped_by_its_global_norm(clip, scale):
    chain = adamw(clip=clip)
    params = {'a': jnp.zeros(1), 'b': jnp.zeros(1)}
    grads = {'a': jnp.array([3.0]), 'b': jnp.array([4.0])}
    _, state = chain.update(grads, chain.init(params), params)
    moments = optax.tree.get(state, 'mu')
    np.testing.assert_allclose([moments['a'][0], moments['b'][0]], np.array([3, 4]) * scale * 0.1, rtol=1e-6)


def test_the_update_is_adam_at_the_rate_of_the_step():
    """A constant gradient: Adam's corrected moments are g and g^2, so that the update is -rate * sign(g)."""
    chain = adamw(lambda step: 0.5 / (step + 1), weight_decay=0.0, clip=1e9)
    params = {'a': jnp.array([1.0, 1.0])}
    state = chain.init(params)
    for step in range(4):
        updates, state = chain.update({'a': jnp.array([0.3, -7.0])}, state, params)
        np.testing.assert_allclose(updates['a'], [-0.5 / (step + 1), 0.5 / (step + 1)], rtol=1e-4)
