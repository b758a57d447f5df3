"""Rules give the pictures of their docstrings, and never skip a block that holds an allowed pair."""

import ast
import inspect
import re
import textwrap

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lcx.attention import masks
from lcx.attention.masks import both, causal, either, everything, prefix, same_segment, sinks, window
from lcx.errors import ConfigError
from lcx.types import PADDING, Where

SEGMENTS = np.array([[1, 1, 1, 2, 2, 2]])
PICTURED = {
    'causal': causal,
    'same_segment': same_segment,
    'window': both(causal, window(3)),
    'sinks': both(causal, either(window(2), sinks(1))),
    'prefix': prefix(3),
}


def pictures() -> dict[str, list[str]]:
    """The six rows of 0s and 1s in the docstring of every rule of masks.py, functions and constants alike."""
    found, previous = {}, None
    for node in ast.parse(inspect.getsource(masks)).body:
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
    where = Where.plain(1, 6, 6, heads=1)
    if name == 'same_segment':
        where = where._replace(q_seg=SEGMENTS, k_seg=SEGMENTS)
    seen = np.array(masks.visible(PICTURED[name], where))[0, 0].astype(int)
    assert [' '.join(map(str, row)) for row in seen] == pictures()[name]


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
    assert both() is everything and both(causal) is causal and either(causal) is causal


def bounds(where: Where) -> masks.Bounds:
    """Bounds of one block of queries and one of keys, from the definition."""
    ends = []
    for pos, seg in ((where.q_pos, where.q_seg), (where.k_pos, where.k_seg)):
        real = seg != PADDING
        big = np.iinfo(np.int32).max
        ends.append(
            [f(x[real], initial=end) for x in (pos, seg) for f, end in ((np.min, big), (np.max, -big))]
        )
    q, k = ends
    return masks.Bounds(*q[:2], *k[:2], *q[2:], *k[2:])


SIZE = 4  # tokens in a block
SMALL = st.integers(1, 6)
LEAVES = st.one_of(
    st.sampled_from([causal, everything, same_segment]),
    SMALL.map(window),
    SMALL.map(sinks),
    SMALL.map(prefix),
)
COMPOSED = st.recursive(
    LEAVES,
    lambda inner: st.builds(
        lambda join, rules: join(*rules),
        st.sampled_from([both, either]),
        st.lists(inner, min_size=1, max_size=3),
    ),
    max_leaves=5,
)


def numbers(low: int, high: int):
    return st.lists(st.integers(low, high), min_size=SIZE, max_size=SIZE).map(
        lambda x: np.array([x], np.int32)
    )


@settings(max_examples=200, deadline=None, derandomize=True)
@given(COMPOSED, numbers(-3, 20), numbers(-3, 20), numbers(0, 3), numbers(0, 3))
def test_maybe_never_says_no_wrongly(rule, q_pos, k_pos, q_seg, k_seg):
    where = Where(q_pos, k_pos, q_seg, k_seg, np.arange(1))
    assert not np.any(masks.visible(rule, where)) or rule.maybe(bounds(where))


@pytest.mark.parametrize('rule', [causal, same_segment, window(5), sinks(3), prefix(6), PICTURED['window']])
def test_maybe_is_exact_on_blocks_of_neighbours(rule):
    """Where a rule could say no and does not, kernels do work for nothing."""
    pos = np.arange(8 * SIZE).reshape(-1, 1, SIZE)
    seg = 1 + pos // 12  # documents of three blocks
    for i in range(len(pos)):
        for j in range(len(pos)):
            where = Where(pos[i], pos[j], seg[i], seg[j], np.arange(1))
            assert np.any(masks.visible(rule, where)) == rule.maybe(bounds(where)), (i, j)


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        ({'name': 'windov', 'size': 4}, "rule.name: unknown 'windov'. Did you mean 'window'?"),
        ({'name': 'window', 'length': 4}, r"rule.length \(of 'window'\): unknown 'length'.* Choices: size"),
        ({'name': 'window', 'size': 4.0}, 'rule.size: 4.0 is a float; expected a int'),
        ({'name': 'window'}, "rule.size: 'window' needs it"),
        ({'name': 'window', 'size': 0}, 'rule.size: 0 must be at least 1'),
        ({'name': 'sinks', 'count': -1}, 'rule.count: -1 must be at least 1'),
        ({'name': 'causal', 'size': 4}, 'it has no options'),
        ({'name': 'either', 'rules': ()}, r'rule.rules: either\(\) needs at least one'),
        (
            {'name': 'either', 'rules': ({'name': 'causal'}, {'name': 'sink'})},
            r'rule.rules\[1\].name: unknown',
        ),
        (
            {'name': 'either', 'rules': ('causal',)},
            r"rule.rules\[0\]: 'causal' is a str; expected named fields",
        ),
    ],
)
def test_errors_name_the_option(options, message):
    with pytest.raises(ConfigError, match=message):
        masks.from_options(options)


def test_options_make_the_same_rules():
    nested = {'name': 'either', 'rules': [{'name': 'window', 'size': 2}, {'name': 'sinks', 'count': 1}]}
    assert masks.from_options(nested) is either(window(2), sinks(1))
    assert masks.from_options({'name': 'causal'}) is causal
