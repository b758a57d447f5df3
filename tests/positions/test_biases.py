"""Every bias keeps the contract; ALiBi and T5 equal the goldens of Hugging Face transformers."""

import json
import math
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lcx.config import make
from lcx.errors import ConfigError
from lcx.launch.methods import EXAMPLES
from lcx.positions import POSITIONS, alibi, kerple, t5
from lcx.types import Where
from tests.contracts.bias_contract import BiasContract, N, Row, where
from tests.contracts.method_contract import LISTS
from tests.contracts.position_contract import CONTEXT

PATH = pathlib.Path(__file__).parents[2] / 'third_party' / 'biases' / 'goldens.json'
GOLDENS = json.loads(PATH.read_text())
HEAD = np.arange(1, N + 1)[:, None, None]


def linear(params, q, k):
    return -np.array([2.0**-4, 2.0**-8, 2.0**-2])[:, None, None] * (q - k)


def shifted(params, q, k):
    return linear(params, q - 0.5 * (k < q), k)


def bucketed(params, q, k):
    def bucket(d):
        d = math.floor(max(d, 0))
        return d if d < 4 else min(7, 4 + math.floor(4 * math.log(d / 4) / math.log(50 / 4)))

    return params['table'][np.vectorize(bucket)(q - k)].transpose(2, 0, 1)


def softplus(x):
    return np.logaddexp(0, x)[:, None, None]


def logarithm(params, q, k):
    return -softplus(params['slope']) * np.log(1 + softplus(params['rate']) * abs(q - k))


def power(params, q, k):
    return -softplus(params['slope']) * abs(q - k) ** (2 / (1 + np.exp(-params['exponent'][:, None, None])))


def functional(threshold):
    def formula(params, q, k):
        def phi(x):
            return np.log(abs(params['rate']) * x + 1)

        x = phi(abs(q - k)) / (phi(np.maximum(abs(params['threshold']) * threshold, q)) + 1e-6)
        units = np.maximum(x[..., None] * params['first']['kernel'] + params['first']['bias'], 0)
        return (units @ params['second']['kernel']).transpose(2, 0, 1)

    return formula


