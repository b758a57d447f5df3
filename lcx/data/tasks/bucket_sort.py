"""Bucket sort: the question's symbols in ascending order.

    42103=01234        31133=11333

One of the 15 tasks of Delétang et al. 2023, arXiv:2207.02098, and of the randomized positional encodings of Ruoss et
al. 2023, arXiv:2305.16843, with their five symbols: a guess is right once in five.
"""

from __future__ import annotations

from lcx.data.tasks.api import StringTask


class BucketSort(StringTask):
    """See the module."""

    name = 'bucket_sort'
    symbols = '01234'

    def answer(self, question: str) -> str:
        """The characters, sorted."""
        return ''.join(sorted(question))
