"""Missing duplicate: a string twice, with one symbol hidden; which?

    011001_0=1        1011_1.=0

A context-sensitive language, one of the 15 tasks of Delétang et al. 2023, arXiv:2207.02098. The hidden symbol is any of
the two strings, each as probable as another; a full stop fills odd sizes. A guess is right once in two.
"""

from __future__ import annotations

import numpy as np

from lcx.data.tasks.api import SymbolTask


class MissingDuplicate(SymbolTask):
    """See the module."""

    name = 'missing_duplicate'
    symbols = '01_.'
    smallest = 2

    def draw(self, random: np.random.Generator, size: int) -> tuple[str, str]:
        """Two strings with a gap, and what was there."""
        both = 2 * ''.join(random.choice(list('01'), size // 2))
        place = int(random.integers(len(both)))
        return f'{both[:place]}_{both[place + 1 :]}{"." * (size % 2)}', both[place]