def sinusoids(dims, theta):
    def formula(params, q, k):
        waves = np.cos((q - k)[..., None] * theta ** (-2 * np.arange(dims // 2) / dims))
        return (waves.sum(axis=-1) - dims / 2) / (HEAD * 8 / N)

    return formula


class TestContract(BiasContract):
    rows = [
        Row('alibi', linear, learned=False),
        Row('alibi', shifted, {'shift': 0.5}, learned=False),
        Row('t5', bucketed, {'num_buckets': 8, 'max_distance': 50}),
        Row('kerple', logarithm),
        Row('kerple', power, {'kernel': 'power'}),
        Row('fire', functional(12.0), {'threshold': 12.0, 'hidden': 8}, relative=False),
        Row('sandwich', sinusoids(128, 1e4), learned=False, atol=1e-3),
        Row('sandwich', sinusoids(16, 100.0), {'dims': 16, 'theta': 100.0}, learned=False, atol=2e-4),
    ]


def test_every_bias_has_a_row():
    given = {**EXAMPLES, 'longrope': LISTS}
    made = {n: make(POSITIONS, {'name': n, **given.get(n, {})}, 'p', **CONTEXT) for n in POSITIONS}
    assert {name for name, position in made.items() if position.bias} == {
        row.name for row in TestContract.rows
    }


@pytest.mark.parametrize('golden', GOLDENS['alibi'], ids=lambda golden: str(golden['heads']))
def test_slopes_of_alibi(golden):
    np.testing.assert_allclose(alibi.slopes(golden['heads']), golden['slopes'], rtol=1e-6)


@pytest.mark.parametrize(
    'golden', GOLDENS['t5_buckets'], ids=lambda golden: f'{golden["num_buckets"]}-{golden["max_distance"]}'
)
def test_buckets_of_t5(golden):
    found = t5.buckets(golden['num_buckets'], golden['max_distance'])
    distances = np.arange(-2, golden['max_distance'] + 50)
    np.testing.assert_array_equal(found[np.clip(distances, 0, len(found) - 1)], golden['buckets'])


@pytest.mark.parametrize(('name', 'both'), [('t5_bias', False), ('t5_bias_encoder', True)])
def test_bias_of_t5(name, both):
    golden = GOLDENS[name]
    sizes = {name: golden[name] for name in ('num_buckets', 'max_distance', 'heads')}
    table = np.array(golden['table'], np.float32).reshape(golden['num_buckets'], golden['heads'])
    tokens = Where.plain(1, golden['tokens'], golden['tokens'], golden['heads'])
    found = t5.t5(**sizes, width=32, bidirectional=both).bias({'table': table}, tokens)
    np.testing.assert_array_equal(np.ravel(found), np.array(golden['bias'], np.float32))


def test_alibi_is_symmetric_but_for_its_shift():
    """Keys ahead are as far as they are; those behind are nearer by the shift."""
    positions = where(np.arange(6)[None])
    plain, shifted = (alibi.alibi(heads=N, shift=s).bias({}, positions)[0, 0] * -(2**4) for s in (0.0, 0.5))
    np.testing.assert_array_equal(plain, plain.T)
    np.testing.assert_array_equal(shifted[0], np.arange(6))
    np.testing.assert_array_equal(shifted[3], [2.5, 1.5, 0.5, 0, 1, 2])


def test_t5_of_both_sides_at_large_distances():
    """Buckets of an encoder reach max_distance to either side, and beyond it share the last."""
    position = t5.t5(heads=1, width=4, num_buckets=8, max_distance=20, bidirectional=True)
    far, one = np.array([[0, 20, 500]]), np.ones((1, 3), np.int32)
    found = position.bias({'table': jnp.arange(8.0)[:, None]}, Where.self_attention(far, one, heads=1))[0, 0]
    np.testing.assert_array_equal(found, [[0, 7, 7], [3, 0, 7], [3, 3, 0]])


def test_kerple_power_of_one_is_alibi():
    slopes = jnp.asarray(alibi.slopes(N), jnp.float32)
    params = {'slope': kerple.softplus_inverse(slopes), 'exponent': jnp.zeros(N)}
    positions = np.arange(2000)[None, ::50]
    found = kerple.kerple(heads=N, kernel='power').bias(params, where(positions))
    np.testing.assert_allclose(found, alibi.alibi(heads=N).bias({}, where(positions)), rtol=1e-5)


@pytest.mark.parametrize(
    ('kernel', 'expected'),
    [
        ('log', {'slope': (0.02, 2), 'rate': (0.01, 1)}),
        ('power', {'slope': (0.01, 1), 'exponent': (0.02, 2)}),
    ],
)
def test_kerple_starts_in_the_papers_ranges(kernel, expected):
    params = kerple.kerple(heads=4000, kernel=kernel).init(jax.random.key(0))
    for name, (low, high) in expected.items():
        value = 2 * jax.nn.sigmoid(params[name]) if name == 'exponent' else jax.nn.softplus(params[name])
        assert np.min(value) >= 0.99 * low and np.max(value) <= 1.01 * high
        np.testing.assert_allclose(np.mean(value), (low + high) / 2, rtol=0.03)


def test_fire_depends_on_the_distance_alone_below_its_threshold():
    position = make(POSITIONS, {'name': 'fire'}, 'p', **CONTEXT)
    params = position.init(jax.random.key(0))
    near, moved = (position.bias(params, where(np.arange(20)[None] + shift)) for shift in (0, 480))
    np.testing.assert_allclose(near, moved, atol=1e-6)


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        ({'name': 't5', 'num_buckets': 7}, 'num_buckets: 7 must be even'),
        (
            {'name': 't5', 'num_buckets': 6, 'bidirectional': True},
            'num_buckets: 6 must be a multiple of 4 with bidirectional',
        ),
        ({'name': 'alibi', 'shift': 1.0}, 'shift: 1.0 must be at least 0 and below 1'),
        ({'name': 't5', 'max_distance': 16}, 'max_distance: 16 must be greater than half of num_buckets, 16'),
        ({'name': 'kerple', 'kernel': 'lug'}, "kernel: unknown 'lug'. Did you mean 'log'?"),
        ({'name': 'fire', 'threshold': 0.0}, 'threshold: 0.0'),
        ({'name': 'fire', 'hidden': 0}, 'hidden: 0'),
        ({'name': 'sandwich', 'dims': 3}, 'dims: 3 must be even'),
        ({'name': 'sandwich', 'theta': 1.0}, 'theta: 1.0'),
        ({'name': 'alibi', 'theta': 1.0}, "theta (of 'alibi')"),
    ],
)
def test_errors_name_the_field_and_the_value(options, message):
    with pytest.raises(ConfigError) as caught:
        make(POSITIONS, options, 'model.position', **CONTEXT)
    assert str(caught.value).startswith(f'model.position.{message}')
