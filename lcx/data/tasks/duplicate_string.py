"""Duplicate string: the question twice.

    101=101101

A context-sensitive language, one of the 15 tasks of Delétang et al. 2023, arXiv:2207.02098, with their two symbols.
"""

from __future__ import annotations

from lcx.data.tasks.api import StringTask


class DuplicateString(StringTask):
    """See the module."""

    name = 'duplicate_string'
    symbols = '01'

    def answer(self, question: str) -> str:
        """The string and the string."""
        return question + question

    def answer_size(self, size: int) -> int:
        """Twice the question."""
        return 2 * size
