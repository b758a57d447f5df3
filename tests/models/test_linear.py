"""The linear map and its hand-written gradient."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lcx.models.linear import Projection, linear


@pytest.mark.parametrize(
    ('inputs', 'outputs'), [((6,), (5,)), ((6,), (3, 4)), ((3, 4), (6,)), ((3, 4), (2, 5))]
)
def test_values_and_gradients_are_those_of_tensordot(inputs, outputs):
    keys = jax.random.split(jax.random.key(0), 3)
    x = jax.random.normal(keys[0], (2, 7, *inputs))
    kernel = jax.random.normal(keys[1], (*inputs, *outputs))
    dy = jax.random.normal(keys[2], (2, 7, *outputs))
    found, pull = jax.vjp(lambda x, w: linear(x, w, len(inputs), (None,) * w.ndim), x, kernel)
    expected, pull_expected = jax.vjp(lambda x, w: jnp.tensordot(x, w, axes=len(inputs)), x, kernel)
    np.testing.assert_allclose(found, expected, atol=1e-5)
    for a, b in zip(pull(dy), pull_expected(dy)):
        np.testing.assert_allclose(a, b, atol=1e-5)


def test_bfloat16_inputs_give_float32_gradients_of_the_kernel():
    x, kernel = jnp.ones((3, 301, 4), jnp.bfloat16), jnp.full((4, 2), 0.1)
    y, pull = jax.vjp(lambda x, w: linear(x, w, 1, (None,) * w.ndim), x, kernel)
    dx, dw = pull(jnp.ones_like(y))
    assert (y.dtype, dx.dtype, dw.dtype) == (jnp.bfloat16, jnp.bfloat16, jnp.float32)
    np.testing.assert_array_equal(dw, 903)  # of 903 tokens; bfloat16 has 900 and 904


def test_projection_starts_with_the_fan_in_of_the_map():
    module = Projection((8, 32), (512,), ('heads', 'head_dim', 'embed'))
    kernel = module.init(jax.random.key(0), jnp.zeros((1, 8, 32)))['params']['kernel'].value
    assert kernel.shape == (8, 32, 512)
    np.testing.assert_allclose(np.std(kernel), (8 * 32) ** -0.5, rtol=0.02)
