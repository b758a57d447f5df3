"""Source 'kjv': the King James Bible (text of 1769), from the SWORD module that Debian ships.

A document is a book: its title, then for every chapter a line 'Chapter N' and a line per verse, without verse
numbers and footnotes. 66 books of 1.6 to 226 thousand characters, 1,189 chapters, 31,102 verses.

A SWORD zText module, read here without the SWORD library, has three files per testament, little endian: .bzs tells
where each compressed block lies (offset u32, length u32, inflated length u32), .bzz holds the blocks (zlib), and .bzv
locates every entry (block u32, offset u32, length u16). Entries are the verses in order, with one before each book and
chapter for its heading; the headings carry OSIS marks, which is how books and chapters are told apart here.
"""

from __future__ import annotations

import html
import re
import struct
import zlib
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from lcx.data.corpora.corpus import Corpus
from lcx.data.packages import Package
from lcx.errors import DataError

_LARGEST = 2**26  # bytes of an inflated block
_BOOK = re.compile(r'<div\b[^>]*\bsID="[^"]*" type="book"')  # with eID it is a book's end
_NAME = re.compile(r'<milestone n="([^"]*)" type="x-usfm-toc2"/>')
_TITLE = re.compile(r'<title\b[^>]*\btype="main"[^>]*>(.*?)</title>', re.DOTALL)
_CHAPTER = re.compile(r'<chapter\b[^>]*\bn="(\d+)"[^>]*\bsID=')
_LEFT_OUT = re.compile(r'<(note|title)\b[^>]*>.*?</\1>', re.DOTALL)
_TAG = re.compile(r'<[^>]*>')
_LEFT_OVER = re.compile(r'\\\w+\*? ?')  # USFM marks that the module's maker missed: '\nd LORD'


class Verse(NamedTuple):
    """One verse, by the numbers that translations share."""

    book: str  # 'Genesis'
    chapter: int
    verse: int
    text: str


def parse(files: Mapping[str, bytes]) -> dict[str, str]:
    """Book and text.

    Raises:
      DataError: not such a module.
    """
    documents: dict[str, list[str]] = {}
    titles, found = bible(files)
    for verse in found:
        lines = documents.setdefault(verse.book, [titles[verse.book], ''])
        if verse.verse == 1:
            lines += ['', f'Chapter {verse.chapter}', '']
        lines.append(verse.text)
    return {book: '\n'.join(lines) for book, lines in documents.items()}


def bible(files: Mapping[str, bytes]) -> tuple[dict[str, str], list[Verse]]:
    """Title of every book, and all verses that are not empty, of a module of two testaments.

    Raises:
      DataError: not such a module.
    """
    titles: dict[str, str] = {}
    listed: list[Verse] = []
    try:
        for testament in ('ot', 'nt'):
            names, found = verses(entries(*(_file(files, f'/{testament}.bz{kind}') for kind in 'svz')))
            titles |= names
            listed += found
    except (struct.error, zlib.error, ValueError, IndexError) as error:
        name = next(iter(files), 'nothing')
        raise DataError(f'{name} is not the SWORD module that was expected: {error}.') from error
    return titles, listed


def entries(sizes: bytes, index: bytes, content: bytes) -> Iterator[str]:
    """The entries of one testament in order; those of no length too, for they count."""
    blocks: dict[int, bytes] = {}
    for block, offset, length in struct.iter_unpack('<IIH', index):
        if not length:
            yield ''
            continue
        if block not in blocks:
            at, size, inflated = struct.unpack_from('<III', sizes, 12 * block)
            if inflated > _LARGEST:
                raise ValueError(f'a block of {inflated} bytes')
            blocks[block] = zlib.decompressobj().decompress(content[at : at + size], inflated)
            if len(blocks[block]) != inflated:
                raise ValueError(f'a block of {len(blocks[block])} bytes instead of {inflated}')
        entry = blocks[block][offset : offset + length]
        if len(entry) != length:
            raise ValueError(f'an entry of {len(entry)} bytes instead of {length}')
        yield entry.decode()


def verses(found: Iterator[str]) -> tuple[dict[str, str], list[Verse]]:
    """Title of every book, and all verses that are not empty."""
    titles: dict[str, str] = {}
    listed: list[Verse] = []
    book, chapter, number = '', 0, 0
    for entry in found:
        if _BOOK.search(entry):
            book = html.unescape(_NAME.search(entry)[1]) if _NAME.search(entry) else ''
            if not book:
                raise ValueError('a book without a name')
            title = _TITLE.search(entry)
            titles[book] = plain(title[1]) if title else book
            chapter = 0
        elif mark := _CHAPTER.search(entry):
            chapter, number = int(mark[1]), 0
        elif chapter:
            number += 1
            if text := plain(entry):
                listed.append(Verse(book, chapter, number, text))
    return titles, listed


def plain(entry: str) -> str:
    """The words of an entry: no footnotes, headings, marks and paragraph signs; one space where there were more."""
    text = html.unescape(_TAG.sub('', _LEFT_OUT.sub('', entry)))
    return ' '.join(_LEFT_OVER.sub('', text).replace('¶', ' ').split())


def _file(files: Mapping[str, bytes], ending: str) -> bytes:
    for name, content in files.items():
        if name.endswith(ending):
            return content
    raise ValueError(f'no file {ending}')


_VALIDATION = ('Ezekiel', 'Hebrews')  # at most one verse in 300 of these is also in another book
_TEST = ('Genesis', 'Job', 'Acts')
_TRAIN = (
    *('Exodus', 'Leviticus', 'Numbers', 'Deuteronomy', 'Joshua', 'Judges', 'Ruth', '1 Samuel', '2 Samuel'),
    *(
        '1 Kings',
        '2 Kings',
        '1 Chronicles',
        '2 Chronicles',
        'Ezra',
        'Nehemiah',
        'Esther',
        'Psalms',
        'Proverbs',
    ),
    *(
        'Ecclesiastes',
        'Song of Solomon',
        'Isaiah',
        'Jeremiah',
        'Lamentations',
        'Daniel',
        'Hosea',
        'Joel',
        'Amos',
    ),
    *('Obadiah', 'Jonah', 'Micah', 'Nahum', 'Habakkuk', 'Zephaniah', 'Haggai', 'Zechariah', 'Malachi'),
    *(
        'Matthew',
        'Mark',
        'Luke',
        'John',
        'Romans',
        '1 Corinthians',
        '2 Corinthians',
        'Galatians',
        'Ephesians',
    ),
    *('Philippians', 'Colossians', '1 Thessalonians', '2 Thessalonians', '1 Timothy', '2 Timothy', 'Titus'),
    *('Philemon', 'James', '1 Peter', '2 Peter', '1 John', '2 John', '3 John', 'Jude', 'Revelation'),
)

PACKAGE = Package(
    'debian',
    'sword-text-kjv',
    '14.3-1',
    '9f463f28ce665f6f528fc723179722bced880a4c5485f7a41bf742838315de57',
)

CORPUS = Corpus(
    about='The King James Bible, 1769 (CrossWire and eBible.org)',
    licence='public domain (outside the United Kingdom)',
    packages=(PACKAGE,),
    patterns=('*/modules/texts/ztext/*',),
    parse=parse,
    splits={'train': _TRAIN, 'validation': _VALIDATION, 'test': _TEST},
    digest='5143afa41d113841d565bf8e1622e99dc07b2603f56a2e57f86632b7e65814ba',
)
