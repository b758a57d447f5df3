"""Selective copy: the letters of the question, without the noise between them.

    c..a.ba.=caba

Of Gu & Dao 2023, arXiv:2312.00752 (after Jing et al. 2019, arXiv:1706.02761): 16 letters at random places of 4096, and
16 symbols in all, noise included. Questions of less than 32 are half noise.
"""

from __future__ import annotations

import numpy as np

from lcx.data.tasks.api import StringTask

LETTERS = 'abcdefghijklmno'
COUNT = 16


class SelectiveCopy(StringTask):
    """See the module."""

    name = 'selective_copy'
    symbols = f'.{LETTERS}'

    def draw(self, random: np.random.Generator, size: int) -> tuple[str, str]:
        """Letters in noise, and the letters."""
        letters = random.choice(list(LETTERS), self.answer_size(size))
        question = np.full(size, '.')
        question[np.sort(random.choice(size, len(letters), replace=False))] = letters
        return ''.join(question), ''.join(letters)

    def answer_size(self, size: int) -> int:
        """16, or half the question, rounded up."""
        return min(COUNT, -(-size // 2))
