"""Induction heads: what followed the marker when it was there before?

    dcab>fgahhc>f

The marker stands once in the question, at any place that something follows, each as probable as another, and once more
behind it. Of Fu et al. 2023, arXiv:2212.14052, after the heads of Olsson et al. 2022, arXiv:2209.11895; with 16 symbols
in all, as Gu & Dao 2023, arXiv:2312.00752, trained it at length 256. A guess is right once in 15.
"""

from __future__ import annotations

import numpy as np

from lcx.data.tasks.api import SymbolTask

LETTERS = 'abcdefghijklmno'


class InductionHeads(SymbolTask):
    """See the module."""

    name = 'induction_heads'
    symbols = LETTERS
    separator = '>'
    smallest = 2

    def draw(self, random: np.random.Generator, size: int) -> tuple[str, str]:
        """Letters with a marker, and the letter behind it."""
        letters = ''.join(random.choice(list(LETTERS), size - 1))
        place = int(random.integers(size - 1))
        return f'{letters[:place]}>{letters[place:]}', letters[place]
