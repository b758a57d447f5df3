"""The decoder: packing, causality, layer patterns, rematerialisation, dtypes, sizes and logical axes."""

import dataclasses
import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lcx.models import PRESETS, Decoder, LayerKind, ModelConfig, init
from tests.models.tiny import (
    CONFIG,
    T,
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

PUBLISHED = {'smollm2_135m': 134_515_008, 'llama_1b': 1_235_814_400, 'llama_8b': 8_030_261_248}


@pytest.mark.parametrize('position', ['rope', 'dynamic_ntk'])
def test_packed_is_separate(position):
    config = changed(position={'name': position}, qk_norm=True)
    params, run = parameters(config), gradient(config)
    packed, separate = (run(params, batch) for batch in (packed_batch(), separate_batch()))
    close(packed, separate, atol=2e-5)
    assert packed[0] > 10


def test_layer_kinds_of_one_position_method_share_it():
    """Two kinds that differ in the rule only: positions are embedded once, from one table."""
    full, local = LayerKind(), LayerKind(rule=({'name': 'causal'}, {'name': 'window', 'size': T}))
    one = changed(position={'name': 'learned'}, trained_length=T, kinds={'full': full})
    two = changed(
        position={'name': 'learned'},
        trained_length=T,
        kinds={'full': full, 'local': local},
        pattern=('full', 'local'),
    )
    params = parameters(one)
    hybrid = dict(params)
    layers = hybrid.pop('layers')[
        'full_0'
    ]  # stacked over depth: layers of even number are full, of odd local
    hybrid['layers'] = {
        name: jax.tree.map(lambda x, i=i: x[i::2], layers) for i, name in enumerate(('full_0', 'local_1'))
    }
    assert jax.tree.map(np.shape, hybrid) == jax.tree.map(np.shape, dict(parameters(two)))
    tokens = random_batch().tokens
    found, expected = whole_logits(two, hybrid, tokens), whole_logits(one, params, tokens)
    np.testing.assert_allclose(found, expected, atol=1e-4)


def influence(config, segments):
    """Whether the hidden state at t changes with the token at u, 'T U', by gradient."""
    length = segments.shape[1]
    tokens = positions = jnp.arange(length)[None]  # every token is another row of the embedding
    weights = jax.random.normal(jax.random.key(0), (length, config.width))

    @jax.jit
    def rows(params):
        def read(params):
            hidden = Decoder(config).apply({'params': params}, tokens, positions, segments)[0]
            return jnp.sum(hidden * weights, axis=-1)

        return jax.jacrev(read)(params)['embedding']

    return np.any(rows(parameters(config))[:, :length] != 0, axis=-1)


def test_no_token_sees_the_future():
    seen = influence(attending('blockwise'), jnp.ones((1, 12), jnp.int32))
    np.testing.assert_array_equal(seen, np.tri(12, dtype=bool))


def test_no_token_sees_another_document_or_padding():
    segments = np.array([[1] * 5 + [2] * 4 + [0] * 3])
    expected = np.tri(12, dtype=bool) & (segments == segments.T) & (segments > 0)
    expected |= np.eye(12, dtype=bool)  # the residual stream
    np.testing.assert_array_equal(influence(CONFIG, jnp.array(segments)), expected)


def test_a_window_reaches_one_window_further_with_every_layer():
    rule = ({'name': 'causal'}, {'name': 'window', 'size': 3})
    seen = influence(changed(kinds={'full': LayerKind(rule=rule)}), jnp.ones((1, 12), jnp.int32))
    distance = np.arange(12)[:, None] - np.arange(12)
    np.testing.assert_array_equal(seen, (distance >= 0) & (distance <= CONFIG.layers * (3 - 1)))


def test_blockwise_model_is_the_dense_model():
    """At 600 tokens, two blocks of each side."""
    batch, params = random_batch(rows=1, length=600), parameters(CONFIG)
    found, expected = (gradient(attending(name))(params, batch) for name in ('blockwise', 'dense'))
    np.testing.assert_allclose(found[0], expected[0], rtol=1e-6)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5 * np.max(np.abs(b))), found[1], expected[1]
    )


