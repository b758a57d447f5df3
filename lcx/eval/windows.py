"""Perplexity window by window: one row for each text and length.

What takes hours can be cut off and goes on where it was, and two models that read the same windows are compared
pair by pair: the difference has a far smaller error than either value (``lcx report`` shows it). Windows are those of
:mod:`lcx.eval.perplexity`: texts that end at the same token at every length.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator

import numpy as np

from lcx.data.windows import windows
from lcx.eval.api import Apply, Context, digest, needs_text, scored, whole_rows
from lcx.types import Row, Tree


class WindowPerplexity:
    """Yields a row for each length and window: ``nats`` per token, and ``last_nats`` of the last ``last`` tokens.

    ``text`` is a digest of the window's longest form: rows of one text may be paired.
    """

    name = 'window_perplexity'
    writes = False
    scores = True

    def __init__(self, context: Context) -> None:
        self.config = context.config
        self.token_bytes = context.tokenizer.token_bytes
        longest = self.config.lengths[-1]
        found = windows(
            needs_text(context, self.name), length=longest, count=self.config.windows, seed=context.seed
        )
        self.ids = np.stack(found)
        self.texts = [digest(ids) for ids in found]
        self.expected = dict.fromkeys(self.config.lengths, len(found))

    def run(self, apply: Apply, params: Tree, done: Collection[Row] = ()) -> Iterator[Row]:
        """See the class; rows that are among ``done`` are left out."""
        known = {
            (row['length'], row['window'], row['text'])
            for row in done
            if row['evaluator'] == self.name and row['last'] == self.config.last
        }
        for length in self.config.lengths:
            left = [i for i, text in enumerate(self.texts) if (length, i, text) not in known]
            size = max(1, min(len(self.ids), self.config.tokens // length))
            for start in range(0, len(left), size):
                numbers = left[start : start + size]
                batch = whole_rows(self.ids[numbers, -(length + 1) :], self.config.last)
                nll = scored(apply, params, batch, self.config.tokens, rows=size).nll.astype(np.float64)
                for number, nats, targets in zip(numbers, nll, batch.targets):
                    yield self._row(length, number, nats, self.token_bytes[targets])

    def _row(self, length: int, number: int, nll: np.ndarray, size: np.ndarray) -> Row:
        last = self.config.last
        row = {
            'evaluator': self.name,
            'length': length,
            'window': number,
            'text': self.texts[number],
            'last': last,
        }
        for prefix, part in (('', slice(None)), ('last_', slice(-last, None))):
            row[f'{prefix}nats'] = float(nll[part].mean())
            row[f'{prefix}bits_per_byte'] = float(nll[part].sum() / np.log(2) / max(size[part].sum(), 1))
        return row
