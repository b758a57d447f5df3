"""Scalable-Softmax: the softmax of its paper in float64, gradients of s, the parameters of its base."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lcx.attention import ATTENTION, causal
from lcx.config import make
from lcx.errors import ConfigError
from lcx.positions import POSITIONS, ssmax
from lcx.positions.api import sharpened
from lcx.types import Where
from tests.contracts.position_contract import CONTEXT, drawn
from tests.models.tiny import changed, gradient, packed_batch, parameters

T, N, H = 9, CONTEXT['heads'], CONTEXT['head_dim']


def method(base=None, **options):
    given = {'name': 'ssmax', 'base': base or {'name': 'none'}, **options}
    return make(POSITIONS, given, 'model.position', **CONTEXT)


def vectors(seed):
    return jax.random.normal(jax.random.key(seed), (1, T, N, H))


def papers(s, q, k, v):
    """exp(s ln(n) z) / sum, n keys up to the query, z = q . k / sqrt(H); 'T N H', float64."""
    out = np.zeros(q.shape)
    for i in range(T):
        for head in range(N):
            z = k[: i + 1, head] @ q[i, head] / np.sqrt(H)
            weights = (i + 1.0) ** (s[head] * z)
            out[i, head] = weights / weights.sum() @ v[: i + 1, head]
    return out


@pytest.mark.parametrize('attention', ['dense', 'blockwise'])
def test_it_is_the_softmax_of_the_paper_and_so_are_its_gradients(attention):
    position, (q, k, v, weights) = method(), (vectors(seed) for seed in range(4))
    params, pos = drawn(position), jnp.arange(T)[None]
    where = Where.self_attention(pos, jnp.ones_like(pos), N)

    def attended(params):
        out = ATTENTION[attention](sharpened(position, params, q, pos), k, v, where, causal)
        return jnp.sum(out * weights), out

    slope, found = jax.grad(attended, has_aux=True)(params)
    exact = [np.float64(x)[0] for x in (q, k, v)]
    np.testing.assert_allclose(found[0], papers(np.float64(params['s']), *exact), atol=1e-6)
    for head in range(N):
        ends = []
        for sign in (1, -1):
            s = np.float64(params['s'])
            s[head] += sign * 1e-5
            ends.append(np.sum(papers(s, *exact) * np.float64(weights)[0]))
        np.testing.assert_allclose(slope['s'][head], (ends[0] - ends[1]) / 2e-5, rtol=2e-4, atol=1e-5)


@pytest.mark.parametrize(('trained', 'start'), [(1024, 0.1685), (2, 2 / np.log(2)), (1, 2 / np.log(2))])
def test_it_starts_as_ordinary_attention_on_average(trained, start):
    position = make(POSITIONS, {'name': 'ssmax'}, 'p', **{**CONTEXT, 'trained_length': trained})
    params = position.init(jax.random.key(0))
    np.testing.assert_allclose(params['s'], [start] * N, rtol=1e-3)
    assert ssmax.ordinary(trained) == pytest.approx(start, rel=1e-3)
    if trained == 1024:
        np.testing.assert_allclose(np.mean(position.gain(params, jnp.arange(trained)[None])), 1, rtol=1e-5)


def test_the_base_has_its_own_parameters_and_gives_what_it_gives_alone():
    base = {'name': 'kerple'}
    position, alone = method(base), make(POSITIONS, base, 'p', **CONTEXT)
    params = drawn(position)
    assert set(params) == {'s', 'base'} and set(params['base']) == {'slope', 'rate'}
    where = Where.plain(1, 5, 5, N)
    np.testing.assert_array_equal(position.bias(params, where), alone.bias(params['base'], where))
    embedded = method({'name': 'learned'})
    assert set(embedded.init(jax.random.key(0))['base']) == {'table'} and embedded.embed is not None


@pytest.mark.parametrize('base', [{'name': 'rope'}, {'name': 'fire', 'hidden': 4}], ids=str)
def test_a_model_learns_s_and_the_base(base):
    config = changed(position={'name': 'ssmax', 'base': base})
    slopes = gradient(config)(parameters(config), packed_batch())[1]['position_full']
    leaves = jax.tree.leaves(slopes)
    assert len(leaves) == (1 if base['name'] == 'rope' else 6) and slopes['s'].shape == (config.heads,)
    assert all(np.all(np.isfinite(x)) and np.any(np.abs(x) > 1e-5) for x in leaves)


def test_its_wrappers_and_it_keep_each_others_parts():
    inside = make(
        POSITIONS, {'name': 'pose', 'target_length': 300, 'base': {'name': 'ssmax'}}, 'p', **CONTEXT
    )
    outside = method({'name': 'pose', 'target_length': 300})
    for position in (inside, outside):
        assert position.remap is not None and position.gain is not None and position.tables is not None
        assert drawn(position)['s'].shape == (N,)


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        ({'name': 'ssmax', 'start': 0.0}, 'start: 0.0 must be'),
        ({'name': 'ssmax', 'base': {'name': 'log_n'}}, 'base: sharpens scores itself'),
        ({'name': 'log_n', 'base': {'name': 'ssmax'}}, 'base: sharpens scores itself'),
        ({'name': 'ssmax', 'base': {'name': 'yarn', 'factor': 0.5}}, 'base.factor: 0.5'),
    ],
)
def test_errors_name_the_field_and_the_value(options, message):
    with pytest.raises(ConfigError) as caught:
        make(POSITIONS, options, 'model.position', **CONTEXT)
    assert str(caught.value).startswith(f'model.position.{message}')


def test_a_base_without_parameters_needs_no_branch():
    position, x = method({'name': 'rope'}), vectors(0)
    params, pos = position.init(jax.random.key(0)), jnp.arange(T)[None]
    assert set(params) == {'s'}
    whole = position.query({**params, 'base': {}}, x, pos)
    np.testing.assert_array_equal(position.query(params, x, pos), whole)
