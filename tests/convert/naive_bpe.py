"""Byte-pair encoding in its plainest form, as a second path to the ids of a byte-level vocabulary."""

import itertools
import re

# GPT-2's pattern in the classes that the standard library has: a letter is a word character, no digit and no _.
_GPT2 = re.compile(
    r"'s|'t|'re|'ve|'m|'ll|'d| ?[^\W\d_]+| ?\d+| ?(?:[^\s\w]|_)+|\s+(?!\S)|\s+",
)


def encode(text, vocab, merges, digits_apart):
    """Ids of ``text``; ``vocab`` maps strings of byte letters to ids and ``merges`` lists pairs, first merged first."""
    ranks = {pair: rank for rank, pair in enumerate(merges)}
    pieces = re.split(r'(\d)', text) if digits_apart else [text]
    ids = []
    for piece in pieces:
        for word in _GPT2.findall(piece):
            ids += [vocab[symbol] for symbol in _merged([_letter(b) for b in word.encode()], ranks)]
    return ids


def _merged(symbols, ranks):
    while len(symbols) > 1:
        rank, at = min((ranks.get(pair, len(ranks)), i) for i, pair in enumerate(itertools.pairwise(symbols)))
        if rank == len(ranks):
            break
        symbols[at : at + 2] = [symbols[at] + symbols[at + 1]]
    return symbols


def _letter(byte):
    """GPT-2 writes bytes that do not print (0-32, 127-160, 173) as U+0100, U+0101, ..."""
    unprintable = [*range(33), *range(127, 161), 173]
    return chr(256 + unprintable.index(byte)) if byte in unprintable else chr(byte)
