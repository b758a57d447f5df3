"""Odds first: the symbols at odd places, then those at even ones.

    00110101=01000111        110=101        (the first symbol is at place 1)

A context-sensitive language, one of the 15 tasks of Delétang et al. 2023, arXiv:2207.02098, with their two symbols.
This is what their paper defines; their code counts places from 0 and so has the other half first.
"""

from __future__ import annotations

from lcx.data.tasks.api import StringTask


class OddsFirst(StringTask):
    """See the module."""

    name = 'odds_first'
    symbols = '01'

    def answer(self, question: str) -> str:
        """Every second character, and the others."""
        return question[::2] + question[1::2]
