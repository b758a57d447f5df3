"""Every cache policy keeps the contract; and all that a model may be made of works through a cache."""

import numpy as np
import pytest

from lcx.config import Options
from lcx.errors import ConfigError
from lcx.generate.policies import POLICIES, Policy, Room, make_policy
from lcx.generate.ring import Ring
from lcx.models import LayerKind, ModelConfig
from lcx.models.cache import Cache
from lcx.positions import POSITIONS
from tests.contracts.cache_contract import HYBRID, CacheContract, Row, pieces, stepping, whole
from tests.models.tiny import T, changed, packed_batch, parameters, random_batch


class TestContract(CacheContract):
    rows = [
        Row('full'),
        Row('streaming', {'window': 7, 'sinks': 2}),
        Row('streaming', {'window': 7, 'sinks': 2, 'reposition': False}),
        Row('streaming', {'window': 7, 'sinks': 0}),
        Row('h2o', {'budget': 24}),
        Row('tova', {'budget': 24}),
        Row('scissorhands', {'budget': 24, 'history': 8, 'recent': 3}),
        Row('snapkv', {'budget': 24, 'observe': 5, 'after': 'chunk'}),
        Row('pyramidkv', {'budget': 24, 'observe': 5, 'beta': 2.0, 'after': 'chunk'}),
        Row('pyramidkv', {'budget': 24, 'observe': 5}),
        Row('quantised', {'group': 4, 'residual': 24}),
    ]


def test_every_policy_has_a_row():
    assert {row.name for row in TestContract.rows} == set(POLICIES)


KINDS = {  # what a layer may be, in groups that make one model each
    'rotations': [
        {'name': 'rope', 'rotary_fraction': 0.5, 'interleaved': True},
        {'name': 'pi', 'factor': 4.0},
        {'name': 'ntk', 'factor': 4.0},
        {'name': 'ntk_by_parts', 'factor': 4.0},
        {'name': 'yarn', 'factor': 4.0},
        {'name': 'llama3', 'factor': 4.0},
        {'name': 'longrope', 'short_factor': (1.0,) * 4, 'long_factor': (1.0, 2.0, 3.0, 4.0)},
        {'name': 'p_rope', 'rotary_fraction': 0.5},
        {'name': 'xpos', 'scale_base': 16.0},
        {'name': 'transformer_xl', 'dims': 12},
    ],
    'biases': [
        {'name': 'none'},
        {'name': 'alibi'},
        {'name': 't5', 'num_buckets': 8, 'max_distance': 10},
        {'name': 'kerple'},
        {'name': 'fire', 'threshold': 4.0, 'hidden': 4},
        {'name': 'sandwich', 'dims': 16},
        {'name': 'log_n', 'original_length': 4},
        {'name': 'ssmax', 'base': {'name': 'rope'}},
        {'name': 'sinusoidal'},
        {'name': 'learned'},
    ],
    'lengths': [
        {'name': 'dynamic_ntk', 'original_length': 4},
        {'name': 'pose', 'target_length': 64},
        {'name': 'shape', 'max_offset': 50},
        {'name': 'randomized', 'target_length': 64},
    ],
    'between tokens': [{'name': 'random_float', 'target_length': 64, 'base': {'name': 'rope'}}],
}
REGIONS = [
    {'name': 'self_extend', 'group': 3, 'window': 7},
    {'name': 'rerope', 'window': 9},
    {'name': 'leaky_rerope', 'window': 6, 'leak': 2.5},
    {'name': 'dual_chunk', 'chunk': 7, 'local': 3},
    {'name': 'lm_infinite', 'window': 8, 'sinks': 2},
]


def through_cache(model: ModelConfig, texts, policy: Policy | None = None, sizes=(8, 8, 8)):
    """Hidden states of ``texts`` read in pieces; caches know from the start where the text ends."""
    policy = policy or make_policy({'name': 'full'}, Room(prompt=T, new=0, chunk=8))
    model = policy.model(model)
    caches = policy.caches(model, batch=len(texts[0])).until(np.max(texts[1], axis=1))
    found = []
    for piece in pieces(texts, sizes):
        hidden, caches = stepping(model)(parameters(model), caches, *piece)
        found.append(hidden)
    return np.concatenate(found, axis=1)


