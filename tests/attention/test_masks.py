"""Rules give the pictures of their docstrings, and never skip a block that holds an allowed pair."""

import ast
import inspect
import re
import textwrap

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lcx.attention import masks, patterns
from lcx.attention.masks import (
    Band,
    both,
    causal,
    distance,
    either,
    everything,
    prefix,
    same_segment,
    sinks,
    window,
)
from lcx.attention.patterns import (
    chunk_distance,
    chunked,
    dilated,
    global_tokens,
    random_blocks,
    shifted_groups,
    strided,
)
from lcx.types import PADDING, Where

SEGMENTS = np.array([[1, 1, 1, 2, 2, 2]])
PICTURED = {
    'causal': causal,
    'same_segment': same_segment,
    'window': both(causal, window(3)),
    'distance': distance(1, 4),
    'sinks': both(causal, either(window(2), sinks(1))),
    'prefix': prefix(3),
    'chunked': chunked(3),
    'chunk_distance': chunk_distance(2, 1, 2),
    'shifted_groups': shifted_groups(4),
    'dilated': dilated(4, 2),
    'strided': both(causal, either(window(2), strided(2))),
    'global_tokens': global_tokens(2),
    'random_blocks': random_blocks(2, one_in=2),
}


def pictures() -> dict[str, list[str]]:
    """The rows of 0s and 1s in the docstring of every rule, functions and constants alike; six for each head."""
    found, previous = {}, None
    for node in [n for module in (masks, patterns) for n in ast.parse(inspect.getsource(module)).body]:
        text = ''
        if isinstance(node, ast.FunctionDef):
            name, text = node.name, ast.get_docstring(node) or ''
        elif isinstance(node, ast.Expr) and isinstance(previous, ast.Assign):
            name, text = previous.targets[0].id, ast.literal_eval(node.value)
        rows = re.findall(r'^[01](?: [01]){5}$', textwrap.dedent(text).replace('    ', ''), re.MULTILINE)
        if rows:
            found[name] = rows
        previous = node
    return found


def test_every_picture_is_checked():
    assert set(pictures()) == set(PICTURED)


