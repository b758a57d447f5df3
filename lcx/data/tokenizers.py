"""Text to token ids and back."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from lcx.data import vocabularies
from lcx.errors import ConfigError, unknown


class Tokenizer(Protocol):
    """What the code base asks of a vocabulary."""

    vocab: int  # V; ids are 0 .. V-1
    bos: int  # begins a text that has no other beginning
    eos: int  # follows every document
    token_bytes: np.ndarray  # int32 [V]: bytes of UTF-8 each token stands for, 0 for specials
    identity: str  # changes when the ids of a text would

    def encode(self, text: str) -> np.ndarray:
        """The text's ids, int32 [T], without specials."""

    def raw(self, ids: Iterable[int]) -> bytes:
        """The bytes of ids, which may end within a character; specials vanish, and ids beyond the vocabulary."""

    def decode(self, ids: Iterable[int]) -> str:
        """The text of ids, malformed UTF-8 as U+FFFD."""


class Bytes:
    """The 256 bytes of UTF-8, and 256 for the end of a document.

    No file, no training, every language; a loss in bits per token is almost one in bits per byte.

    >>> Bytes().encode('né').tolist()
    [110, 195, 169]
    """

    vocab = 257
    bos = eos = 256
    identity = 'bytes'

    def __init__(self):
        self.token_bytes = np.ones(self.vocab, np.int32)
        self.token_bytes[self.eos] = 0

    def encode(self, text: str) -> np.ndarray:
        """The text's bytes, int32 [T]."""
        return np.frombuffer(text.encode(), np.uint8).astype(np.int32)

    def raw(self, ids: Iterable[int]) -> bytes:
        """The ids below 256; a model's padded vocabulary may sample larger ones, which vanish."""
        return bytes(i for i in map(int, ids) if i < 256)

    def decode(self, ids: Iterable[int]) -> str:
        """Their text."""
        return self.raw(ids).decode(errors='replace')


# Named tokenizers; any other ``data.tokenizer`` is a path.
TOKENIZERS = {'bytes': Bytes}

# From what a file's name ends in, before a version if it has one, to what reads it.
_READERS: dict[str, Callable[[Path], Tokenizer]] = {
    '.json': vocabularies.tokenizer_json,
    '.model': vocabularies.sentencepiece_model,
}
_IN_DIRECTORY = ('tokenizer.json', 'tokenizer.model')  # in this order


def make_tokenizer(spec: str) -> Tokenizer:
    """The tokenizer of ``data.tokenizer``: 'bytes', a tokenizer.json, a sentencepiece .model, or a directory with one.

    Raises:
      ConfigError: no such tokenizer, or a file that cannot be used; the message names data.tokenizer.
    """
    try:
        path = locate(spec)
        return TOKENIZERS[spec]() if path is None else _READERS[_kind(path)](path)
    except ConfigError as error:
        raise ConfigError(f'data.{error}') from None


def locate(spec: Any) -> Path | None:
    """The file of a tokenizer, without reading it; None for a named one.

    Raises:
      ConfigError: neither a name nor a file of a known kind. The message begins with 'tokenizer: '.
    """
    if spec in TOKENIZERS:
        return None
    if not isinstance(spec, str) or not spec:
        raise ConfigError(f'tokenizer: {spec!r} is neither a name nor a path.')
    path = Path(spec).expanduser()
    if path.is_dir():
        found = next((path / name for name in _IN_DIRECTORY if (path / name).is_file()), None)
        if found is None:
            raise ConfigError(f'tokenizer: the directory {spec!r} holds no {" or ".join(_IN_DIRECTORY)}.')
        return found
    if _kind(path) is None:
        kinds = [f'a path to a {kind} file' for kind in _READERS]
        raise ConfigError(unknown('tokenizer', spec, [*TOKENIZERS, *kinds, 'a directory with one']))
    if not path.is_file():
        raise ConfigError(f'tokenizer: {spec!r} is not a file; relative paths start at {os.getcwd()}.')
    return path


def _kind(path: Path) -> str | None:
    """'.json' or '.model', also of 'tokenizer.model.v3'."""
    return next((suffix for suffix in path.suffixes if suffix in _READERS), None)
