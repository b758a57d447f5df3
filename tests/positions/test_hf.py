"""The RoPE family against goldens of Hugging Face transformers, and its spelling there and back."""

import json
import pathlib

import jax.numpy as jnp
import numpy as np
import pytest

from lcx.config import make
from lcx.errors import ConfigError
from lcx.positions import POSITIONS, dynamic_ntk, pi, rope, yarn
from lcx.positions.hf import from_hf, to_hf

PATH = pathlib.Path(__file__).parents[2] / 'third_party' / 'rope' / 'goldens.json'
GOLDENS = json.loads(PATH.read_text())
CONTEXT = {'head_dim': 64, 'length': 512, 'trained_length': 128}


def spell(golden):
    extra = [f'{k}={v}' for k, v in golden['rope_parameters'].items() if k != 'rope_type']
    return '-'.join([golden['rope_parameters']['rope_type'], str(golden['head_dim']), *extra])


def load(golden):
    limit = golden['max_position_embeddings']
    return from_hf(golden['rope_parameters'], head_dim=golden['head_dim'], max_position_embeddings=limit)


def turned_about_a_radian(golden):
    """cos and sin 'H/2' where each pair turns by about one radian, and the golden's angles there."""
    inv_freq = np.array(golden['inv_freq'])
    pos = np.minimum(np.rint(1 / inv_freq), (golden['tokens'] or 2**20) - 1).astype(np.int32)
    row = pos if golden['tokens'] is None else np.append(pos, golden['tokens'] - 1)
    cos, sin = load(golden).tables({}, jnp.array(row)[None])
    pairs = np.arange(len(pos))
    return cos[0, pairs, pairs], sin[0, pairs, pairs], pos * inv_freq


@pytest.mark.parametrize('golden', GOLDENS['frequencies'], ids=spell)
def test_frequencies_and_scale(golden):
    cos, sin, angle = turned_about_a_radian(golden)
    np.testing.assert_allclose(cos, golden['attention_factor'] * np.cos(angle), atol=5e-6)
    np.testing.assert_allclose(sin, golden['attention_factor'] * np.sin(angle), atol=5e-6)
    np.testing.assert_allclose(np.hypot(cos, sin), golden['attention_factor'], rtol=1e-6)


def yarn_frequencies(head_dim, theta, limit, given):
    original, factor = given['original_max_position_embeddings'], given['factor']
    factor = limit / original if factor is None else factor
    beta = given.get('beta_fast', 32.0), given.get('beta_slow', 1.0)
    share = yarn.ramp(head_dim, theta, original, *beta, given.get('truncate', True))
    return yarn.frequencies(head_dim, theta, factor, share, 1.0)


PURE = {
    'default': lambda h, theta, limit, given, tokens: rope.frequencies(h, theta),
    'linear': lambda h, theta, limit, given, tokens: pi.frequencies(h, theta, given['factor']),
    'dynamic': lambda h, theta, limit, given, tokens: dynamic_ntk.frequencies(
        h, theta, given['factor'], limit, jnp.full((1, 1, 1), tokens)
    ),
    'yarn': lambda h, theta, limit, given, tokens: yarn_frequencies(h, theta, limit, given),
}


@pytest.mark.parametrize('golden', GOLDENS['frequencies'], ids=spell)
def test_pure_frequencies(golden):
    given, limit = golden['rope_parameters'], golden['max_position_embeddings']
    pure = PURE[given['rope_type']]
    found = pure(golden['head_dim'], given['rope_theta'], limit, given, golden['tokens']).inv_freq
    np.testing.assert_allclose(np.ravel(found), golden['inv_freq'], rtol=1e-6)