@pytest.mark.parametrize('name', PICTURED)
def test_pictures(name):
    picture = pictures()[name]
    where = Where.plain(1, 6, 6, heads=len(picture) // 6)
    if name == 'same_segment':
        where = where._replace(q_seg=SEGMENTS, k_seg=SEGMENTS)
    seen = np.array(masks.visible(PICTURED[name], where))[0].astype(int)
    assert [' '.join(map(str, row)) for head in seen for row in head] == picture


def test_padding_is_hidden_whatever_the_rule_says():
    segments = np.array([[1, PADDING, 1]])
    where = Where.plain(1, 3, 3, heads=1)._replace(q_seg=segments, k_seg=segments)
    seen = np.array(masks.visible(either(everything, same_segment), where))[0, 0]
    np.testing.assert_array_equal(seen, [[1, 0, 1], [0, 0, 0], [1, 0, 1]])


def test_equal_rules_are_one_object():
    def streaming():
        return both(causal, either(window(8), sinks(2)))

    assert streaming() is streaming()
    assert window(2) is window(size=2) and prefix(3) is prefix(length=3)
    assert random_blocks(2, 3) is random_blocks(size=2, one_in=3, seed=0)
    assert dilated(4, 1) is chunked(4) and strided(1) is everything
    assert distance(2) is distance(low=2, high=None)
    assert both() is everything and both(causal) is causal and either(causal) is causal


SIZE = 4  # tokens in a block


def bounds(where: Where) -> masks.Bounds:
    """Bounds of one block of queries and one of keys in each row, from the definition."""

    def ends(x, seg):
        big = np.iinfo(np.int32).max
        return np.min(np.where(seg, x, big), axis=1), np.max(np.where(seg, x, -big), axis=1)

    q_pos, k_pos, q_seg, k_seg, _ = where
    found = *ends(q_pos, q_seg), *ends(k_pos, k_seg), *ends(q_seg, q_seg), *ends(k_seg, k_seg)
    return masks.Bounds(*map(jnp.asarray, found))


def judged(rule, where: Where) -> np.ndarray:
    """Whether each row may hold an allowed pair, and whether it surely allows all: 'B 2'."""
    answers = [np.broadcast_to(f(bounds(where)), len(where.q_pos)) for f in (rule.maybe, rule.surely)]
    return np.stack(answers, axis=1)


def is_so(rule, where: Where) -> np.ndarray:
    """What ``judged`` speaks of, from every pair of real tokens: 'B 2'."""
    seen = np.array(masks.visible(rule, where))
    real = ((where.q_seg != PADDING)[:, :, None] & (where.k_seg != PADDING)[:, None, :])[:, None]
    return np.stack([np.any(seen, axis=(1, 2, 3)), np.all(seen == real, axis=(1, 2, 3))], axis=1)


def blocks(count: int = 4000) -> Where:
    """Pairs of blocks of every sort: spread and dense, of one document and several, with and without padding."""
    random = np.random.default_rng(0)

    def positions():
        spread = random.choice([1, 2, 4, 20], size=(count, 1))
        return random.integers(-9, 20, (count, 1)) + random.integers(0, spread, (count, SIZE))

    def segments():
        one, mixed = random.integers(0, 4, (count, 1)), random.integers(0, 4, (count, SIZE))
        return np.where(random.random((count, 1)) < 0.6, one, mixed)

    numbers = (x.astype(np.int32) for x in (positions(), positions(), segments(), segments()))
    return Where(*numbers, np.arange(3))


BLOCKS = blocks()
SMALL = st.integers(1, 6)
BANDS = st.one_of(
    st.sampled_from([causal, everything, same_segment]),
    SMALL.map(window),
    st.builds(lambda low, size: distance(-low, size - low), st.integers(0, 3), SMALL),
)
LEAVES = {
    'bands': BANDS,
    'sinks': SMALL.map(sinks),
    'distance': st.builds(
        lambda low, size: distance(low, low + size if size else None), st.integers(-4, 4), st.integers(0, 6)
    ),
    'chunk_distance': st.builds(
        lambda size, low, count: chunk_distance(size, low, low + count if count else None),
        SMALL,
        st.integers(-2, 2),
        st.integers(0, 3),
    ),
    'prefix': SMALL.map(prefix),
    'chunked': SMALL.map(chunked),
    'shifted_groups': SMALL.map(lambda half: shifted_groups(2 * half)),
    'dilated': st.builds(lambda a, b: dilated(max(a, b), min(a, b)), SMALL, SMALL),
    'strided': SMALL.map(strided),
    'global_tokens': SMALL.map(global_tokens),
    'random_blocks': st.builds(random_blocks, SMALL, st.integers(1, 3), st.integers(-1, 3)),
}


def composed(leaves, *joins):
    return st.recursive(
        leaves,
        lambda inner: st.builds(
            lambda join, parts: join(*parts),
            st.sampled_from(joins),
            st.lists(inner, min_size=1, max_size=3),
        ),
        max_leaves=5,
    )


COMPOSED = composed(st.one_of(*LEAVES.values()), both, either)


def examples(count: int):
    return settings(max_examples=count, deadline=None, derandomize=True)


@pytest.mark.parametrize('name', LEAVES)
def test_blocks_are_never_judged_wrongly(name):
    @examples(12)
    @given(LEAVES[name])
    def judge(rule):
        never_wrong(rule)

    judge()


@examples(60)
@given(COMPOSED)
def test_blocks_are_never_judged_wrongly_by_compositions(rule):
    never_wrong(rule)


def never_wrong(rule):
    maybe, surely = judged(rule, BLOCKS).T
    some, all_ = is_so(rule, BLOCKS).T
    assert not np.any(some & ~maybe) and not np.any(surely & ~all_)


AT_ANY_PLACE = [
    causal,
    everything,
    same_segment,
    window(5),
    window(7),
    distance(5),
    distance(3, 8),
    distance(-2, 9),
    chunk_distance(6, 1, 2),
    chunk_distance(8, 1),
    sinks(3),
    sinks(8),
    prefix(6),
    chunked(6),
    chunked(8),
    shifted_groups(6),
    shifted_groups(8),
    strided(11),
    global_tokens(6),
    both(causal, window(8)),
]
IN_STEP = [
    dilated(12, 3),
    dilated(8, 4),
    random_blocks(4, 2),
    random_blocks(8, 3),
    both(causal, same_segment),
]


@pytest.mark.parametrize(
    ('rule', 'shift'), [(rule, shift) for shift in (0, 3) for rule in AT_ANY_PLACE + IN_STEP * (shift == 0)]
)
def test_blocks_of_neighbours_are_judged_exactly(rule, shift):
    """Where a rule could skip a block or its mask and does not, kernels do work for nothing."""
    pos = np.arange(12 * SIZE).reshape(-1, SIZE) - 12
    q, k = np.repeat(pos, len(pos), axis=0), np.tile(pos - shift, (len(pos), 1))
    where = Where(q, k, 9 + q // 12, 9 + k // 12, np.arange(4))  # documents of three blocks
    found = judged(rule, where)
    np.testing.assert_array_equal(found, is_so(rule, where))
    assert rule is everything or len(np.unique(found, axis=0)) > 1


def test_bounds_may_be_arrays_of_blocks():
    """As kernels ask: queries 'nq 1 B' against keys '1 nk B'."""
    q, k = jnp.arange(6).reshape(3, 1, 2), jnp.arange(8).reshape(1, 4, 2)
    for rule in PICTURED.values():
        for answer in (rule.maybe, rule.surely):
            found = answer(masks.Bounds(q, q, k, k, q, q, k, k))
            assert found.dtype == bool and np.broadcast_to(found, (3, 4, 2)).shape == (3, 4, 2)


@examples(60)
@given(st.one_of(composed(BANDS, both), COMPOSED))
def test_a_band_is_the_whole_rule(rule):
    if rule.band is None:
        return
    behind, ahead, segments = rule.band
    q, k = BLOCKS.q_pos[:, :, None], BLOCKS.k_pos[:, None, :]
    expected = np.ones((len(q), SIZE, SIZE), bool)
    if behind is not None:
        expected &= k >= q - behind
    if ahead is not None:
        expected &= k <= q + ahead
    if segments:
        expected &= BLOCKS.q_seg[:, :, None] == BLOCKS.k_seg[:, None, :]
    found = np.broadcast_to(rule.allow(BLOCKS), (len(q), 1, SIZE, SIZE))
    np.testing.assert_array_equal(found[:, 0], expected)


@pytest.mark.parametrize(
    ('rule', 'band'),
    [
        (causal, Band(None, 0, False)),
        (window(3), Band(2, 2, False)),
        (distance(0), Band(None, 0, False)),
        (distance(-2, 5), Band(4, 2, False)),
        (distance(1, 5), None),
        (everything, Band(None, None, False)),
        (same_segment, Band(None, None, True)),
        (both(causal, window(5), same_segment, window(3)), Band(2, 0, True)),
        (either(causal, both(causal, everything)), Band(None, 0, False)),
        (either(causal, window(3)), None),
        (both(causal, sinks(2)), None),
        (both(causal, chunked(4)), None),
        (prefix(3), None),
    ],
)
def test_bands(rule, band):
    assert rule.band == band
