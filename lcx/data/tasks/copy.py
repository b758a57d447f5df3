"""Copy: the question once more.

    cabbad=cabbad

Of the length-generalization study of Kazemnejad et al. 2023, arXiv:2305.19466. Eight letters: most strings of more
than a few have repeated pairs, so that what follows must be found by where it is, not only by what is before it.
"""

from __future__ import annotations

from lcx.data.tasks.api import StringTask


class Copy(StringTask):
    """See the module."""

    name = 'copy'
    symbols = 'abcdefgh'

    def answer(self, question: str) -> str:
        """The same string."""
        return question
