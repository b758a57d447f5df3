"""Packing: documents of any length to rows of one length.

Every packing first chooses *spans* of the token stream (documents in order, each followed by an
end-of-document token, eos); a row holds the span's tokens and, as targets, their successors:

    concat      the stream cut every ``length`` tokens, whatever document they belong to: no padding
    pad         every document cut every ``length`` tokens, one piece a row, the rest padding
    first_fit   the same pieces, several to a row where they fit (the pipeline does this)

A document's last token predicts eos; eos predicts nothing, since what follows is another document. So the
stream 'a b . c .' (. is eos) of two documents in rows of 3 gives

               concat        pad              first_fit
    tokens     a b .         a b 0   c 0 0    a b c
    targets    b . c         b . 0   . 0 0    b . .
    weights    1 1 0         1 1 0   1 0 0    1 1 1
    positions  0 1 2         0 1 0   0 0 0    0 1 0
    segments   1 1 1         1 1 0   1 0 0    1 1 2
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from lcx.types import PADDING

if TYPE_CHECKING:
    from lcx.data.tokens import Tokens


class Spans(NamedTuple):
    """Parts of a token stream: ``stream[start : start + size]`` are inputs, one further on are targets."""

    starts: np.ndarray  # int64 [n]
    sizes: np.ndarray  # int64 [n], 1 to the row's length


def concat(tokens: Tokens, length: int) -> Spans:
    """Windows of exactly ``length`` tokens one after the other; the stream's incomplete end is left out."""
    starts = np.arange((len(tokens.stream) - 1) // length, dtype=np.int64) * length
    return Spans(starts, np.full_like(starts, length))


def pieces(tokens: Tokens, length: int) -> Spans:
    """Every document cut into pieces of ``length`` tokens and a shorter last one; none crosses documents."""
    counts = -(-tokens.lengths // length)
    document = np.repeat(np.arange(len(tokens)), counts)
    number = np.arange(len(document)) - np.repeat(np.cumsum(counts) - counts, counts)  # inside its document
    return Spans(
        tokens.offsets[document] + number * length,
        np.minimum(tokens.lengths[document] - number * length, length),
    )


# From the name of a packing to the spans that its rows are made of.
PACKINGS = {'concat': concat, 'pad': pieces, 'first_fit': pieces}


def rows(tokens: Tokens, spans: Spans, length: int) -> dict[str, np.ndarray]:
    """One row of ``length`` tokens per span, as the fields of :class:`lcx.types.Batch` without ``ids``.

    Positions and segments count from the beginning of the row: a document that began earlier restarts at
    position 0. Arrays are [len(spans), length]; padding is 0 in every one of them.
    """
    starts = spans.starts[:, None]
    steps = np.arange(length)
    real = steps < spans.sizes[:, None]
    at = np.where(real, starts + steps, starts)
    document = np.searchsorted(tokens.offsets, at, side='right') - 1
    inside = at + 1 < tokens.offsets[document + 1]  # the next token is of the same document
    return {
        'tokens': np.where(real, tokens.stream[at], 0).astype(np.int32),
        'targets': np.where(real, tokens.stream[at + 1], 0).astype(np.int32),
        'weights': (real & inside).astype(np.float32),
        'positions': np.where(real, at - np.maximum(tokens.offsets[document], starts), 0).astype(np.int32),
        'segments': np.where(real, document - document[:, :1] + 1, PADDING).astype(np.int32),
    }
