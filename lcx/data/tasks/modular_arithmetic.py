"""Modular arithmetic, simple: the value of sums and products without brackets, modulo 5.

    1+2*3=2        1-1-1=4        0*1+4*3-2=0

A regular language (a product needs no more memory than its value), one of the 15 tasks of Delétang et al. 2023,
arXiv:2207.02098. Expressions have an odd length: of an even size they are one shorter. A guess is right once in five.
"""

from __future__ import annotations

import numpy as np

from lcx.data.tasks.api import SymbolTask

MODULUS = 5


class ModularArithmetic(SymbolTask):
    """See the module."""

    name = 'modular_arithmetic'
    symbols = '01234+-*'

    def draw(self, random: np.random.Generator, size: int) -> tuple[str, str]:
        """Random digits with random operators between them, and the value."""
        digits = random.integers(MODULUS, size=(size + 1) // 2).tolist()
        operators = random.choice(list('+-*'), len(digits) - 1).tolist()
        total, product = 0, digits[0]  # of the products that ended, and of the one that goes on
        for operator, digit in zip(operators, digits[1:], strict=True):
            if operator == '*':
                product = product * digit % MODULUS
            else:
                total, product = total + product, digit if operator == '+' else -digit
        question = str(digits[0]) + ''.join(f'{o}{d}' for o, d in zip(operators, digits[1:], strict=True))
        return question, str((total + product) % MODULUS)
