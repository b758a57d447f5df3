"""Text to token ids and back."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

import numpy as np


class Tokenizer(Protocol):
    """What the code base asks of a vocabulary."""

    vocab: int  # V; ids are 0 .. V-1
    bos: int  # begins a text that has no other beginning
    eos: int  # follows every document
    token_bytes: np.ndarray  # int32 [V]: bytes of UTF-8 each token stands for, 0 for specials

    def encode(self, text: str) -> np.ndarray:
        """The text's ids, int32 [T], without specials."""

    def decode(self, ids: Iterable[int]) -> str:
        """The text of ids; specials vanish and malformed UTF-8 becomes U+FFFD."""


class Bytes:
    """The 256 bytes of UTF-8, and 256 for the end of a document.

    No file, no training, every language; a loss in bits per token is almost one in bits per byte.

    >>> Bytes().encode('né').tolist()
    [110, 195, 169]
    """

    vocab = 257
    bos = eos = 256

    def __init__(self):
        self.token_bytes = np.ones(self.vocab, np.int32)
        self.token_bytes[self.eos] = 0

    def encode(self, text: str) -> np.ndarray:
        """The text's bytes, int32 [T]."""
        return np.frombuffer(text.encode(), np.uint8).astype(np.int32)

    def decode(self, ids: Iterable[int]) -> str:
        """The text of the ids below 256; a model's padded vocabulary may sample larger ones, which vanish."""
        return bytes(i for i in map(int, ids) if i < 256).decode(errors='replace')


TOKENIZERS = {'bytes': Bytes}
