"""The CoPE mixer in a model: what it is without its tables, per layer, packed, and through both implementations."""

import jax
import jax.numpy as jnp
import numpy as np

from lcx.models import LayerKind, ModelConfig
from tests.models.tiny import (
    attending,
    changed,
    close,
    gradient,
    packed_batch,
    parameters,
    random_batch,
    separate_batch,
    whole_logits,
)

P = 5


def counting(implementation: str = 'blockwise', **mixer) -> ModelConfig:
    """The tiny model with CoPE in every layer."""
    kind = LayerKind(mixer={'name': 'cope', 'positions': P, **mixer}, attention={'name': implementation})
    return changed(position={'name': 'none'}, kinds={'full': kind})


def with_tables(params, change):
    """The parameters with every layer's table passed through ``change``."""
    return jax.tree_util.tree_map_with_path(lambda path, x: change(x) if 'table' in str(path) else x, params)


def test_each_layer_has_a_table_that_starts_at_zero_and_that_is_attention_without_positions():
    config, tokens = counting(), random_batch().tokens
    params = parameters(config)
    assert params['layers']['full_0']['mixer']['table'].shape == (config.layers, P, config.head_dim)
    without = with_tables(params, jnp.zeros_like)
    plain = attending('blockwise', position={'name': 'none'})
    stripped = jax.tree.map(lambda x: x, without)
    del stripped['layers']['full_0']['mixer']['table']
    found = whole_logits(config, without, tokens)
    np.testing.assert_allclose(found, whole_logits(plain, stripped, tokens), atol=1e-5)
    assert np.abs(whole_logits(config, params, tokens) - found).max() > 0.1


def test_blockwise_is_dense_and_gradients_reach_every_layers_table():
    batch = random_batch()
    found, expected = (
        gradient(counting(name))(parameters(counting()), batch) for name in ('blockwise', 'dense')
    )
    close(found, expected, atol=2e-3)
    by_layer = np.abs(found[1]['layers']['full_0']['mixer']['table']).max(axis=(1, 2))
    assert by_layer.shape == (2,) and np.all(by_layer > 1e-2)


def test_packed_is_separate():
    run, params = gradient(counting()), parameters(counting())
    close(run(params, packed_batch()), run(params, separate_batch()), atol=1e-3)
