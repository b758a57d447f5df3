"""Methods that train another method on drawn positions: what every draw keeps, its distribution, the whole model."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lcx.config import make
from lcx.errors import ConfigError
from lcx.launch.methods import EXAMPLES
from lcx.models import LayerKind
from lcx.positions import POSITIONS
from lcx.positions.documents import Documents
from lcx.train.loss import loss_sums
from tests.contracts.method_contract import LISTS
from tests.contracts.position_contract import CONTEXT
from tests.models.tiny import changed, packed_batch, parameters

T, TARGET = 16, 40
OPTIONS = {
    'randomized': {'name': 'randomized', 'target_length': TARGET},
    'random_float': {'name': 'random_float', 'target_length': TARGET},
    'pose': {'name': 'pose', 'target_length': TARGET},
    'pose, 4 chunks': {'name': 'pose', 'target_length': TARGET, 'chunks': 4},
    'shape': {'name': 'shape', 'max_offset': TARGET - T},
}
ALL = pytest.mark.parametrize('options', OPTIONS.values(), ids=OPTIONS.keys())


def method(options, **context):
    return make(POSITIONS, options, 'model.position', **{**CONTEXT, **context})


@functools.cache
def drawing(label):
    """``(seed, positions) -> positions`` of training, compiled."""
    remap = method(OPTIONS[label]).remap
    return jax.jit(lambda seed, positions: remap(jax.random.key(seed), positions, True))


def row(lengths):
    """Positions of documents of these lengths, cut or padded to T tokens."""
    return np.pad(np.concatenate([np.arange(n) for n in lengths]), (0, T))[:T]


rows = st.lists(st.integers(1, T), min_size=1, max_size=T).map(row)


@ALL
@settings(max_examples=40, deadline=None)
@given(first=rows, second=rows, seed=st.integers(0, 2**31 - 1))
def test_documents_keep_order_and_distances_and_stay_in_range(options, first, second, seed):
    label = next(k for k, v in OPTIONS.items() if v == options)
    given_positions = np.stack([first, second])
    drawn = np.array(drawing(label)(seed, given_positions))
    whole = method(options).whole
    assert drawn.shape == given_positions.shape and drawn.dtype == (np.int32 if whole else np.float32)
    assert drawn.min() >= 0 and drawn.max() < TARGET
    inside = np.diff(given_positions) == 1
    assert np.all(np.diff(drawn)[inside] >= (1 if whole else TARGET / 2**22))
    if label == 'shape':
        np.testing.assert_array_equal(np.diff(drawn), np.diff(given_positions))
    else:
        padding = np.array(Documents.of(jnp.array(given_positions)).length) == 1
        assert not np.any(drawn[padding])
    if label.startswith('pose'):
        chunks = options.get('chunks', 2)
        number = np.array(Documents.of(jnp.array(given_positions)).number)[:, 1:]
        for b in range(2):
            jumps = number[b][inside[b] & (np.diff(drawn)[b] > 1)]
            assert all(np.sum(jumps == n) <= chunks - 1 for n in jumps)
        assert np.all(drawn[given_positions == 0] == 0)


def test_every_method_that_draws_positions_is_tested():
    given = {**EXAMPLES, 'longrope': LISTS}
    made = {n: make(POSITIONS, {'name': n, **given.get(n, {})}, 'p', **CONTEXT) for n in POSITIONS}
    assert {name for name, position in made.items() if position.remap} == {
        o['name'] for o in OPTIONS.values()
    }


def test_documents_are_read_off_the_positions():
    found = Documents.of(jnp.array([[0, 1, 2, 0, 0, 1, 0, 0], [0, 1, 2, 3, 4, 5, 6, 7]]))
    np.testing.assert_array_equal(found.number, [[0, 0, 0, 1, 2, 2, 3, 4], [0] * 8])
    np.testing.assert_array_equal(found.length, [[3, 3, 3, 1, 2, 2, 1, 1], [8] * 8])


@pytest.mark.parametrize('label', OPTIONS)
def test_keys_rows_and_documents_differ(label):
    positions = np.tile(row([8, 8]), (2, 1))
    draws = [np.array(drawing(label)(seed, positions)) for seed in (0, 1)]
    assert np.any(draws[0] != draws[1]) and np.any(draws[0][0] != draws[0][1])
    np.testing.assert_array_equal(draws[0], drawing(label)(0, positions))
    assert np.array_equal(draws[0][:, :8], draws[0][:, 8:]) == (label == 'shape')


@pytest.mark.parametrize('label', ['pose', 'pose, 4 chunks', 'shape'])
def test_evaluation_leaves_positions_alone(label):
    positions = np.tile(row([9, 7]), (2, 1))
    remap = method(OPTIONS[label]).remap
    np.testing.assert_array_equal(remap(jax.random.key(0), positions, False), positions)


def test_randomized_draws_at_evaluation_unless_told_not_to():
    positions, key = jnp.array([row([9, 7])]), jax.random.key(0)
    always = method(OPTIONS['randomized']).remap
    np.testing.assert_array_equal(always(key, positions, False), always(key, positions, True))
    plain = method({**OPTIONS['randomized'], 'draw_at_evaluation': False}).remap
    np.testing.assert_array_equal(plain(key, positions, False), positions)
    np.testing.assert_array_equal(plain(key, positions, True), always(key, positions, True))


def shares(values, cells):
    return np.bincount(np.ravel(values), minlength=cells) / np.size(values)


def test_randomized_draws_every_subset_alike_for_every_document():
    remap = method({'name': 'randomized', 'target_length': 6}).remap
    positions = jnp.tile(jnp.array([0, 1, 2, 0, 1]), (6000, 1))
    drawn = np.array(remap(jax.random.key(0), positions, True))
    # 20 subsets of 3 and 15 of 2, numbered by their bits.
    for part, count in ((drawn[:, :3], 20), (drawn[:, 3:], 15)):
        found = shares(np.sum(2**part, axis=1), 64)
        assert np.sum(found > 0) == count
        np.testing.assert_allclose(found[found > 0], 1 / count, rtol=0.25)


def test_random_float_draws_sorted_uniform_numbers():
    """The r-th smallest of n uniform numbers of [0, L) is Beta(r, n + 1 - r) L: its mean and variance."""
    remap = method(OPTIONS['random_float']).remap
    positions = jnp.tile(jnp.array([0, 1, 2, 0, 1, 0]), (20000, 1))
    share = np.array(remap(jax.random.key(0), positions, True)) / TARGET
    for part, n in ((share[:, :3], 3), (share[:, 3:5], 2)):
        r = np.arange(1, n + 1)
        np.testing.assert_allclose(part.mean(axis=0), r / (n + 1), atol=0.005)
        np.testing.assert_allclose(part.var(axis=0), r * (n + 1 - r) / ((n + 1) ** 2 * (n + 2)), rtol=0.05)
    assert not np.any(share[:, 5])
    assert abs(np.corrcoef(share[:, 0], share[:, 3])[0, 1]) < 0.02  # documents are drawn apart
    assert len(np.unique(share[:, 0])) > 19000


@pytest.mark.parametrize('target', [4096, 2**20, 2**22])
def test_random_floats_of_one_document_never_meet(target):
    """Of 4096 plain draws from 2^22 cells, two pairs would be equal on average."""
    remap = method({'name': 'random_float', 'target_length': target}).remap
    positions = jnp.tile(jnp.arange(4096), (8, 1))
    drawn = np.array(jax.jit(lambda key: remap(key, positions, True))(jax.random.key(0)))
    steps = np.diff(drawn)
    assert steps.min() > 0 and drawn.max() < target
    assert steps.min() < 3 * target / 2**22  # as near to each other as the grid lets them be


def test_random_float_draws_at_evaluation_unless_told_not_to():
    positions, key = jnp.array([row([9, 7])]), jax.random.key(0)
    always = method(OPTIONS['random_float']).remap
    np.testing.assert_array_equal(always(key, positions, False), always(key, positions, True))
    plain = method({**OPTIONS['random_float'], 'draw_at_evaluation': False}).remap
    np.testing.assert_array_equal(plain(key, positions, False), positions)


def test_pose_draws_every_cut_and_every_skip_alike():
    remap = method({'name': 'pose', 'target_length': 10}).remap
    drawn = np.array(remap(jax.random.key(0), jnp.tile(jnp.arange(6), (6000, 1)), True))
    skip = drawn[:, -1] - 5
    np.testing.assert_allclose(shares(skip, 5), 1 / 5, rtol=0.15)  # 0 .. 10 - 6
    moved = drawn[skip > 0]
    cuts = np.argmax(moved > np.arange(6), axis=1)
    np.testing.assert_allclose(shares(cuts, 6)[1:], 1 / 5, rtol=0.15)  # 1 .. 5


def test_shape_draws_every_offset_alike():
    remap = method({'name': 'shape', 'max_offset': 4}).remap
    drawn = np.array(remap(jax.random.key(0), jnp.zeros((6000, 2), jnp.int32), True))
    np.testing.assert_allclose(shares(drawn[:, 0], 5), 1 / 5, rtol=0.15)


@ALL
def test_everything_else_is_the_bases(options):
    base = {'name': 'yarn', 'theta': 1e5, 'factor': 2.0}
    wrapped, plain = method({**options, 'base': base}), method(base)
    pos = jnp.array([[0, 5, 99]])
    np.testing.assert_array_equal(wrapped.tables({}, pos), plain.tables({}, pos))
    assert plain.remap is None and wrapped.embed is plain.embed is None and wrapped.static == plain.static
    tables = method({**options, 'base': {'name': 't5'}}).init(jax.random.key(0))['table']
    np.testing.assert_array_equal(tables, method({'name': 't5'}).init(jax.random.key(0))['table'])


@pytest.mark.parametrize('name', ['randomized', 'random_float', 'pose'])
def test_the_base_is_made_for_the_target_length(name):
    options = {'name': name, 'target_length': 512, 'base': {'name': 'pi'}}
    expected = method({'name': 'pi', 'factor': 512 / CONTEXT['trained_length']})
    pos = jnp.array([[0, 5, 99]])
    for length in (32, 64, 512):
        found = method(options, length=length).tables({}, pos)
        np.testing.assert_array_equal(found, expected.tables({}, pos))


def test_trained_at_pins_the_base_at_the_target_length():
    options = {'name': 'pose', 'target_length': 512, 'base': {'name': 'yarn'}}
    model = changed(position=options, trained_length=64).trained_at(128)
    pinned = {'name': 'yarn', 'factor': 8.0, 'original_length': 64}
    assert model.position == {**options, 'base': pinned}
    assert model.trained_at(2048).position == model.position
    shaped = changed(position={'name': 'shape', 'max_offset': 9}).trained_at(128).position
    assert shaped == {'name': 'shape', 'max_offset': 9, 'base': {'name': 'sinusoidal'}}


@ALL
def test_the_training_loss_sees_the_drawn_positions(options):
    config = changed(position={**options, 'base': {'name': 'sinusoidal'}})
    params, batch = parameters(config), packed_batch()

    @jax.jit
    def loss(key):
        return loss_sums(config, params, batch, key, z_loss=0.0, chunk=64)[0]

    @jax.jit
    def by_hand(key):
        moved = method(options).remap(key, batch.positions, True)
        plain = changed(position={'name': 'sinusoidal'})
        return loss_sums(plain, params, batch._replace(positions=moved), key, z_loss=0.0, chunk=64)[0]

    first, second = (jax.random.key(seed) for seed in (0, 1))
    np.testing.assert_allclose(loss(first), by_hand(first), rtol=1e-5)
    assert abs(loss(first) - loss(second)) > 1e-4


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        ({'name': 'pose'}, "target_length: 'pose' needs it"),
        ({'name': 'random_float'}, "target_length: 'random_float' needs it"),
        (
            {'name': 'random_float', 'target_length': 2**22 + 1},
            'target_length: 4194305 must be at most 4194304',
        ),
        (
            {**OPTIONS['random_float'], 'base': OPTIONS['shape']},
            'base: draws the positions it trains on itself',
        ),
        ({'name': 'pose', 'target_length': 64, 'chunks': 1}, 'chunks: 1 must be at least 2'),
        ({'name': 'shape', 'max_offset': 0}, 'max_offset: 0 must be at least 1'),
        (
            {**OPTIONS['pose'], 'base': {'name': 'yarm'}},
            "base.name: unknown 'yarm'. Did you mean 'yarn'?",
        ),
        ({**OPTIONS['pose'], 'base': {'name': 'pi', 'factor': 0.5}}, 'base.factor: 0.5 must be'),
        ({**OPTIONS['shape'], 'base': OPTIONS['pose']}, 'base: draws the positions it trains on itself'),
    ],
)
def test_errors_name_the_field_and_the_value(options, message):
    with pytest.raises(ConfigError) as caught:
        method(options)
    assert str(caught.value).startswith(f'model.position.{message}')


@pytest.mark.parametrize('name', ['randomized', 'random_float', 'pose'])
def test_rows_longer_than_the_target_are_refused(name):
    remap = method({'name': name, 'target_length': 8}).remap
    with pytest.raises(ConfigError, match=r'target_length: 8 is less than the 16 tokens of a row'):
        remap(jax.random.key(0), jnp.array([row([16])]), True)


@pytest.mark.parametrize(
    'rule', [{'name': 'dilated', 'segment': 8, 'rate': 2}, {'name': 'strided', 'stride': 2}]
)
def test_rules_that_count_whole_positions_are_refused(rule):
    causal, far = {'name': 'causal'}, {'name': 'window', 'size': 9}
    for rules in ((causal, rule), (causal, {'name': 'either', 'rules': (far, rule)})):
        kinds = {'full': LayerKind(rule=rules)}
        with pytest.raises(ConfigError, match=r"kinds.full.rule: counts whole positions, but 'random_float'"):
            changed(position=OPTIONS['random_float'], kinds=kinds)
        changed(position=OPTIONS['randomized'], kinds=kinds)
    changed(position=OPTIONS['random_float'], kinds={'full': LayerKind(rule=(causal, far))})
