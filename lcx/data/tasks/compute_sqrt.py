"""Compute sqrt: the square root of a binary number, rounded down, greatest digit first.

    100101=110        (37: 6)        111=10        (7: 2)        000100=010        (4: 2)

Context-sensitive, one of the 15 tasks of Delétang et al. 2023, arXiv:2207.02098. All numbers above 0 with so many
digits are equally probable, zeros in front included; the answer has half as many digits, rounded up.
"""

from __future__ import annotations

import math

import numpy as np

from lcx.data.tasks.api import StringTask
from lcx.data.tasks.binary_arithmetic import above_zero


class ComputeSqrt(StringTask):
    """See the module."""

    name = 'compute_sqrt'
    symbols = '01'

    def draw(self, random: np.random.Generator, size: int) -> tuple[str, str]:
        """A number and its root."""
        question = above_zero(random, size)
        return question, f'{math.isqrt(int(question, 2)):0{self.answer_size(size)}b}'

    def answer_size(self, size: int) -> int:
        """Half the digits, rounded up."""
        return -(-size // 2)
