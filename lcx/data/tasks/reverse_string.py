"""Reverse string: the question from its end.

    011010=010110

A deterministic context-free language, one of the 15 tasks of Delétang et al. 2023, arXiv:2207.02098, with their two
symbols.
"""

from __future__ import annotations

from lcx.data.tasks.api import StringTask


class ReverseString(StringTask):
    """See the module."""

    name = 'reverse_string'
    symbols = '01'

    def answer(self, question: str) -> str:
        """The characters, last to first."""
        return question[::-1]
