"""Solve equation: which digit does x stand for, modulo 5?

    (1-x)=3:3        ((x+2)-(-4))=0:4

A deterministic context-free language, one of the 15 tasks of Delétang et al. 2023, arXiv:2207.02098: the expressions of
:mod:`lcx.data.tasks.modular_arithmetic_brackets` without products, so that there is one solution, followed by their
value; x is the digit at or after a random place, round to the beginning. A colon separates the answer. A guess is right
once in five.
"""

from __future__ import annotations

import numpy as np

from lcx.data.tasks.api import SymbolTask
from lcx.data.tasks.modular_arithmetic_brackets import expression


class SolveEquation(SymbolTask):
    """See the module."""

    name = 'solve_equation'
    symbols = '01234+-()x='
    separator = ':'
    smallest = 3

    def draw(self, random: np.random.Generator, size: int) -> tuple[str, str]:
        """An equation and the digit that x stands for."""
        text, value = expression(random, size - 2, '+-')
        start = int(random.integers(len(text)))
        place = next(i % len(text) for i in range(start, start + len(text)) if text[i % len(text)].isdigit())
        return f'{text[:place]}x{text[place + 1 :]}={value}', text[place]
