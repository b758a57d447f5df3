"""ListOps: the value of nested lists of digits, under maximum, minimum, median and sum modulo 10.

    X29N47]0]=9        ([MAX 2 9 [MIN 4 7 ] 0 ])

One character for each token of the paper, so that lengths are theirs: X opens a maXimum, N a miNimum, D a meDian (of an
even number the mean of the middle two, rounded down), S a Sum; a bracket closes each. Of Nangia & Bowman 2018,
arXiv:1804.06028, as the Long Range Arena has it (Tay et al. 2020, arXiv:2011.04006): a tree is an operator once in four
and else a digit, has 2 to 10 arguments, and is ten levels deep at most, the last of them digits; of those trees the
ones with 500 to 2000 tokens are taken. Here a tree of exactly the size that is asked for is drawn, with the probability
that it has among the Arena's trees of this size. A guess is right once in ten.
"""

from __future__ import annotations

import functools
from typing import NamedTuple

import numpy as np

from lcx.data.tasks.api import SymbolTask
from lcx.errors import DataError

MOST_ARGUMENTS = 10
OPERATOR = 0.25  # the probability that a tree is no digit
LEVELS = 9  # of operators
LARGEST = 2**15  # tokens: one tree in 10^67 has so many; far beyond, that underflows
APPLY = {
    'X': max,
    'N': min,
    'D': lambda values: (sorted(values)[(len(values) - 1) // 2] + sorted(values)[len(values) // 2]) // 2,
    'S': lambda values: sum(values) % 10,
}


class Level(NamedTuple):
    """Probabilities of sizes, of trees with at most so many levels of operators."""

    tree: np.ndarray  # [n]: a tree has n tokens
    trees: np.ndarray  # [k, n]: k trees together have n


def convolve(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """As far as they are long, with errors relative to every element; parts so small that no library uses threads."""
    found, size = np.zeros_like(first), len(first)
    for start in range(0, size, 4096):
        found[start:] += np.convolve(first[start : start + 4096], second[: size - start])[: size - start]
    return found


@functools.cache
def levels(limit: int) -> tuple[Level, ...]:
    """From none to ``LEVELS - 1``, for sizes up to ``limit``: 0.1 s for 4096 and 10 s for 32768 on one CPU core."""
    digit = np.zeros(limit + 1)
    digit[1] = 1
    found, tree = [], digit
    for _ in range(LEVELS):
        trees = np.zeros((MOST_ARGUMENTS + 1, limit + 1))
        trees[0, 0] = 1
        for k in range(MOST_ARGUMENTS):
            trees[k + 1] = convolve(trees[k], tree)
        found.append(Level(tree, trees))
        tree = (1 - OPERATOR) * digit
        tree[2:] += OPERATOR * trees[2:, :-2].mean(axis=0)  # an operator and its bracket
    return tuple(found)


def arguments(random: np.random.Generator, level: Level, total: int) -> list[int]:
    """Sizes of an operator's arguments, which are ``total`` tokens together."""
    chances = np.cumsum(level.trees[2:, total])
    sizes = []
    for left in range(2 + int(np.searchsorted(chances, random.random() * chances[-1], 'right')), 1, -1):
        rest = level.trees[left - 1]
        mark = random.random() * level.trees[left, total] - level.tree[1] * rest[total - 1]
        if mark < 0:  # a digit: most are
            size = 1
        else:
            chances = np.cumsum(level.tree[2:total] * rest[total - 2 : 0 : -1])
            size = 2 + int(np.searchsorted(chances, min(mark, np.nextafter(chances[-1], 0)), 'right'))
        sizes.append(size)
        total -= size
    return [*sizes, total]


class ListOps(SymbolTask):
    """See the module."""

    name = 'listops'
    symbols = f'0123456789{"".join(APPLY)}]'
    smallest = 4  # an operator, two arguments, a bracket

    def draw(self, random: np.random.Generator, size: int) -> tuple[str, str]:
        """A tree and its value; raises DataError beyond ``LARGEST``."""
        if size > LARGEST:
            raise DataError(f'{self.name}: a tree of {size} tokens is too large; the most are {LARGEST}.')
        known = levels(1 << (size - 1).bit_length())
        text, ahead = [], [(size, LEVELS)]  # sizes of trees and their levels; the size 0 is a bracket
        while ahead:
            here, height = ahead.pop()
            if here == 0:
                text.append(']')
            elif here == 1:
                text.append(str(random.integers(10)))
            else:
                text.append('XNDS'[random.integers(4)])
                inner = arguments(random, known[height - 1], here - 2)
                ahead += [(0, 0), *((n, height - 1) for n in reversed(inner))]
        question = ''.join(text)
        return question, self.answer(question)

    def answer(self, question: str) -> str:
        """The value of a tree."""
        lists = [[]]  # the values so far of every list that is open, under one that holds the result
        for character in question:
            if character in APPLY:
                lists.append([character])
            elif character == ']':
                name, *values = lists.pop()
                lists[-1].append(APPLY[name](values))
            else:
                lists[-1].append(int(character))
        return str(lists[0][0])
