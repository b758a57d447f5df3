"""Bits per byte and perplexity by context length and by position.

At every length the same texts are scored, cut so that they end at the same token: the last ``last`` targets are the
same tokens with more or less context before them, so their score against length is the benefit of context alone. In
nats per token that is the gain of context,

    gain(length) = NLL(last targets | shortest length) - NLL(the same targets | length)

with the standard error of a mean of differences: pairs of one window, whose being easy or hard cancels.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator

import numpy as np

from lcx.data.windows import windows
from lcx.eval.api import Apply, Context, mean, needs_text, scored, whole_rows
from lcx.types import Row, Tree


class Perplexity:
    """Yields one ``perplexity`` row per length, and ``perplexity_by_position`` rows at the longest.

    ``bits_per_byte`` counts all targets of a window, ``last_bits_per_byte`` its last ``last``; each is the mean over
    windows with its standard error. ``ppl`` is exp of the mean nats per token. ``gain_nats`` is the gain of context
    beyond ``short``, the shortest length. By position, ``nats`` are the mean over the targets of a bucket.
    """

    name = 'perplexity'
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
        self.expected = dict.fromkeys(self.config.lengths, 1)

    def run(self, apply: Apply, params: Tree, done: Collection[Row] = ()) -> Iterator[Row]:
        """See the class."""
        del done
        last, short = self.config.last, None
        for length in self.config.lengths:
            batch = whole_rows(self.ids[:, -(length + 1) :])
            nll = scored(apply, params, batch, self.config.tokens).nll.astype(np.float64)
            size = self.token_bytes[batch.targets]
            row = {'evaluator': self.name, 'length': length, 'windows': len(nll), 'last': last}
            for prefix, part in (('', slice(None)), ('last_', slice(-last, None))):
                row |= self._numbers(prefix, nll[:, part], size[:, part])
            ends = nll[:, -last:].mean(axis=1)
            short = ends if short is None else short
            row['short'] = self.config.lengths[0]
            row['gain_nats'], row['gain_nats_stderr'] = mean(short - ends)
            yield row
        yield from self._by_position(nll, size)

    def _by_position(self, nll: np.ndarray, size: np.ndarray) -> Iterator[Row]:
        """Buckets [0, 64), [64, 128), [128, 256), ... at the longest length."""
        length = nll.shape[1]
        ends = [e for e in (64 << i for i in range(32)) if e < length] + [length]
        for start, end in zip([0, *ends], ends):
            row = {'evaluator': f'{self.name}_by_position', 'length': length, 'windows': len(nll)}
            row |= {'bucket_start': start, 'bucket_end': end}
            row['nats'], row['nats_stderr'] = mean(nll[:, start:end].mean(axis=1))
            yield row | self._numbers('', nll[:, start:end], size[:, start:end])

    def _numbers(self, prefix: str, nll: np.ndarray, size: np.ndarray) -> dict[str, float]:
        bits = nll.sum(axis=1) / np.log(2) / np.maximum(size.sum(axis=1), 1)
        value, error = mean(bits)
        return {
            f'{prefix}bits_per_byte': value,
            f'{prefix}bits_per_byte_stderr': error,
            f'{prefix}ppl': float(np.exp(nll.mean())),
        }
