"""Every family against Hugging Face transformers: logits, gradients, and the directory there and back.

third_party/families says how the goldens were made.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lcx import convert
from lcx.models import logits
from tests.convert.families import (
    NAMES,
    below,
    config_of,
    golden,
    read,
    same_tensors,
    weights_of,
    write,
    write_golden,
)


@pytest.mark.parametrize('name', NAMES)
def test_logits_are_those_of_transformers(name, tmp_path):
    expected = golden(name)
    config, params = convert.load(write_golden(tmp_path, name))
    found = np.array(jax.jit(logits, static_argnums=0)(config, params, expected['tokens']))
    np.testing.assert_allclose(found, expected['logits'], atol=2e-5)
    np.testing.assert_array_equal(found.argmax(-1), expected['logits'].argmax(-1))


@pytest.mark.parametrize('name', NAMES)
def test_there_and_back_is_the_same(name, tmp_path):
    config, params = convert.load(write_golden(tmp_path / 'in', name))
    convert.save(config, params, tmp_path / 'out')
    values, tensors = read(tmp_path / 'out')
    assert values == config_of(name)
    same_tensors(tensors, weights_of(name))


@pytest.mark.parametrize('name', ['llama', 'gemma3', 'gpt_neox'])
def test_gradients_are_those_of_transformers(name, tmp_path):
    expected = golden(name)
    config, params = convert.load(write_golden(tmp_path / 'weights', name))
    tokens = expected['tokens']

    @jax.jit
    @jax.grad
    def gradient(params):
        log_p = jax.nn.log_softmax(logits(config, params, tokens)[:, :-1])
        return -jnp.mean(jnp.take_along_axis(log_p, tokens[:, 1:, None], axis=-1))

    gradients = write(tmp_path / 'gradients', config_of(name), below(expected, 'gradients'))
    _, wanted = convert.load(gradients)
    found = gradient(params)
    jax.tree.map(functools.partial(np.testing.assert_allclose, atol=1e-5), found, wanted)
    assert max(np.max(np.abs(x)) for x in jax.tree.leaves(wanted)) > 0.02