def test_remat_changes_memory_and_no_gradient():
    batch, found, memory = random_batch(rows=4, length=64), {}, {}
    for policy in ('none', 'dots', 'full', 'offload'):
        config = changed(layers=8, remat=policy)
        params = parameters(config)
        compiled = gradient(config).lower(params, batch).compile()
        found[policy] = compiled(params, batch)
        memory[policy] = compiled.memory_analysis().temp_size_in_bytes
    close(found['dots'], found['none'], atol=1e-4)  # of sums over 256 tokens
    close(found['full'], found['none'], atol=1e-4)
    close(found['offload'], found['none'], atol=1e-4)
    assert memory['full'] < memory['dots'] < memory['none']


class TestPattern:
    """Layers of two kinds: L L G L L G."""

    @staticmethod
    def config(window, local_position):
        local = LayerKind(
            rule=({'name': 'causal'}, {'name': 'window', 'size': window}), position=local_position
        )
        return changed(
            layers=6, pattern=('local', 'local', 'full'), kinds={'local': local, 'full': LayerKind()}
        )

    @staticmethod
    def in_one_kind(params):
        """The parameters of a pattern as those of a model whose layers are all full, in order of depth."""
        blocks = [params['layers'][name] for name in ('local_0', 'local_1', 'full_2')]
        merged = jax.tree.map(lambda *x: jnp.stack(x, axis=1).reshape(-1, *x[0].shape[1:]), *blocks)
        return {**params, 'layers': {'full_0': merged}}

    def test_equal_kinds_are_one_kind(self):
        config, tokens = self.config(window=T, local_position=None), random_batch().tokens
        params = parameters(config)
        expected = whole_logits(changed(layers=6), self.in_one_kind(params), tokens)
        np.testing.assert_allclose(whole_logits(config, params, tokens), expected, atol=2e-5)

    @pytest.mark.parametrize(
        ('window', 'position'), [(5, None), (T, {'name': 'none'}), (T, {'name': 'rope', 'theta': 100.0})]
    )
    def test_a_kind_has_its_own_rule_and_position(self, window, position):
        config, tokens = self.config(window, position), random_batch().tokens
        params = parameters(config)
        other = whole_logits(changed(layers=6), self.in_one_kind(params), tokens)
        found = whole_logits(config, params, tokens)
        assert np.all(np.max(np.abs(found - other)[:, 5:], axis=-1) > 1e-3)
        np.testing.assert_allclose(found[:, 0], other[:, 0], atol=2e-5)  # one token: no window, no distance

    @pytest.mark.parametrize('layers', [2, 8])
    def test_what_the_pattern_leaves_over_follows_the_scan(self, layers):
        """Of 8 layers L L G L L G are scanned and L L follow; of 2 all follow. In order of depth: one kind of 8, 2."""
        config, tokens = dataclasses.replace(self.config(T, None), layers=layers), random_batch().tokens
        params = parameters(config)
        rest = [params['rest'][name] for name in ('local_0', 'local_1')]
        assert sorted(params['rest']) == ['local_0', 'local_1'] and ('layers' in params) == (layers == 8)
        scanned = [self.in_one_kind(params)['layers']['full_0']] if layers == 8 else []
        last = jax.tree.map(lambda *x: jnp.stack(x), *rest)
        every = jax.tree.map(lambda *x: jnp.concatenate(x), *scanned, last)
        plain = {k: x for k, x in params.items() if k != 'rest'} | {'layers': {'full_0': every}}
        expected = whole_logits(changed(layers=layers), plain, tokens)
        np.testing.assert_allclose(whole_logits(config, params, tokens), expected, atol=2e-5)

    @pytest.mark.parametrize('remat', ['dots', 'full'])
    def test_the_rest_is_rematerialised_too(self, remat):
        plain = dataclasses.replace(self.config(5, None), layers=5)
        again, batch = dataclasses.replace(plain, remat=remat), random_batch()
        close(gradient(again)(parameters(plain), batch), gradient(plain)(parameters(plain), batch), atol=1e-4)


def test_bfloat16_computes_low_and_keeps_parameters_in_float32():
    config, batch = changed(dtype='bfloat16'), random_batch()
    params = parameters(config)
    hidden = jax.eval_shape(
        Decoder(config).apply, {'params': params}, batch.tokens, batch.positions, batch.segments
    )
    assert hidden.dtype == jnp.bfloat16
    value, d = gradient(config)(params, batch)
    assert {x.dtype for x in jax.tree.leaves((shapes(config), d, value))} == {jnp.dtype('float32')}
    np.testing.assert_allclose(value, gradient(CONFIG)(params, batch)[0], rtol=5e-3)