@pytest.mark.parametrize('group', KINDS)
def test_every_position_method_works_through_a_cache(group):
    names = [f'k{i}' for i in range(len(KINDS[group]))]
    kinds = {name: LayerKind(position=Options(p)) for name, p in zip(names, KINDS[group])}
    model = changed(layers=len(names), pattern=tuple(names), kinds=kinds, heads=4, kv_heads=2)
    batch = random_batch()
    texts = batch.tokens, batch.positions, batch.segments
    if group == 'between tokens':
        texts = batch.tokens, (batch.positions * 2.5 + 0.25).astype(np.float32), batch.segments
    expected = whole(model)(parameters(model), *texts)
    np.testing.assert_allclose(through_cache(model, texts), expected, atol=2e-5)


def test_every_position_method_is_in_a_group():
    assert {p['name'] for group in KINDS.values() for p in group} == set(POSITIONS)


def test_regions_and_cope_work_through_a_cache():
    kinds = {f'k{i}': LayerKind(regions=Options(r)) for i, r in enumerate(REGIONS)}
    kinds['cope'] = LayerKind(mixer=Options(name='cope', positions=6), position=Options(name='none'))
    model = changed(layers=len(kinds), pattern=tuple(kinds), kinds=kinds)
    batch = random_batch()
    texts = batch.tokens, batch.positions, batch.segments
    expected = whole(model)(parameters(model), *texts)
    np.testing.assert_allclose(through_cache(model, texts), expected, atol=2e-5)


def test_packed_documents_stay_apart_in_a_cache():
    batch = packed_batch()
    texts = batch.tokens, batch.positions, batch.segments
    expected = whole(HYBRID)(parameters(HYBRID), *texts)
    real = batch.segments > 0
    np.testing.assert_allclose(through_cache(HYBRID, texts)[real], expected[real], atol=2e-5)


def test_layers_keep_what_they_can_read():
    room = Room(prompt=1000, new=24, chunk=16)
    policy = make_policy({'name': 'full'}, room)
    caches = policy.caches(HYBRID, batch=1)
    full, local = (cache.store for cache in caches.layers)
    assert full == Ring(1024)
    assert local == Ring(6 + 2 * 16)
    streaming = make_policy({'name': 'streaming', 'window': 20, 'sinks': 4}, room)
    full, local = (cache.store for cache in streaming.caches(streaming.model(HYBRID), batch=1).layers)
    assert full == Ring(20 + 2 * 16, first=4)
    assert local == Ring(6 + 2 * 16)


class TestErrors:
    ROOM = Room(prompt=100, new=20, chunk=16)

    def test_a_prompt_longer_than_the_cache(self):
        with pytest.raises(
            ConfigError, match=r'cache\.tokens: 64 cannot hold .* 100 and 20 .* give 120, .* streaming'
        ):
            make_policy({'name': 'full', 'tokens': 64}, self.ROOM)

    def test_unknown_policy(self):
        with pytest.raises(ConfigError, match=r"cache\.name: unknown 'streeming'\. Did you mean 'streaming'"):
            make_policy({'name': 'streeming'}, self.ROOM)

    @pytest.mark.parametrize('field, least', [('window', 1), ('sinks', 0)])
    def test_window_and_sinks(self, field, least):
        with pytest.raises(ConfigError, match=rf'cache\.{field}: {least - 1} must be at least {least}'):
            make_policy({'name': 'streaming', field: least - 1}, self.ROOM)

    def test_regions_beside_streaming(self):
        model = changed(kinds={'full': LayerKind(regions=Options(REGIONS[0]))})
        with pytest.raises(ConfigError, match="regions of its own, beside 'self_extend' of 'full'"):
            make_policy({'name': 'streaming'}, self.ROOM).model(model)


def test_a_cache_is_a_pytree_whose_store_is_static():
    cache = make_policy({'name': 'full'}, TestErrors.ROOM).caches(HYBRID, batch=1).layers[0]
    assert isinstance(cache, Cache)
    assert hash(cache.store) == hash(Ring(120))
