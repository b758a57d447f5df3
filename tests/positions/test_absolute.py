"""Embeddings of positions that are added to those of the tokens: closed forms, extension, the whole model."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lcx.config import make
from lcx.errors import ConfigError
from lcx.launch.methods import EXAMPLES
from lcx.positions import POSITIONS
from tests.contracts.method_contract import LISTS
from tests.contracts.position_contract import CONTEXT
from tests.models.tiny import CONFIG, changed, close, gradient, packed_batch, parameters, separate_batch

WIDTH, TRAINED = CONTEXT['width'], CONTEXT['trained_length']


def method(name, context=CONTEXT, **options):
    return make(POSITIONS, {'name': name, **options}, 'model.position', **context)


@pytest.mark.parametrize('theta', [1e4, 100.0])
@pytest.mark.parametrize('last', [63, 2**17, 2**20])
def test_sinusoidal_is_the_papers_formula(theta, last):
    pos = np.arange(last - 9, last + 1)
    found = method('sinusoidal', theta=theta, scale=1.0).embed({}, jnp.array(pos)[None])
    angle = pos[:, None] / theta ** (2 * np.arange(WIDTH // 2) / WIDTH)
    assert found.shape == (1, 10, WIDTH) and found.dtype == jnp.float32
    np.testing.assert_allclose(found[0, :, 0::2], np.sin(angle), atol=1e-5)
    np.testing.assert_allclose(found[0, :, 1::2], np.cos(angle), atol=1e-5)


def test_sinusoidal_between_the_tokens_is_the_formula():
    pos = np.float32([[0.25, 7.875, 2**17 + 0.5]])
    found = method('sinusoidal', scale=1.0).embed({}, jnp.array(pos))
    angle = np.float64(pos)[..., None] / 1e4 ** (2 * np.arange(WIDTH // 2) / WIDTH)
    np.testing.assert_allclose(found[..., 0::2], np.sin(angle), atol=1e-5)
    np.testing.assert_allclose(found[..., 1::2], np.cos(angle), atol=1e-5)


def test_learned_between_the_tokens_is_between_the_rows():
    position = method('learned', factor=1.0)
    params = position.init(jax.random.key(0))
    found = position.embed(params, jnp.array([[0.25, 7.875, 2.0]]))[0]
    table = np.float64(params['table'])
    expected = [0.75 * table[0] + 0.25 * table[1], 0.125 * table[7] + 0.875 * table[8], table[2]]
    np.testing.assert_allclose(found, expected, atol=1e-7)


def test_a_table_may_have_more_rows_than_any_text_has_tokens():
    position = method('learned', original_length=1000)
    assert jax.eval_shape(position.init, jax.random.key(0))['table'].shape == (1000, WIDTH)
    model = changed(position={'name': 'learned', 'original_length': 1000}).trained_at(96)
    assert model.position == {'name': 'learned', 'factor': 1.0, 'original_length': 1000}


def test_every_method_that_embeds_is_tested():
    given = {**EXAMPLES, 'longrope': LISTS}
    made = {n: method(n, **given.get(n, {})) for n in POSITIONS}
    found = {name for name, position in made.items() if position.embed and not position.remap}
    assert found == {'sinusoidal', 'learned'}


def test_sinusoidal_weighs_as_much_against_the_tokens_as_in_the_paper():
    tokens = parameters(CONFIG)['embedding'] * CONFIG.width**0.5  # as there
    pos = jnp.arange(CONFIG.vocab)[None]
    there, here = (
        method('sinusoidal', {'width': CONFIG.width}, **o).embed({}, pos)[0] for o in ({'scale': 1.0}, {})
    )
    expected = np.std(there) / np.std(tokens)
    np.testing.assert_allclose(np.std(here) / np.std(parameters(CONFIG)['embedding']), expected, rtol=1e-5)


def test_learned_reads_the_row_of_the_position():
    position = method('learned', factor=1.0)
    params = position.init(jax.random.key(0))
    assert params['table'].shape == (TRAINED, WIDTH)
    np.testing.assert_allclose(np.std(params['table']), 0.02, rtol=0.05)
    pos = jnp.array([[5, 0, TRAINED - 1], [7, 7, 1]])
    np.testing.assert_array_equal(position.embed(params, pos), params['table'][pos])


@pytest.mark.parametrize('factor', [None, 2.0, 2.5, 4.0])  # None: length / trained_length = 4
def test_learned_interpolates_between_rows_when_extended(factor):
    position = method('learned', **({} if factor is None else {'factor': factor}))
    params, pos = position.init(jax.random.key(0)), np.arange(CONTEXT['length'])
    assert params['table'].shape == (TRAINED, WIDTH)
    found = position.embed(params, jnp.array(pos)[None])[0]
    rows = np.arange(TRAINED)
    for d in range(0, WIDTH, 7):
        column = np.interp(pos / (factor or 4.0), rows, np.float64(params['table'][:, d]))
        np.testing.assert_allclose(found[:, d], column, atol=1e-6)


def test_learned_beyond_the_table_is_its_last_row():
    position = method('learned', factor=1.0)
    params = position.init(jax.random.key(0))
    found = position.embed(params, jnp.array([[TRAINED, 2**20]]))
    np.testing.assert_array_equal(found[0], np.stack([params['table'][-1]] * 2))


def test_the_table_keeps_its_rows_in_later_stages_and_at_other_lengths():
    model = changed(position={'name': 'learned'}, trained_length=24).trained_at(96)
    assert model.position == {'name': 'learned', 'factor': 4.0, 'original_length': 24}
    for length in (24, 96, 400):
        shape = jax.eval_shape(model.read_position('full', length).init, jax.random.key(0))['table'].shape
        assert shape == (24, CONFIG.width)


@pytest.mark.parametrize('name', ['sinusoidal', 'learned'])
def test_the_model_adds_it_to_every_document_alike(name):
    config = changed(position={'name': name})
    params, run = parameters(config), gradient(config)
    packed, separate = (run(params, batch) for batch in (packed_batch(), separate_batch()))
    close(packed, separate, atol=3e-5)
    plain = gradient(changed(position={'name': 'none'}))(
        {k: v for k, v in params.items() if 'position' not in k}, packed_batch()
    )
    assert abs(packed[0] - plain[0]) > 1e-2
    if name == 'learned':
        table = packed[1]['position_full']['table']
        assert np.any(table[:7]) and not np.any(table[11:])  # the longest document has 11 tokens


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        ({'name': 'sinusoidal', 'theta': 1.0}, 'model.position.theta: 1.0'),
        ({'name': 'sinusoidal', 'scale': 0.0}, 'model.position.scale: 0.0'),
        ({'name': 'learned', 'factor': 0.5}, 'model.position.factor: 0.5'),
        ({'name': 'learned', 'original_length': 0}, 'model.position.original_length: 0'),
    ],
)
def test_errors_name_the_field_and_the_value(options, message):
    with pytest.raises(ConfigError) as caught:
        make(POSITIONS, options, 'model.position', **CONTEXT)
    assert str(caught.value).startswith(message)


def test_sinusoidal_needs_an_even_width():
    with pytest.raises(ConfigError, match='width: 33 must be even'):
        dataclasses.replace(CONFIG, width=33, position={'name': 'sinusoidal'})
