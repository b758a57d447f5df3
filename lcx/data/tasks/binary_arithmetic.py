"""Binary addition and multiplication, least digit first.

    001+01101=01011        (4 + 22 = 26)        1001+000001=100101        (9 + 32 = 41)
    001*01101=0001101      (4 * 22 = 88)        1001*000001=000001001     (9 * 32 = 288)

Context-sensitive, two of the 15 tasks of Delétang et al. 2023, arXiv:2207.02098. All ways to divide the question
between the two numbers are equally probable, and so are all numbers above 0 of a length; they may end in zeros, answers
do not. Where the paper's answers have a terminator and zeros to fill ``size + 1`` places (sums) or ``size`` (products),
a row has its end.
"""

from __future__ import annotations

import numpy as np

from lcx.data.tasks.api import StringTask


def above_zero(random: np.random.Generator, size: int) -> str:
    """``size`` binary digits of which one at least is 1."""
    while True:
        digits = ''.join(random.choice(list('01'), size))
        if '1' in digits:
            return digits


class _BinaryArithmetic(StringTask):
    smallest = 3
    operator: str

    def draw(self, random: np.random.Generator, size: int) -> tuple[str, str]:
        """Two numbers, and what they make."""
        first = int(random.integers(1, size - 1))
        numbers = above_zero(random, first), above_zero(random, size - 1 - first)
        value = self.value(*(int(digits[::-1], 2) for digits in numbers))
        return self.operator.join(numbers), f'{value:b}'[::-1]

    def value(self, first: int, second: int) -> int:
        """What the two numbers make."""
        raise NotImplementedError(f'{type(self).__name__} does not say what two numbers make.')

    def answer_size(self, size: int) -> int:
        """All digits of both numbers, or the carry of the longest and a single one."""
        return size - 1


class BinaryAddition(_BinaryArithmetic):
    """See the module."""

    name = 'binary_addition'
    symbols = '01+'
    operator = '+'

    def value(self, first: int, second: int) -> int:
        """The sum."""
        return first + second


class BinaryMultiplication(_BinaryArithmetic):
    """See the module."""

    name = 'binary_multiplication'
    symbols = '01*'
    operator = '*'

    def value(self, first: int, second: int) -> int:
        """The product."""
        return first * second
