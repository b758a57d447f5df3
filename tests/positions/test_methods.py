"""Every registered method keeps the contract, its closed form and its error messages."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lcx.config import make
from lcx.errors import ConfigError
from lcx.launch.methods import EXAMPLES
from lcx.positions import ABOUT, POSITIONS, dynamic_ntk, longrope, ntk, ntk_by_parts, p_rope, pi, rope, yarn
from lcx.positions.extension import stretch
from tests.contracts.position_contract import CONTEXT, HEAD_DIM, LENGTH, TRAINED, PositionContract, Row

THETA = 10000.0
SHARE = yarn.ramp(HEAD_DIM, THETA, TRAINED, 32.0, 1.0, True)


def at_length(tokens):
    return dynamic_ntk.frequencies(HEAD_DIM, THETA, 2.0, TRAINED, jnp.full((1, 1, 1), tokens))


ONES = (1.0,) * (HEAD_DIM // 2)
LISTS = {'short_factor': ONES, 'long_factor': tuple(1.0 + k for k in range(HEAD_DIM // 2))}


def by_turns(factor, fast, slow):
    share = ntk_by_parts.ramp(HEAD_DIM, THETA, TRAINED, fast, slow)
    return lambda _: yarn.frequencies(HEAD_DIM, THETA, factor, share, 1.0)


def fading(params, pos):
    """xPos: zeta_k^((p - c) / scale_base), for the row below."""
    zeta = (np.arange(HEAD_DIM // 2) / (HEAD_DIM / 2) + 0.4) / 1.4
    return zeta ** ((pos[..., None, None] - LENGTH / 2) / 2**16)


def sharper(params, pos):
    return np.maximum(1, np.log(pos[..., None, None] + 1) / np.log(TRAINED)).repeat(HEAD_DIM // 2, -1)


def scalable(params, pos):
    """SSMax: s ln n, the parameter s of each head."""
    by = np.float64(params['s']) * np.log(pos[..., None] + 1)
    return by[..., None].repeat(HEAD_DIM // 2, -1)


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
        Row('ntk_by_parts', {'factor': 4.0}, {'factor': 1.0}, frequencies=by_turns(4.0, 32.0, 1.0)),
        Row('llama3', {'factor': 4.0}, {'factor': 1.0}, frequencies=by_turns(4.0, 4.0, 1.0)),
        Row(
            'longrope',
            {**LISTS, 'factor': 4.0},
            {**LISTS, 'factor': 1.0, 'long_factor': ONES},
            frequencies=lambda _: longrope.frequencies(
                HEAD_DIM, THETA, LISTS['long_factor'], np.sqrt(1 + np.log(4.0) / np.log(TRAINED))
            ),
        ),
        Row(
            'rope',
            {'rotary_fraction': 0.5},
            frequencies=lambda _: rope.frequencies(HEAD_DIM // 2, THETA),
        ),
        Row(
            'p_rope',
            {'rotary_fraction': 0.5, 'factor': 2.0},
            {'rotary_fraction': 1.0},
            frequencies=lambda _: p_rope.frequencies(HEAD_DIM, THETA, 0.5, 2.0),
        ),
        Row(
            'xpos',
            {'scale_base': 2.0**16},
            {'scale_base': 1e12},
            frequencies=lambda _: rope.frequencies(HEAD_DIM, THETA),
            gain=fading,
        ),
        Row(
            'log_n',
            neutral={'original_length': LENGTH},
            frequencies=lambda _: rope.frequencies(HEAD_DIM, THETA),
            gain=sharper,
            relative=False,
        ),
        Row(
            'ssmax',
            neutral=None,
            frequencies=lambda _: rope.frequencies(HEAD_DIM, THETA),
            gain=scalable,
            relative=False,
        ),
    ]


ROTATING = {row.name for row in TestContract.rows if row.frequencies}


def test_every_method_that_rotates_has_a_row():
    given = {**EXAMPLES, 'longrope': LISTS}
    made = {n: make(POSITIONS, {'name': n, **given.get(n, {})}, 'p', **CONTEXT) for n in POSITIONS}
    rotating = {n for n, p in made.items() if p.query and not (p.remap or p.widens)}
    assert rotating == ROTATING


@pytest.mark.parametrize('name', ['pi', 'ntk', 'yarn', 'ntk_by_parts', 'llama3', 'dynamic_ntk', 'log_n'])
def test_an_original_length_beyond_the_text_is_used_where_something_is_to_be_done(name):
    options = {'name': name, 'original_length': 300}
    given = {} if name in ('dynamic_ntk', 'log_n') else {'factor': 2.0}
    make(POSITIONS, {**options, **given}, 'p', **CONTEXT)
    make(POSITIONS, options, 'p', **{**CONTEXT, 'length': 301})
    make(POSITIONS, options, 'p', **{**CONTEXT, 'trained_length': 300})


def test_every_method_says_what_it_is():
    assert list(ABOUT) == list(POSITIONS)
    assert all(
        row.trained in ('none', 'tune', 'scratch') and row.what and row.paper for row in ABOUT.values()
    )


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
        *(
            (
                {'name': name, 'original_length': 257, **more},
                'original_length: 257 exceeds the length in use, 256',
            )
            for name, more in (
                ('pi', {}),
                ('ntk', {}),
                ('yarn', {}),
                ('ntk_by_parts', {}),
                ('llama3', {}),
                ('longrope', LISTS),
            )
        ),
        (
            {'name': 'pose', 'target_length': 300, 'base': {'name': 'pi', 'original_length': 301}},
            'base.original_length: 301 exceeds the length in use, 300, and the trained one; give the factor too, or '
            'at most 64',
        ),
        ({'name': 'yarn', 'beta_fast': 1.0}, 'beta_fast: 1.0'),
        ({'name': 'yarn', 'beta_slow': -1.0}, 'beta_fast: 32.0'),
        ({'name': 'yarn', 'mscale': 1.0}, 'mscale: 1.0'),
        ({'name': 'yarn', 'attention_factor': 0.0}, 'attention_factor: 0.0'),
        ({'name': 'yarn', 'beta': 1.0}, "beta (of 'yarn')"),
        ({'name': 'rope', 'factor': 2.0}, "factor (of 'rope')"),
        ({'name': 'yarm'}, 'name: unknown'),
        ({'name': 'rope', 'rotary_fraction': 0.0}, 'rotary_fraction: 0.0 of 16'),
        ({'name': 'pi', 'rotary_fraction': 1.5}, 'rotary_fraction: 1.5 of 16'),
        ({'name': 'yarn', 'rotary_fraction': 0.2}, 'rotary_fraction: 0.2 of 16 elements rotates 3'),
        ({'name': 'p_rope', 'rotary_fraction': -0.1}, 'rotary_fraction: -0.1'),
        ({'name': 'p_rope', 'factor': 0.5}, 'factor: 0.5'),
        ({'name': 'ntk_by_parts', 'beta_fast': 1.0}, 'beta_fast: 1.0'),
        ({'name': 'llama3', 'high_freq_factor': 1.0}, 'high_freq_factor: 1.0'),
        ({'name': 'llama3', 'low_freq_factor': 0.0}, 'high_freq_factor: 4.0'),
        ({'name': 'longrope', **LISTS, 'long_factor': (1.0,)}, 'long_factor: 1 numbers; the 8 pairs'),
        ({'name': 'longrope', **LISTS, 'short_factor': (-1.0,) * 8}, 'short_factor: -1.0 among'),
        ({'name': 'longrope', **LISTS, 'attention_factor': -1.0}, 'attention_factor: -1.0'),
        ({'name': 'longrope', **LISTS, 'original_length': 1}, 'original_length: 1'),
        ({'name': 'longrope', 'short_factor': ONES}, "long_factor: 'longrope' needs it"),
        ({'name': 'xpos', 'scale_base': 0.0}, 'scale_base: 0.0'),
        ({'name': 'xpos', 'scale_base': 3.0}, 'scale_base: 3.0 leaves fp32 at 256 tokens; the least is 4'),
        ({'name': 'log_n', 'original_length': 1}, 'original_length: 1'),
        ({'name': 'log_n', 'base': {'name': 'yarn', 'factor': 0.5}}, 'base.factor: 0.5'),
    ],
)
def test_errors_name_the_field_and_the_value(options, message):
    with pytest.raises(ConfigError) as caught:
        make(POSITIONS, options, 'model.position', **CONTEXT)
    assert str(caught.value).startswith(f'model.position.{message}')


@pytest.mark.parametrize('name', sorted(ROTATING))
@pytest.mark.parametrize('head_dim', [0, 15])
def test_head_size_must_be_even(name, head_dim):
    options = {'name': name, **(LISTS if name == 'longrope' else {})}
    with pytest.raises(ConfigError, match=rf'head_dim: {head_dim}'):
        make(POSITIONS, options, 'position', **{**CONTEXT, 'head_dim': head_dim})


@pytest.mark.parametrize('name', ['ntk', 'dynamic_ntk'])
def test_ntk_needs_two_pairs(name):
    with pytest.raises(ConfigError, match=r'head_dim: 2'):
        make(POSITIONS, {'name': name}, 'position', **{**CONTEXT, 'head_dim': 2})
