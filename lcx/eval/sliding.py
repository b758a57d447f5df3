"""Whole documents through a window that moves by a stride: every token is scored once, with its text before it.

The first window of T tokens scores all its targets, every later one, S tokens further on, only those that no window has
scored: the last S, which see at least T - S tokens before them. That is the loop that Hugging Face's page on perplexity
made known, with max_length T + 1, whose last input predicts nothing. S = T cuts the document into pieces, S = 1 gives
every token all the context that the length allows.

``sliding_perplexity`` reads documents that are longer than the longest of ``eval.lengths``, from their second token on:
the same targets at every length. ``document_bits`` reads any document whole, its first token after the tokenizer's
beginning of a text: bits per byte of the document as a code would have it, whatever the vocabulary.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator

import numpy as np

from lcx.errors import DataError
from lcx.eval.api import Apply, Context, digest, needs_text, scored
from lcx.types import PADDING, Batch, Row, Tree


def cuts(ids: np.ndarray, length: int, stride: int) -> Batch:
    """The windows of ``ids``, one a row, ``length`` tokens each; the targets that a window scores have weight.

    What the last window lacks at its end is padding.

    >>> cuts(np.arange(7), length=4, stride=2).targets.tolist()
    [[1, 2, 3, 4], [3, 4, 5, 6]]
    >>> cuts(np.arange(7), length=4, stride=2).weights.tolist()
    [[1.0, 1.0, 1.0, 1.0], [0.0, 0.0, 1.0, 1.0]]
    """
    count = len(ids) - 1  # of targets
    starts = np.arange(0, 1 + stride * max(0, -(-(count - length) // stride)), stride)
    places = starts[:, None] + np.arange(length)
    real = places < count
    padded = np.pad(ids, (0, int(starts[-1]) + length + 1 - len(ids)))
    scored_before = np.where(starts == 0, 0, starts - stride + length)
    return Batch(
        tokens=np.where(real, padded[places], 0),
        targets=np.where(real, padded[places + 1], 0),
        weights=(real & (places >= scored_before[:, None])).astype(np.float32),
        positions=np.where(real, np.arange(length), 0).astype(np.int32),
        segments=np.where(real, 1, PADDING).astype(np.int32),
        ids=np.arange(len(starts), dtype=np.int32),
    )


def sliding(
    apply: Apply, params: Tree, ids: np.ndarray, *, length: int, stride: int, tokens: int
) -> np.ndarray:
    """Nats of ``ids[1:]``, float64 [len(ids) - 1], at most about ``tokens`` tokens at one time.

    The first window is scored by itself: what comes before its targets is nothing, and before those of all the others
    is a prompt of one length, which matters to caches.
    """
    batch = cuts(ids, length, stride)
    size = max(1, tokens // length)
    found = [scored(apply, params, Batch(*(x[:1] for x in batch)), tokens, rows=1).nll]
    if len(batch.tokens) > 1:
        found.append(scored(apply, params, Batch(*(x[1:] for x in batch)), tokens, rows=size).nll)
    return np.concatenate(found).astype(np.float64)[batch.weights > 0]


class Documents:
    """Yields a row for each length and document, of ``eval.windows`` documents at most.

    ``nats`` is the mean over the ``targets`` of a document, ``bits_per_byte`` their sum over the ``bytes`` of UTF-8
    that they stand for, ``text`` a digest of its tokens. ``document`` is its number in the split. Of a document
    ``eval.sliding.most`` tokens are read at most, and ``tokens`` says how many it has: fewer targets are a part of it.
    """

    writes = False
    scores = True

    def __init__(self, context: Context, name: str, *, whole: bool) -> None:
        self.name, self.config = name, context.config
        self.token_bytes = context.tokenizer.token_bytes
        tokens, longest = needs_text(context, name), self.config.lengths[-1]
        least = 1 if whole else longest + 1
        fit = np.flatnonzero(tokens.lengths >= least)
        if not len(fit):
            raise DataError(
                f'{name}: {tokens.label} has no document of {least} tokens; the longest has '
                f'{int(tokens.lengths.max())}.'
            )
        self.numbers = np.random.default_rng(context.seed).permutation(fit)[: self.config.windows].tolist()
        self.sizes = {number: int(tokens.lengths[number]) for number in self.numbers}
        before = np.array([context.tokenizer.bos] if whole else [], np.int32)
        most = self.config.sliding.most
        self.ids = {number: np.concatenate([before, tokens[number][:most]]) for number in self.numbers}
        self.expected = dict.fromkeys(self.config.lengths, len(self.ids))

    def run(self, apply: Apply, params: Tree, done: Collection[Row] = ()) -> Iterator[Row]:
        """See the class; rows that are among ``done`` are left out."""
        names = ('length', 'document', 'stride', 'text')
        known = {tuple(row[name] for name in names) for row in done if row['evaluator'] == self.name}
        for length in self.config.lengths:
            stride = self.config.sliding.stride or max(1, length // 2)
            for number, ids in self.ids.items():
                about = dict(zip(names, (length, number, stride, digest(ids))))
                if tuple(about.values()) in known:
                    continue
                nll = sliding(apply, params, ids, length=length, stride=stride, tokens=self.config.tokens)
                size = int(self.token_bytes[ids[1:]].sum())
                yield {
                    'evaluator': self.name,
                    **about,
                    'tokens': self.sizes[number],
                    'targets': len(nll),
                    'bytes': size,
                    'nats': float(nll.mean()),
                    'bits_per_byte': float(nll.sum() / np.log(2) / max(size, 1)),
                }


def sliding_perplexity(context: Context) -> Documents:
    """Long documents, without what tells that they begin; raises DataError if none is longer than all lengths."""
    return Documents(context, 'sliding_perplexity', whole=False)


def document_bits(context: Context) -> Documents:
    """Whole documents, however short."""
    return Documents(context, 'document_bits', whole=True)
