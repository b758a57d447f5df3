"""What single methods of the RoPE family claim: their formulas in float64, fractions of positions, two bases."""

import json
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lcx.config import Options, make
from lcx.errors import ConfigError
from lcx.models import LayerKind
from lcx.positions import POSITIONS, llama3, ntk_by_parts, p_rope, rope, xpos, yarn
from lcx.positions.api import sharpened
from lcx.positions.extension import pinned
from tests.models.tiny import T, changed, parameters, random_batch, whole_logits

XPOS = json.loads((pathlib.Path(__file__).parents[2] / 'third_party' / 'rope' / 'xpos.json').read_text())[
    'goldens'
]
THETA = 10000.0
CONTEXT = {'head_dim': 64, 'length': 8192, 'trained_length': 2048, 'heads': 2, 'width': 128}


def built(name, **options):
    return make(POSITIONS, {'name': name, **options}, 'position', **CONTEXT)


def vectors(seed, tokens, heads=2, head_dim=64):
    return jax.random.normal(jax.random.key(seed), (1, tokens, heads, head_dim))


def pairs(x):
    """Half-split vectors as complex numbers, a pair each; complex128."""
    first, second = np.split(np.float64(x), 2, axis=-1)
    return first + 1j * second


# Positions between the tokens


@pytest.mark.parametrize('theta', [1e4, 5e7])
@pytest.mark.parametrize('last', [8, 2**17, 2**22])
def test_fractions_of_positions_agree_with_float64(theta, last):
    pos = (last - np.arange(-4, 4) * 0.75).astype(np.float32)
    made = rope.frequencies(128, theta)
    cos, sin = rope.cos_sin(jnp.array(pos)[None], made)
    angle = np.float64(pos)[:, None] * made.inv_freq
    np.testing.assert_allclose(cos[0], np.cos(angle), atol=1e-5)
    np.testing.assert_allclose(sin[0], np.sin(angle), atol=1e-5)


def test_whole_float_positions_are_integers():
    pos = jnp.array([[0, 1, 77, 2**20, -5]])
    made = rope.frequencies(64, THETA)
    np.testing.assert_array_equal(
        rope.angles(pos.astype(jnp.float32), made.inv_freq), rope.angles(pos, made.inv_freq)
    )


def test_a_quarter_of_a_position_is_a_factor_of_four():
    pos = jnp.arange(64)[None]
    quarter = built('rope').tables({}, pos.astype(jnp.float32) / 4)
    np.testing.assert_allclose(quarter, built('pi', factor=4.0).tables({}, pos), atol=2e-6)


@pytest.mark.parametrize('name', ['xpos', 'dynamic_ntk'])
def test_whole_float_positions_are_integers_to_every_method(name):
    pos, options = jnp.array([[0, 1, 77, 5000]]), {'original_length': 64} if name == 'dynamic_ntk' else {}
    found, expected = (built(name, **options).tables({}, p) for p in (pos.astype(jnp.float32), pos))
    jax.tree.map(np.testing.assert_array_equal, found, expected)


# NTK-by-parts and Llama 3


