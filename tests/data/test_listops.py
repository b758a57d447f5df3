"""ListOps: trees of exactly the size asked for, with the probabilities of the Arena's generator."""

import functools
from fractions import Fraction

import numpy as np
import pytest

from lcx.data.tasks import TASKS
from lcx.data.tasks.listops import LARGEST, LEVELS, MOST_ARGUMENTS, convolve, levels
from lcx.data.tokenizers import Bytes
from lcx.errors import DataError

ONE_IN_FOUR, NINTH = Fraction(1, 4), Fraction(1, 9)


@functools.cache
def chance(size: int, height: int) -> Fraction:
    """Of a tree of ``size`` tokens by the generator's own recursion, with ``height`` levels of operators left."""
    digit = Fraction(size == 1) * (1 if height == 0 else 1 - ONE_IN_FOUR)
    if height == 0:
        return digit
    return digit + ONE_IN_FOUR * sum(NINTH * several(k, size - 2, height - 1) for k in range(2, 11))


@functools.cache
def several(count: int, size: int, height: int) -> Fraction:
    if count == 0:
        return Fraction(size == 0)
    return sum(chance(n, height) * several(count - 1, size - n, height) for n in range(1, size + 1))


def shapes(size: int, height: int = LEVELS):
    """(shape, probability) of all trees of a size; digits are 0 and operators X."""
    if size == 1:
        yield '0', (1 - ONE_IN_FOUR)
    for count in range(2, min(MOST_ARGUMENTS, size - 2) + 1):
        for inner, p in rows_of(count, size - 2, height - 1):
            yield f'X{inner}]', ONE_IN_FOUR * NINTH * p


def rows_of(count: int, size: int, height: int):
    if count == 0:
        yield from [('', Fraction(1))] if size == 0 else []
        return
    for n in range(1, size - count + 2):
        for first, p in shapes(n, height):
            for rest, q in rows_of(count - 1, size - n, height):
                yield first + rest, p * q


def test_probabilities_of_sizes_are_those_of_the_recursion():
    found = levels(16)
    assert len(found) == LEVELS
    for height in (0, 1, 2, 3, 8):
        np.testing.assert_allclose(
            found[height].tree, [float(chance(n, height)) for n in range(17)], rtol=1e-12, atol=0
        )
    for count in (2, 3, 10):
        np.testing.assert_allclose(
            found[2].trees[count], [float(several(count, n, 2)) for n in range(17)], rtol=1e-12, atol=0
        )
    assert found[1].tree.sum() == 1  # 12 tokens are the most with one level, and 122 with two
    assert abs(levels(128)[2].tree.sum() - 1) < 1e-12


def test_trees_of_a_size_are_as_probable_as_the_generator_makes_them():
    known = dict(shapes(10))
    total, draws = sum(known.values()), 4000
    task, random = TASKS['listops'](Bytes()), np.random.default_rng(0)
    unlettered = str.maketrans('0123456789NDS', '0000000000XXX')
    drawn = [task.draw(random, 10)[0].translate(unlettered) for _ in range(draws)]
    assert set(drawn) <= set(known)
    expected = np.array([float(p / total) * draws for p in known.values()])
    counts = np.array([drawn.count(shape) for shape in known])
    rare = expected < 5
    counts, expected = ([*x[~rare], x[rare].sum()] for x in (counts, expected))
    statistic = sum((c - e) ** 2 / e for c, e in zip(counts, expected) if e)
    assert len(counts) > 20 and statistic < len(counts) + 5 * (2 * len(counts)) ** 0.5


def test_trees_have_the_size_and_are_not_too_deep_or_wide():
    task, random = TASKS['listops'](Bytes()), np.random.default_rng(0)
    depths, operators = [], ''
    for size in (4, 5, 6, 7, 100, 500, 1000):
        for _ in range(5):
            question, _ = task.draw(random, size)
            assert len(question) == size
            depth, counts = 0, [0]
            for c in question:
                if c == ']':
                    assert 2 <= counts.pop() <= MOST_ARGUMENTS
                else:
                    counts[-1] += 1
                    if not c.isdigit():
                        counts.append(0)
                depth = max(depth, len(counts) - 1)
            assert counts == [1]
            depths.append(depth)
            operators += ''.join(c for c in question if c in 'XNDS')
    assert max(depths) == LEVELS  # reached, and not exceeded
    assert min(operators.count(c) for c in 'XNDS') > 0.2 * len(operators)


def test_parts_of_a_convolution_make_the_whole():
    first, second = np.random.default_rng(0).random((2, 9000))
    np.testing.assert_allclose(convolve(first, second), np.convolve(first, second)[:9000], rtol=1e-12)


def test_too_large_trees_are_refused():
    with pytest.raises(DataError, match='listops: a tree of 32769 tokens is too large; the most are 32768'):
        TASKS['listops'](Bytes()).draw(np.random.default_rng(0), LARGEST + 1)
