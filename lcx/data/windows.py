"""Evaluation windows: the text before random places of long documents."""

from __future__ import annotations

import numpy as np

from lcx.data.tokens import Tokens
from lcx.errors import DataError


def windows(tokens: Tokens, *, length: int, count: int, seed: int) -> list[np.ndarray]:
    """``count`` arrays of ``length`` + 1 tokens, int32: inputs and, one further on, targets.

    Each lies inside one document and ends at a random place of it; no two from a document end at the same
    place while it has others. The windows are spread over the documents that are long enough as evenly as can
    be: the numbers of any two documents differ by one at most. The suffixes of a window are shorter windows
    with the same end, so scores at several lengths can compare the same targets.

    Raises:
      DataError: no document is long enough.
    """
    long_enough = np.flatnonzero(tokens.lengths > length)
    if not len(long_enough):
        longest = int(tokens.lengths.max())
        raise DataError(
            f'{tokens.label} has no document of {length + 1} tokens for a window of length {length}: the '
            f'longest has {longest}, enough for length {longest - 1}.'
        )
    random = np.random.default_rng(seed)
    order = random.permutation(long_enough)
    share, rest = divmod(count, len(order))
    found = []
    for rank, document in enumerate(order):
        wanted = share + (rank < rest)
        places = int(tokens.lengths[document]) - length  # ends length + 1, ..., the document's length
        starts = random.choice(places, size=wanted, replace=wanted > places)
        ids = tokens[document]
        found += [ids[start : start + length + 1] for start in starts]
    return found