@pytest.mark.parametrize('golden', GOLDENS['rotations'], ids=spell)
def test_rotated_queries(golden):
    pos = jnp.array([GOLDENS['positions']])
    shape = (1, pos.size, 2, golden['head_dim'])
    query, turned = (jnp.array(golden[name]).reshape(shape) for name in ('query', 'turned'))
    cos, sin = (
        np.array(golden[name]).reshape(1, pos.size, -1)[..., : shape[-1] // 2] for name in ('cos', 'sin')
    )
    position = load(golden)
    # Transformers rounds the frequency and the angle to fp32: an error that grows with the position.
    bound = (1e-6 + 3e-7 * pos)[..., None]
    tables = position.tables({}, pos)
    assert np.all(abs(tables[0] - cos) < bound) and np.all(abs(tables[1] - sin) < bound)
    for rotate in (position.query, position.key):
        assert np.all(abs(rotate({}, query, pos) - turned) < 5 * bound[..., None])


def test_transformers_4_spelling_is_the_same():
    new = {'rope_type': 'linear', 'factor': 4.0, 'rope_theta': 5e5}
    old = {'type': 'linear', 'factor': 4.0, 'attention_factor': None}
    sizes = {'head_dim': 64, 'max_position_embeddings': 2048}
    pos = jnp.arange(99)[None]
    found = from_hf({**old, 'rope_theta': 5e5}, **sizes).tables({}, pos)
    np.testing.assert_array_equal(found, from_hf(new, **sizes).tables({}, pos))


@pytest.mark.parametrize(
    'options',
    [
        {'name': 'rope', 'theta': 5e5},
        {'name': 'pi', 'factor': 3.0},
        {'name': 'pi'},
        {'name': 'ntk', 'factor': 3.0},
        {'name': 'dynamic_ntk', 'factor': 2.0},
        {'name': 'dynamic_ntk'},
        {'name': 'yarn'},
        {'name': 'yarn', 'original_length': 32, 'theta': 5e5, 'truncate': False},
        {'name': 'yarn', 'factor': 8.0, 'mscale': 1.0, 'mscale_all_dim': 0.5, 'beta_fast': 16.0},
    ],
    ids=str,
)
def test_there_and_back(options):
    position = make(POSITIONS, options, 'position', **CONTEXT)
    spelled = to_hf(options, **CONTEXT)
    assert json.loads(json.dumps(spelled)) == spelled
    back = from_hf(spelled, head_dim=64, max_position_embeddings=CONTEXT['trained_length'])
    pos = jnp.array([[0, 1, 100, 511]])
    np.testing.assert_allclose(back.tables({}, pos), position.tables({}, pos), atol=1e-6)


@pytest.mark.parametrize(
    ('parameters', 'message'),
    [
        ({'rope_type': 'longrope', 'rope_theta': 1e4}, "rope_type: unknown 'longrope'"),
        ({'rope_type': 'yarm', 'rope_theta': 1e4}, "Did you mean 'yarn'?"),
        ({'rope_type': 'linear', 'rope_theta': 1e4}, "factor: missing; 'linear' needs it"),
        ({'rope_type': 'linear', 'rope_theta': 1e4, 'factor': None}, "factor: missing; 'linear' needs it"),
        ({'type': 'dynamic', 'factor': 2.0}, "rope_theta: missing; 'dynamic' needs it"),
        (
            {'rope_type': 'yarn', 'rope_theta': 1e4, 'factor': 2.0},
            'original_max_position_embeddings: missing',
        ),
        ({'rope_theta': 1e4, 'partial_rotary_factor': 0.5}, 'partial_rotary_factor'),
        ({'rope_theta': '1e4'}, 'rope_parameters.theta'),
    ],
)
def test_what_cannot_be_read_is_named(parameters, message):
    with pytest.raises(ValueError) as caught:
        from_hf(parameters, head_dim=64, max_position_embeddings=2048)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    'options', [{'name': 'none'}, {'name': 'rope', 'interleaved': True}, {'name': 'rop'}]
)
def test_what_cannot_be_written_is_named(options):
    with pytest.raises(ConfigError, match=r'name|interleaved'):
        to_hf(options, **CONTEXT)
