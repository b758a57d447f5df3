"""Source 'austen': six novels by Jane Austen, from the R package janeaustenr as Debian ships it.

Each is one document of 100 to 220 thousand SmolLM2 tokens, so windows of 2k to 64k with the same ends exist. Models
trained on the web have most likely seen them: compare perplexities, do not quote them.

The package holds an R "lazy-load" database, read here without R: a chain of records, each a u32 with the length of the
content, an optional letter ('2' bzip2, 'Z' xz, none zlib) and the compressed content. The content is an R vector of
lines in R's serialisation, big endian: 'X\\n', version, two R versions (version 3: and the name of an encoding), then a
vector of 16 (strings): its length, and for every line flags, length and bytes. "R Internals", sections 1.1 and 1.8.
"""

from __future__ import annotations

import bz2
import lzma
import struct
import zlib
from collections.abc import Iterator, Mapping

from lcx.data.corpora.corpus import Corpus
from lcx.data.packages import Package
from lcx.errors import DataError

_LARGEST = 2**26  # bytes of an inflated record
_STRINGS, _LATIN1 = 16, 1 << 14


def parse(files: Mapping[str, bytes]) -> dict[str, str]:
    """Title and text of every novel; lines joined by newlines, the title read off the first one.

    Raises:
      DataError: not such a database.
    """
    (database,) = files.values()
    documents = {}
    try:
        for record in records(database):
            lines = strings(record)
            documents[lines[0].strip().title().replace(' And ', ' and ')] = '\n'.join(lines)
    except (struct.error, zlib.error, lzma.LZMAError, OSError, ValueError, IndexError) as error:
        raise DataError(f'{next(iter(files))} is not the R database that was expected: {error}.') from error
    return documents


def records(database: bytes) -> Iterator[bytes]:
    """The inflated records of an R lazy-load database, in order."""
    at = 0
    while at < len(database):
        (size,) = struct.unpack_from('>I', database, at)
        at += 4
        if size > _LARGEST:
            raise ValueError(f'a record of {size} bytes')
        letter = database[at : at + 1]
        inflater = {b'2': bz2.BZ2Decompressor, b'Z': lzma.LZMADecompressor}.get(letter, zlib.decompressobj)()
        at += letter in (b'2', b'Z')
        record = inflater.decompress(database[at:], size)
        if len(record) != size:
            raise ValueError(f'a record of {len(record)} bytes instead of {size}')
        if not inflater.eof:  # the size is reached, but not yet the end of the stream
            inflater.decompress(getattr(inflater, 'unconsumed_tail', b''), 1)
        if not inflater.eof:
            raise ValueError('a record without an end')
        at = len(database) - len(inflater.unused_data)
        yield record


def strings(record: bytes) -> list[str]:
    """The lines of an R character vector."""
    if record[:2] != b'X\n':
        raise ValueError('a record in another format than XDR')
    (version,) = struct.unpack_from('>I', record, 2)
    at = 14
    if version == 3:
        at += 4 + struct.unpack_from('>I', record, at)[0]
    flags, count = struct.unpack_from('>II', record, at)
    if flags & 0xFF != _STRINGS:
        raise ValueError(f'an R object of type {flags & 0xFF}, not lines of text')
    at += 8
    lines = []
    for _ in range(count):
        flags, size = struct.unpack_from('>Ii', record, at)
        at += 8
        if not 0 <= size <= len(record) - at:
            raise ValueError(f'a line of {size} bytes')
        lines.append(record[at : at + size].decode('latin-1' if flags & _LATIN1 else 'utf-8'))
        at += size
    return lines


CORPUS = Corpus(
    about="Jane Austen's six novels (janeaustenr, from Project Gutenberg)",
    licence='texts: public domain; package: MIT',
    packages=(
        Package(
            'debian',
            'r-cran-janeaustenr',
            '1.0.0-1',
            'df6bddf211906d1ff404f8ff662c21b34e6660e7f54a311084e749050c019c95',
        ),
    ),
    patterns=('*/janeaustenr/data/Rdata.rdb',),
    parse=parse,
    splits={
        'train': ('Emma', 'Mansfield Park', 'Sense and Sensibility'),
        'validation': ('Northanger Abbey',),
        'test': ('Persuasion', 'Pride and Prejudice'),
    },
    digest='536d032433cb068fcfe8d4d71c82ae661dc46556c9e37b5b86abb498b6d1f33d',
)
