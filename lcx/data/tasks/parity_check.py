"""Parity check: is the number of ones odd?

    1010100=1        01111=0

A regular language, one of the 15 tasks of Delétang et al. 2023, arXiv:2207.02098. A guess is right once in two.
"""

from __future__ import annotations

from lcx.data.tasks.api import SymbolTask


class ParityCheck(SymbolTask):
    """See the module."""

    name = 'parity_check'
    symbols = '01'

    def answer(self, question: str) -> str:
        """The number of ones modulo 2."""
        return '01'[question.count('1') % 2]