def test_qk_norm_is_of_every_head():
    config = changed(qk_norm=True)
    mixer = shapes(config)['layers']['full_0']['mixer']
    for name in ('query_norm', 'key_norm'):
        assert mixer[name]['scale'].shape == (config.layers, config.head_dim)


def shapes(config: ModelConfig):
    return jax.eval_shape(functools.partial(init, config), jax.random.key(0))


def count(config: ModelConfig) -> int:
    return sum(x.size for x in jax.tree.leaves(shapes(config)))


@pytest.mark.parametrize('name', PRESETS)
def test_sizes_of_presets(name):
    config = ModelConfig(**{'vocab': 257, **PRESETS[name]})
    assert count(config) == PUBLISHED.get(name, count(config))
    assert {x.dtype for x in jax.tree.leaves(shapes(config))} == {jnp.dtype('float32')}
    norms = (2 * config.layers + 1) * config.width
    inputs = 0 if config.tie_embeddings else config.vocab * config.width
    assert config.flops(length=0) == 6 * (count(config) - norms - inputs)
    plain = dataclasses.replace(config, gated=False)
    assert plain.flops(length=0) == 6 * (count(plain) - norms - inputs)
    width = config.heads * config.head_dim
    assert config.flops(length=10) - config.flops(length=0) == 60 * config.layers * width


@pytest.mark.parametrize(
    'config',
    [
        changed(qk_norm=True),
        TestPattern.config(5, None),
        changed(qk_norm=True, norm='layer', bias=('qkv', 'out', 'feed_forward'), post_norms=True),
        dataclasses.replace(TestPattern.config(5, None), layers=4),
    ],
    ids=['plain', 'pattern', 'biases', 'rest'],
)
def test_every_axis_of_every_parameter_has_a_name(config):
    tokens = jnp.zeros((1, 2), jnp.int32)
    boxed = jax.eval_shape(Decoder(config).init, jax.random.key(0), tokens, tokens, tokens + 1)['params']
    names, plain = nn.get_partition_spec(boxed), shapes(config)
    known = {'vocab', 'embed', 'layers', 'heads', 'kv_heads', 'head_dim', 'hidden'}

    def check(spec, x):
        assert len(spec) == x.ndim and set(spec) <= known and len(set(spec)) == len(spec)

    jax.tree.map(check, names, plain, is_leaf=lambda x: isinstance(x, jax.sharding.PartitionSpec))


def test_initial_logits_are_of_order_one_and_the_loss_near_log_vocab():
    config = attending(tie_embeddings=True, layers=8)
    batch = random_batch(rows=4)
    params = jax.jit(init, static_argnums=0)(config, jax.random.key(0))
    found = whole_logits(config, params, batch.tokens)
    assert 0.5 < np.std(found) < 2
    nll = (
        jax.nn.logsumexp(found, axis=-1)
        - np.take_along_axis(found, batch.targets[..., None], axis=-1)[..., 0]
    )
    np.testing.assert_allclose(np.mean(nll), np.log(config.vocab) + 0.5, atol=0.5)


def test_softcap_bounds_logits():
    params, tokens = parameters(CONFIG), random_batch().tokens
    plain, capped = (whole_logits(config, params, tokens) for config in (CONFIG, changed(softcap=0.5)))
    np.testing.assert_allclose(capped, 0.5 * np.tanh(plain / 0.5), atol=1e-5)


def test_scale_and_softcap_of_scores_reach_regions():
    """A window of ReRoPE that holds the whole text is attention as it is; third_party/families has the numbers."""
    fields = {'attention_scale': 0.2, 'attention_softcap': 0.7}
    params, tokens = parameters(CONFIG), random_batch().tokens
    found = [
        whole_logits(changed(kinds={'full': LayerKind(regions=regions)}, **fields), params, tokens)
        for regions in (None, {'name': 'rerope', 'window': T})
    ]
    np.testing.assert_allclose(found[1], found[0], atol=1e-5)
    assert np.max(np.abs(found[0] - whole_logits(CONFIG, params, tokens))) > 0.1


def test_the_scale_of_embeddings_is_rounded_to_their_dtype():
    """As in Gemma: sqrt(32) counts as 5.65625 in bfloat16."""
    params, tokens = parameters(CONFIG), random_batch().tokens
    found = [
        whole_logits(changed(dtype='bfloat16', embedding_scale=scale), params, tokens)
        for scale in (32**0.5, 5.65625)
    ]
    np.testing.assert_array_equal(*found)
