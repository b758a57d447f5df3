"""LongRoPE's search on objectives of known optimum: rising lists, the paper's operators, going on as if unbroken."""

import itertools

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lcx.config import make
from lcx.positions import POSITIONS, longrope, search

HEAD_DIM, ORIGINAL, FACTOR = 32, 128, 4.0
LIMIT = search.REACH * FACTOR
KNOWN = search.known(HEAD_DIM, 1e4, ORIGINAL, FACTOR)
BEST = np.concatenate([np.ones(4), np.linspace(1.2, 4.4, 12)])  # none of the known ones
SETTINGS = {'factor': FACTOR, 'population': 16, 'seed': 3}


def distance(factors):
    return float(np.mean((np.log(factors) - np.log(BEST)) ** 2))


def searched(iterations, objective=distance, **changed):
    return list(
        search.search(objective, list(KNOWN.values()), iterations=iterations, **{**SETTINGS, **changed})
    )


def rises(factors):
    return np.all(np.diff(factors) >= 0) and factors[0] >= 1 and factors[-1] <= LIMIT


def test_known_lists_are_the_frequencies_of_the_methods():
    sizes = {'head_dim': HEAD_DIM, 'length': ORIGINAL * 4, 'trained_length': ORIGINAL, 'heads': 1, 'width': 1}
    pos = jnp.array([[0, 1, 5, 100, 500]])
    for name, factors in KNOWN.items():
        lists = {'short_factor': factors, 'long_factor': factors, 'attention_factor': 1.0}
        found = make(POSITIONS, {'name': 'longrope', **lists}, 'p', **sizes).tables({}, pos)
        scale = {'attention_factor': 1.0} if name == 'yarn' else {}
        expected = make(POSITIONS, {'name': name, **scale}, 'p', **sizes).tables({}, pos)
        np.testing.assert_allclose(found, expected, atol=1e-5)
        assert rises(factors)


def test_it_gets_much_nearer_to_a_known_optimum_than_the_lists_it_starts_from():
    before, after = min(map(distance, KNOWN.values())), searched(40)[-1].scores[0]
    assert after < before / 10


def test_the_best_never_gets_worse_and_every_list_rises():
    found = searched(8)
    assert [g.number for g in found] == list(range(9))
    for earlier, later in itertools.pairwise(found):
        assert later.scores[0] <= earlier.scores[0]
        assert set(earlier.individuals[:8]) <= set(later.individuals)
    for generation in found:
        assert len(generation.individuals) == 16 and list(generation.scores) == sorted(generation.scores)
        assert all(rises(f) for f in generation.individuals)
        assert generation.scores == tuple(map(distance, generation.individuals))
    assert set(KNOWN.values()) <= set(found[0].individuals)


def test_only_children_are_evaluated():
    seen = []
    searched(3, lambda f: (seen.append(f), distance(f))[1])
    assert len(seen) == 16 + 3 * 8


@pytest.mark.parametrize('stopped', [0, 2])
def test_it_goes_on_as_if_it_had_never_stopped(stopped):
    whole = searched(5)
    assert searched(5, after=whole[stopped]) == whole[stopped + 1 :]
    assert searched(5, seed=4) != whole


def test_what_is_not_a_number_is_the_worst():
    found = search.ranked(0, [(1.0,), (2.0,), (3.0,)], [np.nan, 2.0, 1.0])
    assert found.individuals == ((3.0,), (2.0,), (1.0,)) and found.scores[:2] == (1.0, 2.0)


lists = st.lists(st.floats(1, LIMIT), min_size=1, max_size=20).map(lambda f: tuple(sorted(f)))


@settings(max_examples=200, deadline=None)
@given(factors=lists, seed=st.integers(0, 2**31))
def test_mutated_lists_rise_on_the_grid(factors, seed):
    child = search.mutated(np.random.default_rng(seed), factors, LIMIT)
    assert len(child) == len(factors) and rises(child)
    moved = [c for c in child if c not in factors]
    np.testing.assert_allclose(np.round(moved, 2), moved, atol=1e-9)


@settings(max_examples=200, deadline=None)
@given(
    pairs=st.lists(st.tuples(st.floats(1, 5), st.floats(1, 5)), min_size=1, max_size=20),
    seed=st.integers(0, 2**31),
)
def test_crossed_lists_rise_and_hold_nothing_new(pairs, seed):
    one, other = (tuple(sorted(f)) for f in zip(*pairs))
    child = search.crossed(np.random.default_rng(seed), one, other)
    assert rises(child) and all(c in pair for c, pair in zip(child, zip(one, other)))


def test_mutations_are_those_of_drawing_until_the_factors_rise():
    """Means of each factor against plain rejection: draw the chosen ones from the whole range, keep what rises."""
    random, factors = np.random.default_rng(0), (1.5, 2.0, 2.5)
    rejected = []
    while len(rejected) < 4000:
        anew = random.random((20000, 3)) < search.PROBABILITY
        drawn = np.where(anew, random.uniform(1, LIMIT, (20000, 3)), factors)
        # Each choice of factors counts as often as it is chosen, not as often as its draws happen to rise.
        for choice in itertools.product([False, True], repeat=3):
            mine = np.all(anew == choice, axis=1)
            good = drawn[mine & np.all(np.diff(drawn) >= 0, axis=1)]
            rejected += list(np.resize(good, (mine.sum() // 4, 3)))
    found = np.array([search.mutated(random, factors, LIMIT) for _ in range(8000)])
    np.testing.assert_allclose(found.mean(axis=0), np.mean(rejected, axis=0), atol=0.04)
    np.testing.assert_allclose(found.std(axis=0), np.std(rejected, axis=0), atol=0.05)


@pytest.mark.parametrize(
    'options', [{}, {'theta': 500.0, 'rotary_fraction': 0.5, 'interleaved': True}], ids=str
)
def test_the_list_as_a_parameter_is_the_list_as_an_option(options):
    sizes = {'head_dim': HEAD_DIM, 'length': 512, 'trained_length': 128}
    position = longrope.searched(**sizes, **options)
    count = position.init(None)['factors'].shape[0]
    factors = tuple(np.linspace(1, 5, count))
    fixed = longrope.longrope(**sizes, short_factor=factors, long_factor=factors, **options)
    params, pos = {'factors': jnp.array(factors, jnp.float32)}, jnp.array([[0, 1, 5, 100, 500]])
    x = jnp.ones((1, 5, 2, HEAD_DIM))
    for side in ('query', 'key'):
        found, expected = getattr(position, side)(params, x, pos), getattr(fixed, side)({}, x, pos)
        np.testing.assert_allclose(found, expected, atol=1e-4)
    np.testing.assert_allclose(position.tables(params, pos), fixed.tables({}, pos), atol=1e-4)
