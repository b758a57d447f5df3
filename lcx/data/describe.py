"""What a data set holds: sizes, and how long its documents are.

Context extension needs long documents: a corpus whose documents end at 2,000 tokens teaches nothing about
8,000, whatever the packing. So the histogram of lengths belongs into every report.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from rich.console import Group
from rich.table import Table
from rich.text import Text

from lcx.data.config import DataConfig
from lcx.data.sources import splits
from lcx.data.tokens import Tokens, open_tokens

_BAR = 20  # characters of the longest bar


class Bin(NamedTuple):
    """Documents of ``start`` to 2 ``start`` - 1 tokens, and the shares of all that are at least so long."""

    start: int
    documents: int
    documents_from: float  # share of the documents of at least ``start`` tokens
    tokens_from: float  # share of all tokens that are in them


def histogram(lengths: np.ndarray) -> list[Bin]:
    """Bins by powers of two, from the shortest to the longest document's; empty documents are left out.

    >>> histogram(np.array([1, 5, 6]))[-1]
    Bin(start=4, documents=2, documents_from=0.6666666666666666, tokens_from=0.9166666666666666)
    """
    lengths = lengths[lengths > 0]
    if not len(lengths):
        return []
    bins = []
    for power in range(int(lengths.min()).bit_length() - 1, int(lengths.max()).bit_length()):
        longer = lengths[lengths >= 2**power]
        bins.append(
            Bin(
                2**power,
                int(np.sum(longer < 2 ** (power + 1))),
                len(longer) / len(lengths),
                float(longer.sum() / lengths.sum()),
            )
        )
    return bins


def describe(config: DataConfig) -> Group:
    """Tables for a terminal: the sizes of all splits, and each split's length histogram.

    Raises what :func:`lcx.data.tokens.open_tokens` raises.
    """
    held = {split: open_tokens(config, split) for split in splits(config)}
    return Group(_sizes(config, held), *(_lengths(split, tokens) for split, tokens in held.items()))


def _sizes(config: DataConfig, held: dict[str, Tokens]) -> Table:
    table = Table(title=f'{config.source}, tokenizer {config.tokenizer}', title_justify='left')
    table.add_column('split')
    for column in ('documents', 'tokens', 'bytes', 'median tokens', 'longest'):
        table.add_column(column, justify='right')
    for split, tokens in held.items():
        lengths = tokens.lengths
        numbers = (len(tokens), lengths.sum(), tokens.bytes, int(np.median(lengths)), lengths.max())
        table.add_row(split, *(f'{number:,}' for number in numbers))
    return table


def _lengths(split: str, tokens: Tokens) -> Table:
    table = Table(title=f'{split}: documents by length; ≥: share at least so long', title_justify='left')
    table.add_column('length', justify='right')
    table.add_column('documents', justify='right')
    table.add_column('', min_width=_BAR)
    table.add_column('documents ≥', justify='right')
    table.add_column('tokens ≥', justify='right')
    bins = histogram(tokens.lengths)
    most = max((bin.documents for bin in bins), default=1)
    for bin in bins:
        bar = Text('█' * -(-bin.documents * _BAR // most))
        table.add_row(
            f'{bin.start:,}', f'{bin.documents:,}', bar, f'{bin.documents_from:.1%}', f'{bin.tokens_from:.1%}'
        )
    return table
