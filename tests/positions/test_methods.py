"""Every registered method keeps the contract, its closed form and its error messages."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lcx.config import make
from lcx.errors import ConfigError
from lcx.positions import POSITIONS, dynamic_ntk, ntk, pi, rope, yarn
from lcx.positions.extension import stretch
from tests.contracts.position_contract import CONTEXT, HEAD_DIM, TRAINED, PositionContract, Row

THETA = 10000.0
SHARE = yarn.ramp(HEAD_DIM, THETA, TRAINED, 32.0, 1.0, True)


def at_length(tokens):
    return dynamic_ntk.frequencies(HEAD_DIM, THETA, 2.0, TRAINED, jnp.full((1, 1, 1), tokens))


class TestContract(PositionContract):
    rows = [
        Row('none', base='none'),
        Row('rope', frequencies=lambda _: rope.frequencies(HEAD_DIM, THETA)),
        Row(
            'pi', {'factor': 4.0}, {'factor': 1.0}, frequencies=lambda _: pi.frequencies(HEAD_DIM, THETA, 4.0)
        ),
        Row(
            'ntk',
            {'factor': 4.0},
            {'factor': 1.0},
            frequencies=lambda _: ntk.frequencies(HEAD_DIM, THETA, 4.0),
        ),
        Row('dynamic_ntk', {'factor': 2.0}, frequencies=at_length, static=False, detuning=2**-22),
        Row(
            'yarn',
            {'factor': 4.0},
            {'factor': 1.0},
            frequencies=lambda _: yarn.frequencies(HEAD_DIM, THETA, 4.0, SHARE, 0.1 * np.log(4.0) + 1),
        ),
    ]


def test_every_method_has_a_row():
    assert {row.name for row in TestContract.rows} == set(POSITIONS)


def test_ntk_interpolates_the_slowest_pair_and_keeps_the_fastest():
    base, scaled = rope.frequencies(64, THETA).inv_freq, ntk.frequencies(64, THETA, 8.0).inv_freq
    np.testing.assert_allclose(scaled[[0, -1]], [base[0], base[-1] / 8], rtol=1e-12)


def test_yarn_keeps_fast_pairs_and_interpolates_slow_ones():
    base = rope.frequencies(128, THETA).inv_freq
    turns = base * 4096 / (2 * np.pi)
    share = yarn.ramp(128, THETA, 4096, 32.0, 1.0, truncate=False)
    assert np.all(share[turns > 32] == 0) and np.all(share[turns < 1] == 1)
    assert np.all(np.diff(share) >= 0)


def test_interleaved_is_half_split_of_permuted_vectors():
    x = jax.random.normal(jax.random.key(0), (1, 5, 2, 16))
    pos = jnp.array([[0, 3, 1, 700, 2**20]])
    order = np.arange(16).reshape(8, 2).T.reshape(-1)  # 0 2 4 ... 1 3 5 ...
    half = make(POSITIONS, {'name': 'rope'}, 'p', head_dim=16).query({}, x[..., order], pos)
    interleaved = make(POSITIONS, {'name': 'rope', 'interleaved': True}, 'p', head_dim=16).query({}, x, pos)
    np.testing.assert_allclose(interleaved[..., order], half, atol=1e-6)


@pytest.mark.parametrize('theta', [1e4, 5e5, 5e7])
@pytest.mark.parametrize('last', [2**17, 2**20, 2**31 - 1, -(2**31) + 9, -3])
def test_angles_of_every_int32_position_agree_with_float64(theta, last):
    pos = np.arange(last - 9, last + 1, dtype=np.int64)
    made = rope.frequencies(128, theta)
    cos, sin = rope.cos_sin(jnp.array(pos.astype(np.int32))[None], made)
    angle = pos[:, None] * made.inv_freq
    np.testing.assert_allclose(cos[0], np.cos(angle), atol=1e-5)
    np.testing.assert_allclose(sin[0], np.sin(angle), atol=1e-5)


@pytest.mark.parametrize(
    ('given', 'length', 'found'),
    [
        ((None, None), 512, (4.0, 128)),
        ((None, None), 64, (1.0, 128)),
        ((None, 64), 512, (8.0, 64)),
        ((2.0, None), 512, (2.0, 128)),
    ],
)
def test_factor_and_original_length_follow_from_the_lengths(given, length, found):
    assert stretch(*given, length=length, trained_length=128) == found


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        ({'name': 'rope', 'theta': 0.0}, 'theta: 0.0'),
        ({'name': 'rope', 'theta': float('nan')}, 'theta: nan'),
        ({'name': 'pi', 'factor': 0.5}, 'factor: 0.5'),
        ({'name': 'ntk', 'factor': float('inf')}, 'factor: inf'),
        ({'name': 'yarn', 'original_length': 0}, 'original_length: 0'),
        ({'name': 'dynamic_ntk', 'factor': 0.0}, 'factor: 0.0'),
        ({'name': 'yarn', 'beta_fast': 1.0}, 'beta_fast: 1.0'),
        ({'name': 'yarn', 'beta_slow': -1.0}, 'beta_fast: 32.0'),
        ({'name': 'yarn', 'mscale': 1.0}, 'mscale: 1.0'),
        ({'name': 'yarn', 'attention_factor': 0.0}, 'attention_factor: 0.0'),
        ({'name': 'yarn', 'beta': 1.0}, "beta (of 'yarn')"),
        ({'name': 'rope', 'factor': 2.0}, "factor (of 'rope')"),
        ({'name': 'yarm'}, 'name: unknown'),
    ],
)
def test_errors_name_the_field_and_the_value(options, message):
    with pytest.raises(ConfigError) as caught:
        make(POSITIONS, options, 'model.position', **CONTEXT)
    assert str(caught.value).startswith(f'model.position.{message}')


@pytest.mark.parametrize('name', sorted(set(POSITIONS) - {'none'}))
@pytest.mark.parametrize('head_dim', [0, 15])
def test_head_size_must_be_even(name, head_dim):
    with pytest.raises(ConfigError, match=rf'head_dim: {head_dim}'):
        make(POSITIONS, {'name': name}, 'position', **{**CONTEXT, 'head_dim': head_dim})


@pytest.mark.parametrize('name', ['ntk', 'dynamic_ntk'])
def test_ntk_needs_two_pairs(name):
    with pytest.raises(ConfigError, match=r'head_dim: 2'):
        make(POSITIONS, {'name': name}, 'position', **{**CONTEXT, 'head_dim': 2})
