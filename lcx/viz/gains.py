"""The gain of context: how much of the loss of the same tokens a longer context saves."""

from __future__ import annotations

import math
from collections.abc import Sequence

from lcx.types import Row

# Columns of which rows of gains have none.
_SCORES = tuple(
    f'{prefix}{name}{suffix}'
    for prefix in ('', 'last_')
    for name in ('bits_per_byte', 'nats', 'ppl')
    for suffix in ('', '_stderr')
)


def with_gains(rows: Sequence[Row]) -> list[Row]:
    """``rows``, and of those that tell the gain of context one more each, of an evaluator whose name ends in '_gain'.

    Whole rows have it as ``gain_nats``. Of single windows it is the nats of the last targets at the shortest length
    less those at the row's, of one text: so the error of its mean is that of pairs.
    """
    shortest: dict[tuple, Row] = {}
    for row in rows:
        key = row['label'], row['evaluator'], row.get('text')
        if _paired(row) and row['length'] < shortest.get(key, {'length': math.inf})['length']:
            shortest[key] = row
    found = list(rows)
    for row in rows:
        rest = {k: v for k, v in row.items() if k not in _SCORES}
        more = {**rest, 'evaluator': f'{row["evaluator"]}_gain'}
        if row.get('gain_nats') is not None:
            found.append({**more, **{k: v for k, v in row.items() if k.startswith('gain_nats')}})
        elif _paired(row):
            first = shortest[row['label'], row['evaluator'], row['text']]
            found.append(
                {**more, 'short': first['length'], 'gain_nats': first['last_nats'] - row['last_nats']}
            )
    return found


def _paired(row: Row) -> bool:
    return 'window' in row and 'text' in row and row.get('last_nats') is not None
