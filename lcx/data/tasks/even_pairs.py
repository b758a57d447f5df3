"""Even pairs: are there as many changes from 0 to 1 as back, or one more or less of them?

    001110=0        0101001=1        (0: pairs 01 and 10 make an even number; 1: an odd one)

A regular language, one of the 15 tasks of Delétang et al. 2023, arXiv:2207.02098. Though it speaks of all pairs, the
number is even exactly if the string ends as it began. A guess is right once in two.
"""

from __future__ import annotations

from lcx.data.tasks.api import SymbolTask


class EvenPairs(SymbolTask):
    """See the module."""

    name = 'even_pairs'
    symbols = '01'

    def answer(self, question: str) -> str:
        """The parity of the number of unequal neighbours."""
        return '01'[question[0] != question[-1]]
