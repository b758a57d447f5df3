"""A split's tokens: one flat, memory-mapped array of ids and the offsets of its documents.

A record is tokenized once in the life of a data set; afterwards every document, window and length is a slice.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from lcx.data import atomic
from lcx.data.announce import announce
from lcx.data.config import DataConfig
from lcx.data.sources import open_documents
from lcx.data.tokenizers import Tokenizer, make_tokenizer
from lcx.errors import DataError

_LAYOUT = 1  # of the files written here


@dataclasses.dataclass(frozen=True, eq=False)
class Tokens:
    """Documents as token ids; ``tokens[i]`` is document i, int32 [T], without the end-of-document token.

    ``fingerprint`` is a hash of all ids and document ends: equal for equal training data, wherever it lies.
    """

    stream: np.ndarray  # [N], unsigned: the documents in order, each followed by its end-of-document token
    offsets: np.ndarray  # int64 [documents + 1]: where each begins in the stream
    bytes: int  # of UTF-8 in all documents
    fingerprint: str
    label: str  # 'stdlib train': for messages

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, number: int) -> np.ndarray:
        if not 0 <= number < len(self):
            raise IndexError(f'{self.label} has documents 0 to {len(self) - 1}, not {number}')
        return self.stream[self.offsets[number] : self.offsets[number + 1] - 1].astype(np.int32)

    @property
    def lengths(self) -> np.ndarray:
        """Tokens of every document, int64 [documents], without the end-of-document token."""
        return np.diff(self.offsets) - 1


def open_tokens(config: DataConfig, split: str) -> Tokens:
    """The tokens of ``split``, 'train', 'validation' or 'test'; prepared and written on first use.

    Raises what :func:`lcx.data.sources.open_documents` raises.
    """
    documents = open_documents(config, split)
    tokenizer = make_tokenizer(config.tokenizer)
    identity = repr((_LAYOUT, documents.fingerprint, tokenizer.identity))
    path = config.root / 'tokens' / hashlib.sha256(identity.encode()).hexdigest()[:16]
    if not path.is_dir():
        announce(f'Tokenizing {documents.label}: {len(documents)} documents to {config.tokenizer}')
        write(path, documents, tokenizer)
    return read(path, documents.label)


def write(path: Path, documents: Iterable[str], tokenizer: Tokenizer) -> None:
    """Tokenizes ``documents`` one by one into the directory ``path``, which appears only when complete.

    Says so on stderr if the tokens stand for other bytes than the text has: a vocabulary may rewrite or lose some.
    """
    kind = np.dtype('<u2' if tokenizer.vocab <= 2**16 else '<u4')

    def fill(directory: Path) -> None:
        digest, offsets, size, kept = hashlib.sha256(), [0], 0, 0
        with open(directory / 'stream.bin', 'wb') as file:
            for text in documents:
                ids = np.append(tokenizer.encode(text), tokenizer.eos).astype(kind)
                offsets.append(offsets[-1] + len(ids))
                size += len(text.encode())
                kept += int(tokenizer.token_bytes[ids].sum())
                digest.update(ids.tobytes())
                file.write(ids.tobytes())
        if kept != size:
            announce(
                f'Warning: the tokens stand for {kept} bytes of text, the documents have {size}: the tokenizer '
                'rewrites or loses some. Bits per byte count those of the tokens.'
            )
        np.save(directory / 'offsets.npy', np.array(offsets, np.int64))
        digest.update(np.array(offsets, '<i8').tobytes())
        facts = {'kind': kind.str, 'tokens': offsets[-1], 'bytes': size, 'fingerprint': digest.hexdigest()}
        (directory / 'facts.json').write_text(json.dumps(facts, indent=1))

    atomic.create(path, fill)


def read(path: Path, label: str) -> Tokens:
    """The tokens in the directory ``path``, memory-mapped.

    Raises:
      DataError: files are missing, cut short or unreadable.
    """
    try:
        facts = json.loads((path / 'facts.json').read_text())
        offsets = np.load(path / 'offsets.npy', allow_pickle=False)
        stream = np.memmap(path / 'stream.bin', facts['kind'], mode='r')
        if not len(stream) == offsets[-1] == facts['tokens']:
            raise ValueError(f'{len(stream)} tokens instead of {facts["tokens"]}')
        return Tokens(stream, offsets, facts['bytes'], facts['fingerprint'], label)
    except (OSError, ValueError, KeyError) as error:
        raise DataError(f'{path} is damaged: {error}. Delete this directory; it is written anew.') from error
