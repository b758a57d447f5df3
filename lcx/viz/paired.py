"""Differences between labels on the same texts: what single windows tell that means over windows do not.

Windows are easy or hard for every model alike, so the error of a mean is that of the texts. The difference of two
models on one text has none of it. Rows of :mod:`lcx.eval.windows` are paired by length and digest of the text.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from lcx.errors import ConfigError, unknown
from lcx.viz.results import Column, Comparison, Measure, Series, Value, find, newest, read

COLUMN = 'last_nats'


def compare(directories: Sequence[Path], reference: str | None = None) -> list[Comparison]:
    """One Comparison of every label with ``reference`` (default: the first label), or none without pairs.

    Values are nats per token over the last tokens of each window, less those of the reference on the same text.

    Raises:
      ConfigError: no rows of single windows have the label ``reference``.
    """
    scores: dict[str, dict[tuple[int, str], float]] = {}
    lasts, trained = set(), {}
    for path in find(directories):
        for row in newest(read(path)):
            if 'window' in row and row.get(COLUMN) is not None:
                scores.setdefault(row['label'], {})[row['length'], row['text']] = row[COLUMN]
                lasts.add(row['last'])
                trained[row['label']] = row.get('trained_length')
    if reference is not None and reference not in scores:
        raise ConfigError(unknown('reference', reference, scores or ['none: no rows of single windows']))
    if len(scores) < 2 or len(lasts) > 1:
        return []
    base = next(iter(scores)) if reference is None else reference
    series = [
        Series(label, trained[label], differences(found, scores[base])) for label, found in scores.items()
    ]
    series = [s for s in series if s.label != base and s.values]
    if not series:
        return []
    pairs = sorted({sum(key[0] == c.end for key in scores[base]) for s in series for c in s.values})
    words = f'Nats per token over the last {lasts.pop()}, less those of {base} on the same text'
    return [
        Comparison(
            evaluator='window_perplexity_paired',
            measure=Measure(COLUMN, words, min, digits=4),
            title=words,
            note=f'below 0 is better than {base}, {" or ".join(map(str, pairs))} pairs, ± standard error over pairs',
            columns=tuple(sorted({c for s in series for c in s.values}, key=lambda column: column.end)),
            series=tuple(series),
        )
    ]


def differences(
    scores: dict[tuple[int, str], float], base: dict[tuple[int, str], float]
) -> dict[Column, Value]:
    """Mean and standard error of ``scores`` less ``base`` by length, over the texts that both have."""
    by_length: dict[int, list[float]] = {}
    for (length, text), value in scores.items():
        if (length, text) in base:
            by_length.setdefault(length, []).append(value - base[length, text])
    found = {}
    for length, values in by_length.items():
        error = float(np.std(values, ddof=1)) / math.sqrt(len(values)) if len(values) > 1 else None
        found[Column(None, length)] = Value(float(np.mean(values)), error)
    return found
