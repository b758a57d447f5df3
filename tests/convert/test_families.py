"""Every family against Hugging Face transformers: logits, gradients, and the directory there and back.

third_party/families says how the goldens were made.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lcx import convert
from lcx.convert import smollm2
from lcx.models import logits, score
from lcx.types import Batch
from tests.convert.families import (
    NAMES,
    PATH,
    below,
    config_of,
    golden,
    read,
    same_tensors,
    weights_of,
    write,
    write_golden,
)

SMOLLM2 = PATH.parents[1] / 'smollm2' / 'goldens.npz'


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


@pytest.mark.slow
def test_a_real_model_is_what_transformers_makes_of_it_and_comes_back(tmp_path):
    """SmolLM2-135M on a page of a novel; third_party/smollm2 has the numbers. Downloads 93 MB on the first run."""
    pytest.importorskip('gguf', reason='reading GGUF needs lcx[gguf]')
    directory = smollm2.fetch()
    config, params = convert.load(directory)
    with np.load(SMOLLM2) as goldens:
        ids, losses = goldens['tokens'].astype(np.int32)[None], goldens['losses']
    ones = np.ones_like(ids[:, 1:])
    batch = Batch(
        ids[:, :-1], ids[:, 1:], ones.astype(np.float32), np.cumsum(ones, 1) - 1, ones, np.zeros(1, np.int32)
    )
    found = jax.jit(functools.partial(score, config, chunk=256))(params, batch).nll[0]
    np.testing.assert_allclose(found, losses, atol=1e-3)
    convert.save(config, params, tmp_path / 'out', origin=directory)
    (back, tensors), (values, weights) = read(tmp_path / 'out'), read(directory)
    assert back == values
    same_tensors(tensors, weights)
    assert (tmp_path / 'out' / 'tokenizer.json').read_bytes() == (directory / 'tokenizer.json').read_bytes()
