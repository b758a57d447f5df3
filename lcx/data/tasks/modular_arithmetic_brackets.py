"""Modular arithmetic with brackets: the value of a nested expression, modulo 5.

    ((2*3)-(-4))=0        (1+(0-3))=3        -2=3

A deterministic context-free language, one of the 15 tasks of Delétang et al. 2023, arXiv:2207.02098, whose grammar this
is: expressions of 1 to 4 characters are d, -d, (d) and (-d); longer ones are (A+B), (A-B) or (A*B), where all sizes of
A that leave something to B are equally probable. A guess is right once in five.
"""

from __future__ import annotations

import operator

import numpy as np

from lcx.data.tasks.api import SymbolTask

MODULUS = 5
OPERATORS = {'+': operator.add, '-': operator.sub, '*': operator.mul}
# By size, up to 4: how it is written and the sign of its value.
SHORT = {1: ('{}', 1), 2: ('-{}', -1), 3: ('({})', 1), 4: ('(-{})', -1)}


def expression(random: np.random.Generator, size: int, operators: str) -> tuple[str, int]:
    """An expression of ``size`` characters over some of the operators, and its value."""
    text, values = [], []
    ahead: list = [size]  # characters to write, sizes of expressions, and what to do with the last two values
    while ahead:
        part = ahead.pop()
        if isinstance(part, str):
            text.append(part)
        elif callable(part):
            second, first = values.pop(), values.pop()
            values.append(part(first, second) % MODULUS)
        elif part in SHORT:
            form, sign = SHORT[part]
            digit = int(random.integers(MODULUS))
            text.append(form.format(digit))
            values.append(sign * digit % MODULUS)
        else:
            left = int(random.integers(1, part - 3))
            between = operators[random.integers(len(operators))]
            ahead += [OPERATORS[between], ')', part - 3 - left, between, left, '(']
    return ''.join(text), values.pop()


class ModularArithmeticBrackets(SymbolTask):
    """See the module."""

    name = 'modular_arithmetic_brackets'
    symbols = '01234+-*()'

    def draw(self, random: np.random.Generator, size: int) -> tuple[str, str]:
        """An expression and its value."""
        question, value = expression(random, size, '+-*')
        return question, str(value)
