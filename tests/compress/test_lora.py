"""LoRA is its formula: beside single maps in float64, and in a whole model beside that of merged matrices."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lcx.compress import LoraConfig, leaves, lora
from lcx.errors import ConfigError
from lcx.models import ModelConfig, init
from lcx.models.linear import Projection
from tests.models.tiny import CONFIG, changed, close, gradient, loss, packed_batch, parameters

EVERY = LoraConfig(rank=3, alpha=6.0, targets=('*',))
KEY = jax.random.key(7)
PATHS = {
    'mixer/query': ((32,), (4, 8)),
    'mixer/key': ((32,), (2, 8)),
    'mixer/value': ((32,), (2, 8)),
    'mixer/out': ((4, 8), (32,)),
    'feed_forward/gate': ((32,), (40,)),
    'feed_forward/up': ((32,), (40,)),
    'feed_forward/down': ((40,), (32,)),
}


def drawn(tree):
    """The same tree with random numbers in every leaf: a B that is not zero."""
    random = np.random.default_rng(0)
    return jax.tree.map(lambda x: jnp.asarray(0.1 * random.normal(size=x.shape), x.dtype), tree)


@functools.cache
def adapters(config: ModelConfig):
    return drawn(lora.init(EVERY, config, parameters(config), KEY))


def test_every_linear_map_is_known_by_its_path():
    assert lora.projections(CONFIG) == {f'layers/full_0/{path}': sizes for path, sizes in PATHS.items()}


@pytest.mark.parametrize(('inputs', 'outputs'), [((6,), (2, 5)), ((2, 3), (7,)), ((6,), (7,))])
@pytest.mark.parametrize('stabilised', [False, True])
def test_a_map_and_its_gradients_are_the_formula(inputs, outputs, stabilised):
    random = np.random.default_rng(0)
    config = LoraConfig(rank=4, alpha=3.0, targets=('*',), rank_stabilised=stabilised)
    shapes = {'kernel': (*inputs, *outputs), lora.A: (*inputs, 4), lora.B: (4, *outputs)}
    params = {name: random.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}
    x, dy = random.normal(size=(3, *inputs)), random.normal(size=(3, *outputs))
    module = Projection(inputs, outputs, ('',) * (len(inputs) + len(outputs)))

    def f(params, x):
        return module.apply({'params': params}, x)

    y, back = jax.vjp(lora.adapted(config, f), params, jnp.float32(x))
    grads, dx = back(jnp.float32(dy))
    w, a, b = (params[n].astype(np.float64) for n in ('kernel', lora.A, lora.B))
    w, a, b, x, dy = w.reshape(6, -1), a.reshape(6, 4), b.reshape(4, -1), x.reshape(3, 6), dy.reshape(3, -1)
    s = 3 / 2 if stabilised else 3 / 4
    for found, expected in (
        (y, x @ (w + s * a @ b)),
        (dx, dy @ (w + s * a @ b).T),
        (grads[lora.A], s * x.T @ (dy @ b.T)),
        (grads[lora.B], s * (x @ a).T @ dy),
    ):
        np.testing.assert_allclose(np.reshape(found, expected.shape), expected, rtol=1e-5, atol=1e-5)
    x = jnp.float32(x.reshape(3, *inputs))
    plain = f({'kernel': params['kernel']}, x)
    np.testing.assert_array_equal(f(params, x), plain)  # outside, the function is itself
    np.testing.assert_array_equal(lora.adapted(config, f)({'kernel': params['kernel']}, x), plain)


@pytest.mark.parametrize(
    'fields',
    [
        {},
        {'remat': 'full', 'feed_forward_chunk': 5},
        {'remat': 'dots', 'pattern': ('full', 'full'), 'layers': 4},
    ],
    ids=['plain', 'remat and chunks', 'dots and a pattern of two'],
)
def test_a_model_with_adapters_is_the_merged_model(fields):
    """Loss and gradients of every adapter: the second path differentiates W + s A B."""
    config = changed(**fields)
    params, added, batch = parameters(config), adapters(config), packed_batch()

    def beside(added):
        return lora.adapted(EVERY, loss)(config, leaves.join(params, added), batch)

    def merged(added):
        return loss(config, lora.merge(params, added, EVERY), batch)

    found, expected = (jax.jit(jax.value_and_grad(f))(added) for f in (beside, merged))
    without, _ = gradient(config)(params, batch)
    np.testing.assert_allclose(found[0], expected[0], rtol=1e-6)
    close(found[1], expected[1], atol=2e-4)
    assert abs(found[0] - without) > 1e-2  # they do something
    assert all(np.abs(x).max() > 1e-3 for x in jax.tree.leaves(found[1]))


def test_a_fresh_adapter_changes_nothing():
    fresh = lora.init(EVERY, CONFIG, parameters(CONFIG), KEY)
    params, batch = parameters(CONFIG), packed_batch()
    without, of_kernels = gradient(CONFIG)(params, batch)

    @jax.jit
    @jax.value_and_grad
    def beside(params):
        return lora.adapted(EVERY, loss)(CONFIG, params, batch)

    found, grads = beside(leaves.join(params, fresh))
    np.testing.assert_allclose(found, without, rtol=1e-6)
    close(leaves.split(grads, lora.is_adapter)[1], of_kernels, atol=1e-4)
    jax.tree.map(np.testing.assert_array_equal, lora.merge(params, fresh, EVERY), params)


def test_initial_numbers():
    """A is uniform within 1 / sqrt(fan-in), by key and path; B is zero; both have the layers stacked."""
    config = LoraConfig(rank=64, alpha=1.0, targets=('mixer/out', 'mixer/key'))
    params = parameters(CONFIG)
    found = leaves.named(lora.init(config, CONFIG, params, KEY))
    assert {name: x.shape for name, x in found.items()} == {
        'layers/full_0/mixer/out/lora_a': (2, 4, 8, 64),
        'layers/full_0/mixer/out/lora_b': (2, 64, 32),
        'layers/full_0/mixer/key/lora_a': (2, 32, 64),
        'layers/full_0/mixer/key/lora_b': (2, 64, 2, 8),
    }
    for name, x in found.items():
        if name.endswith('lora_b'):
            np.testing.assert_array_equal(x, 0)
            continue
        limit = 32**-0.5
        assert np.abs(x).max() <= limit and np.abs(x).max() > 0.99 * limit
        np.testing.assert_allclose(np.std(x), limit / 3**0.5, rtol=0.05)
        assert abs(np.mean(x)) < 0.02 and not np.array_equal(x[0], x[1])
    alone = LoraConfig(rank=64, alpha=1.0, targets=('mixer/key',))
    key_a = leaves.named(lora.init(alone, CONFIG, params, KEY))['layers/full_0/mixer/key/lora_a']
    np.testing.assert_array_equal(key_a, found['layers/full_0/mixer/key/lora_a'])
    other = lora.init(alone, CONFIG, params, jax.random.key(8))
    assert not np.array_equal(leaves.named(other)['layers/full_0/mixer/key/lora_a'], key_a)


def test_merging_is_exact_to_the_rounding_of_fp32():
    params, added = parameters(CONFIG), adapters(CONFIG)
    merged, kernels = leaves.named(lora.merge(params, added, EVERY)), leaves.named(params)
    found = leaves.named(added)
    for path, (inputs, outputs) in PATHS.items():
        name = f'layers/full_0/{path}'
        a, b, w = (
            np.float64(x)
            for x in (found[f'{name}/lora_a'], found[f'{name}/lora_b'], kernels[f'{name}/kernel'])
        )
        product = a.reshape(2, -1, 3) @ b.reshape(2, 3, -1)
        expected = w + 2.0 * product.reshape(2, *inputs, *outputs)
        assert merged[f'{name}/kernel'].dtype == np.float32
        np.testing.assert_allclose(merged[f'{name}/kernel'], expected, rtol=3e-7, atol=1e-7)
    untouched = kernels.keys() - {f'layers/full_0/{path}/kernel' for path in PATHS}
    assert merged.keys() == kernels.keys() and all(merged[name] is kernels[name] for name in untouched)


def test_activations_of_16_bits_stay_so():
    config = changed(dtype='bfloat16')

    def hidden(params):
        from lcx.models import Decoder

        batch = packed_batch()
        return Decoder(config).apply({'params': params}, batch.tokens, batch.positions, batch.segments)

    params = leaves.join(parameters(config), adapters(config))
    assert jax.eval_shape(lora.adapted(EVERY, hidden), params).dtype == jnp.bfloat16


def test_sizes_of_large_models_cost_nothing():
    from lcx.models import PRESETS

    model = ModelConfig(**PRESETS['llama_8b'])
    config = LoraConfig(rank=8, alpha=16.0, targets=('mixer/query', 'mixer/value'))
    shapes = jax.eval_shape(lambda: lora.init(config, model, init(model, KEY), KEY))
    count = sum(x.size for x in jax.tree.leaves(shapes))
    assert count == 3_407_872  # 32 layers of 8 (4096 + 4096) + 8 (4096 + 1024)


@pytest.mark.parametrize(
    ('fields', 'message'),
    [
        ({'rank': 0}, 'rank: 0 must be greater than 0'),
        ({'alpha': -1.0}, 'alpha: -1.0 must be greater than 0'),
        ({'targets': ()}, r'targets: \(\) adapts nothing'),
    ],
)
def test_errors(fields, message):
    with pytest.raises(ConfigError, match=message):
        LoraConfig(**{'rank': 2, 'alpha': 1.0, 'targets': ('*',), **fields})


def test_a_target_that_is_no_linear_map_is_an_error_with_the_nearest():
    config = LoraConfig(rank=2, alpha=1.0, targets=('mixer/query', 'mixer_norm'))
    with pytest.raises(ConfigError, match=r"tune.targets: unknown 'mixer_norm'.*Choices: .*mixer/out"):
        lora.init(config, CONFIG, parameters(CONFIG), KEY)


def test_other_modules_are_left_alone():
    """Only Projections have adapters: a Dense with such parameters beside its own does not use them."""
    dense = nn.Dense(2, use_bias=False)
    params = {'kernel': jnp.ones((3, 2)), lora.A: jnp.ones((3, 1)), lora.B: jnp.ones((1, 2))}
    found = lora.adapted(EVERY, dense.apply)({'params': params}, jnp.ones((1, 3)))
    np.testing.assert_array_equal(found, 3.0)
