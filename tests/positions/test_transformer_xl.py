"""Transformer-XL's attention: frozen numbers of XLNet's, the paper's formula at any positions, layers of their own."""

import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lcx.attention import ATTENTION, causal, same_segment
from lcx.config import Options, make
from lcx.errors import ConfigError
from lcx.models import LayerKind
from lcx.positions import POSITIONS
from lcx.types import Where
from tests.contracts.position_contract import CONTEXT, drawn
from tests.models.tiny import changed, parameters, random_batch, whole_logits

GOLDENS = np.load(pathlib.Path(__file__).parents[2] / 'third_party' / 'transformer_xl' / 'goldens.npz')


def method(**options):
    return make(POSITIONS, {'name': 'transformer_xl', **options}, 'model.position', **CONTEXT)


@pytest.mark.parametrize('attention', ['dense', 'blockwise'])
@pytest.mark.parametrize(('kind', 'rule'), [('bi', same_segment), ('uni', causal)])
def test_it_is_the_attention_of_xlnet_with_its_gradients(attention, kind, rule):
    q, k, v, weights = (GOLDENS[name][None] for name in ('q', 'k', 'v', 'weights'))
    tokens, keys = q.shape[1], k.shape[1]
    sizes = {'head_dim': q.shape[-1], 'heads': q.shape[2], 'width': GOLDENS['r'].shape[0]}
    position = make(POSITIONS, {'name': 'transformer_xl'}, 'p', length=keys, trained_length=keys, **sizes)
    given = {
        'content_bias': GOLDENS['r_w_bias'],
        'distance_bias': GOLDENS['r_r_bias'],
        'matrix': GOLDENS['r'].transpose(1, 2, 0),
    }
    assert jax.tree.map(jnp.shape, jax.eval_shape(position.init, jax.random.key(0))) == jax.tree.map(
        jnp.shape, given
    )
    pos = jnp.arange(keys)[None]
    here = Where(pos[:, -tokens:], pos, jnp.ones((1, tokens), int), jnp.ones((1, keys), int), jnp.arange(3))

    def loss(params, q, k, v):
        wide = position.query(params, q, here.q_pos), position.key(params, k, here.k_pos)
        out = ATTENTION[attention](*wide, v, here, rule, scale=q.shape[-1] ** -0.5)
        return jnp.sum(out * weights), out

    (slopes, *others), out = jax.jit(jax.grad(loss, argnums=(0, 1, 2, 3), has_aux=True))(given, q, k, v)
    np.testing.assert_allclose(out[0], GOLDENS[f'{kind}/out'], atol=2e-6)
    for name, found in zip('qkv', others):
        np.testing.assert_allclose(found[0], GOLDENS[f'{kind}/d_{name}'], atol=5e-6)
    np.testing.assert_allclose(slopes['content_bias'], GOLDENS[f'{kind}/d_r_w_bias'], atol=5e-6)
    np.testing.assert_allclose(slopes['distance_bias'], GOLDENS[f'{kind}/d_r_r_bias'], atol=5e-6)
    np.testing.assert_allclose(slopes['matrix'].transpose(2, 0, 1), GOLDENS[f'{kind}/d_r'], atol=5e-6)


@pytest.mark.parametrize('far', [10, 2**20])
def test_scores_are_those_of_the_paper_at_any_positions(far):
    position, h = method(dims=12, theta=100.0), CONTEXT['head_dim']
    params, random = drawn(position), np.random.default_rng(0)
    q, k = random.normal(size=(2, 1, 9, 3, h)).astype(np.float32)
    q_pos, k_pos = random.integers(-far, far, (2, 1, 9)).astype(np.int32)
    wide = position.query(params, q, q_pos), position.key(params, k, k_pos)
    assert [x.shape for x in wide] == [(1, 9, 3, h + 12)] * 2
    found = np.einsum('BTNE,BSNE->NTS', *map(np.float64, wide))

    turns = (q_pos[0][:, None] - k_pos[0])[..., None] * 100.0 ** (-np.arange(0, 12, 2) / 12)
    sinusoids = np.concatenate([np.sin(turns), np.cos(turns)], axis=-1)
    u, w, matrix = (np.float64(params[name]) for name in ('content_bias', 'distance_bias', 'matrix'))
    distances = np.einsum('NHC,TSC->TSNH', matrix, sinusoids)
    content = np.einsum('TNH,SNH->NTS', q[0] + u, k[0])
    expected = content + np.einsum('TNH,TSNH->NTS', q[0] + w, distances)
    np.testing.assert_allclose(found, expected, atol=1e-4)


def test_each_layer_has_parameters_of_its_own():
    model = changed(layers=2, position=Options(name='transformer_xl'))
    params = parameters(model)
    assert 'position_full' not in params
    own = params['layers']['full_0']['mixer']['position']
    assert own['matrix'].shape == (2, model.heads, model.head_dim, model.width)

    tokens = random_batch().tokens
    before = whole_logits(model, params, tokens)
    for layer in range(2):
        other = jax.tree.map(np.array, params)
        other['layers']['full_0']['mixer']['position']['matrix'][layer] *= 2
        assert np.abs(whole_logits(model, other, tokens) - before).max() > 1e-3


def test_bfloat16_is_close():
    kinds = {'full': LayerKind(position=Options(name='transformer_xl'))}
    exact, rounded = (changed(kinds=kinds, dtype=dtype) for dtype in ('float32', 'bfloat16'))
    tokens, params = random_batch().tokens, parameters(exact)
    assert np.abs(whole_logits(exact, params, tokens) - whole_logits(rounded, params, tokens)).max() < 0.1


@pytest.mark.parametrize(
    ('options', 'words'), [({'dims': 3}, 'dims: 3 must be even'), ({'theta': 1.0}, 'theta: 1.0')]
)
def test_options_that_cannot_be(options, words):
    with pytest.raises(ConfigError, match=words):
        method(**options)
