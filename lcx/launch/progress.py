"""How far an evaluation is, for the person who waits for it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping

from lcx.train.progress import duration
from lcx.types import Row


class Progress:
    """Rows of one evaluator, of how many, and how long the rest will take: for a token as long as at this length.

    That is too little while longer texts follow, whose tokens take more each, and right at the longest length.
    """

    def __init__(self, name: str, expected: Mapping[int, int], done: Iterable[Row] = ()) -> None:
        """``expected`` are rows by length, ``done`` those of an attempt before."""
        self.name, self.left, self.total = name, Counter(expected), sum(expected.values())
        self.length, self.tokens, self.seconds = 0, 0, 0.0
        for row in done:
            self._count(row)

    def add(self, row: Row) -> str:
        """Counts a new row, with its ``seconds``: '37/80, eta 6 min', or nothing where no more than one is expected."""
        if not self._count(row) or self.total < 2:
            return ''
        if row['length'] != self.length:
            self.length, self.tokens, self.seconds = row['length'], 0, 0.0
        self.tokens += row['length']
        self.seconds += row['seconds']
        count = f'{self.total - sum(self.left.values())}/{self.total}'
        rest = sum(length * rows for length, rows in self.left.items())
        return f'{count}, eta {duration(self.seconds / self.tokens * rest)}' if rest else count

    def complete(self) -> bool:
        """Whether all rows are there that were expected."""
        return not any(self.left.values())

    def _count(self, row: Row) -> bool:
        """Takes a row off those that are left; whether it was one of them."""
        expected = row['evaluator'] == self.name and self.left[row['length']] > 0
        if expected:
            self.left[row['length']] -= 1
        return expected