def test_ntk_by_parts_is_the_formula_of_the_paper():
    """Equations of section 3.2 as they stand there, gamma a function of r = L / lambda."""
    head_dim, original, factor, alpha, beta = 128, 4096, 8.0, 1.0, 32.0
    expected = []
    for k in range(head_dim // 2):
        frequency = THETA ** (-2 * k / head_dim)
        r = original / (2 * np.pi / frequency)
        gamma = 0.0 if r < alpha else 1.0 if r > beta else (r - alpha) / (beta - alpha)
        expected.append((1 - gamma) * frequency / factor + gamma * frequency)
    share = ntk_by_parts.ramp(head_dim, THETA, original, beta, alpha)
    np.testing.assert_allclose(
        yarn.frequencies(head_dim, THETA, factor, share, 1.0).inv_freq, expected, rtol=1e-12
    )


def test_llama3_is_ntk_by_parts_with_its_ends():
    pos = jnp.arange(0, 9000, 100)[None]
    other = built('ntk_by_parts', beta_fast=4.0, beta_slow=1.0)
    np.testing.assert_array_equal(built('llama3').tables({}, pos), other.tables({}, pos))
    assert llama3.ABOUT.hf == ntk_by_parts.ABOUT.hf


# Partial RoPE and p-RoPE


@pytest.mark.parametrize('interleaved', [False, True])
@pytest.mark.parametrize('name', ['rope', 'yarn', 'dynamic_ntk', 'llama3'])
def test_partial_rotation_is_the_method_of_a_smaller_head(name, interleaved):
    x, pos = vectors(0, 4), jnp.array([[0, 5, 4000, 7000]])
    turned = built(name, rotary_fraction=0.25, interleaved=interleaved).query({}, x, pos)
    smaller = make(POSITIONS, {'name': name, 'interleaved': interleaved}, 'p', **{**CONTEXT, 'head_dim': 16})
    np.testing.assert_array_equal(turned[..., :16], smaller.query({}, x[..., :16], pos))
    np.testing.assert_array_equal(turned[..., 16:], x[..., 16:])


@pytest.mark.parametrize(('share', 'kept'), [(0.0, 0), (0.25, 8), (0.7, 22), (1.0, 32)])
def test_p_rope_keeps_the_fastest_frequencies(share, kept):
    base, found = rope.frequencies(64, THETA).inv_freq, p_rope.frequencies(64, THETA, share, 1.0).inv_freq
    np.testing.assert_array_equal(found[:kept], base[:kept])
    assert not np.any(found[kept:])


# LongRoPE


@pytest.mark.parametrize(('length', 'name'), [(2048, 'short_factor'), (2049, 'long_factor')])
def test_longrope_takes_the_list_of_the_length_in_use(length, name):
    lists = {'short_factor': tuple(1 + k / 10 for k in range(32)), 'long_factor': tuple(range(2, 34))}
    position = make(POSITIONS, {'name': 'longrope', **lists}, 'p', **{**CONTEXT, 'length': length})
    cos, sin = position.tables({}, jnp.array([[0, 1, 3]]))
    scale = np.sqrt(1 + np.log(max(1, length / 2048)) / np.log(2048))
    angle = np.array([0, 1, 3])[:, None] * THETA ** (-np.arange(32) / 32) / np.array(lists[name])
    np.testing.assert_allclose(cos[0], scale * np.cos(angle), atol=2e-6)
    np.testing.assert_allclose(sin[0], scale * np.sin(angle), atol=2e-6)


# xPos


@pytest.mark.parametrize('golden', XPOS, ids=lambda g: f'{g["head_dim"]}-{g["scale_base"]}')
def test_xpos_is_that_of_rotary_embedding_torch(golden):
    shape = (1, golden['tokens'], 2, golden['head_dim'])
    options = {'name': 'xpos', 'scale_base': golden['scale_base'], 'interleaved': True}
    position = make(POSITIONS, options, 'p', head_dim=golden['head_dim'], length=golden['tokens'])
    pos = jnp.arange(golden['tokens'])[None]
    for name, turn in (('query', position.query), ('key', position.key)):
        x, turned = (np.float32(golden[n]).reshape(shape) for n in (name, f'turned_{name}'))
        np.testing.assert_allclose(turn({}, x, pos), turned, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(('length', 'scale_base'), [(8192, 512.0), (33512, 512.0), (2**17, 2003.0)])
def test_xpos_scores_are_the_formula_up_to_the_longest_length(length, scale_base):
    """Scores of causal pairs with the decay of their distance, which never leaves float64, and no centre."""
    pos = np.array([0, 1, 700, length // 2, length - 600, length - 1])
    options, sizes = {'name': 'xpos', 'scale_base': scale_base}, {'head_dim': 64, 'length': length}
    position = make(POSITIONS, options, 'p', **sizes)
    q, k = vectors(1, pos.size), vectors(2, pos.size)
    turned = [
        np.float64(turn({}, x, jnp.array(pos)[None]))[0]
        for turn, x in ((position.query, q), (position.key, k))
    ]
    found = np.einsum('TNH,SNH->NTS', *turned)
    zeta = (np.arange(32) / 32 + 0.4) / 1.4
    distance = pos[:, None] - pos
    turning = np.exp(1j * distance[..., None] * THETA ** (-np.arange(32) / 32))
    with np.errstate(over='ignore', invalid='ignore'):
        fading = turning * zeta ** (distance[..., None] / scale_base)
        exact = np.einsum('TNP,SNP,TSP->NTS', pairs(q)[0], pairs(k)[0].conj(), fading).real
    causal = distance >= 0
    np.testing.assert_allclose(found[:, causal], exact[:, causal], atol=2e-4)


@pytest.mark.parametrize('dtype', [jnp.float32, jnp.bfloat16])
def test_xpos_stays_finite_at_2_17_tokens_masked_scores_included(dtype):
    position = make(POSITIONS, {'name': 'xpos', 'scale_base': 2003.0}, 'p', head_dim=128, length=2**17)
    pos = jnp.array([[0, 1, 2**16, 2**17 - 1, 2**20]])
    x = 4 * vectors(3, 5, head_dim=128).astype(dtype)
    q, k = position.query({}, x, pos), position.key({}, x, pos)
    assert bool(
        jnp.all(jnp.isfinite(jnp.einsum('BTNH,BSNH->BNTS', q.astype(jnp.float32), k.astype(jnp.float32))))
    )


def test_xpos_decay_is_that_of_the_authors():
    """Their buffer: (arange(0, H, 2) + 0.4 H) / (1.4 H), to the power of position / 512."""
    zeta = (np.arange(0, 64, 2) + 0.4 * 64) / (1.4 * 64)
    np.testing.assert_allclose(np.exp(-xpos.decay(64)), zeta, rtol=1e-12)


# log-n


@pytest.mark.parametrize('base', [{'name': 'none'}, {'name': 'yarn', 'factor': 4.0}, {'name': 'xpos'}])
def test_log_n_scales_the_queries_of_its_base(base):
    position, plain = built('log_n', base=base), make(POSITIONS, base, 'p', **CONTEXT)
    x, pos = vectors(4, 5), jnp.array([[0, 2046, 2047, 2048, 8000]])
    by = np.maximum(1, np.log(np.array([1, 2047, 2048, 2049, 8001])) / np.log(2048))
    np.testing.assert_allclose(sharpened(position, {}, x, pos), x * by[:, None, None], rtol=1e-6)
    for side in ('query', 'key'):  # the rest is the base's
        if getattr(plain, side):
            found, expected = (getattr(p, side)({}, x, pos) for p in (position, plain))
            np.testing.assert_array_equal(found, expected)


def test_log_n_goes_around_log_n_once():
    with pytest.raises(ConfigError, match='base: sharpens scores itself'):
        built('log_n', base={'name': 'log_n'})


def test_log_n_goes_by_true_positions_where_regions_have_others():
    """Without a rotation regions change nothing, and so must not change the sharpness either."""
    position = Options(name='log_n', base={'name': 'none'}, original_length=4)
    found = []
    for regions in (None, {'name': 'rerope', 'window': 3}):
        config = changed(kinds={'full': LayerKind(regions=regions)}, position=position)
        found.append(whole_logits(config, parameters(config), random_batch().tokens))
    np.testing.assert_allclose(found[1], found[0], atol=1e-4)


def test_log_n_is_static_as_its_base():
    assert built('log_n').static and not built('log_n', base={'name': 'dynamic_ntk'}).static


def test_log_n_keeps_the_length_it_extends_when_tuned():
    options = {'name': 'log_n', 'base': {'name': 'yarn'}}
    kept = pinned(POSITIONS['log_n'], options, length=8192, trained_length=2048)
    assert kept == {
        **options,
        'base': {'name': 'yarn', 'original_length': 2048, 'factor': 4.0},
        'original_length': 2048,
    }


# In a model


def two_bases(local, full):
    def kind(theta, *rules):
        return LayerKind(
            attention=Options(name='dense'), rule=rules, position=Options(name='rope', theta=theta)
        )

    causal, window = Options(name='causal'), Options(name='window', size=8)
    kinds = {'local': kind(local, causal, window), 'full': kind(full, causal)}
    return changed(pattern=('local', 'full'), kinds=Options(kinds))


def test_layers_with_a_window_and_others_have_a_base_each():
    """Two bases, as in Gemma 3: each kind of layer turns by its own, in one model."""
    config = two_bases(1e4, 1e6)
    pos = jnp.arange(40)[None]
    for kind, theta in (('local', 1e4), ('full', 1e6)):
        tables = config.read_position(kind, T).tables({}, pos)
        np.testing.assert_array_equal(tables, rope.cos_sin(pos, rope.frequencies(8, theta)))
    batch, found = random_batch(), {}
    for bases in ((1e4, 1e6), (1e4, 1e4), (1e6, 1e6)):
        model = two_bases(*bases)
        found[bases] = whole_logits(model, parameters(model), batch.tokens)
    same = two_bases(1e4, 1e4)
    shared = changed(pattern=same.pattern, kinds=same.kinds, position=Options(name='rope', theta=1e4))
    np.testing.assert_array_equal(found[1e4, 1e4], whole_logits(shared, parameters(shared), batch.tokens))
    assert not np.allclose(found[1e4, 1e6], found[1e4, 1e4], atol=1e-4)
    assert not np.allclose(found[1e4, 1e6], found[1e6, 1e6], atol=1e-4)


@pytest.mark.parametrize(
    'position',
    [
        Options(name='rope', rotary_fraction=0.5),
        Options(name='xpos'),
        Options(name='log_n', base={'name': 'yarn', 'factor': 2.0}, original_length=8),
    ],
    ids=str,
)
def test_dense_and_blockwise_attention_agree(position):
    tokens, found = random_batch().tokens, []
    for attention in (Options(name='dense'), Options(name='blockwise', block=8)):
        config = changed(kinds={'full': LayerKind(attention=attention)}, position=position)
        found.append(whole_logits(config, parameters(config), tokens))
    np.testing.assert_allclose(found[1], found[0], atol=2e-4)
