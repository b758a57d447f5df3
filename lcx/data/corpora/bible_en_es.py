"""Source 'bible_en_es': the King James Bible and Reina-Valera's of 1909, chapter by chapter, to learn translation.

A document is a book: its titles, then for every chapter the English verses and after them the Spanish ones, a line
per verse, so that a verse's translation stands a chapter away from it. 66 documents of 3 to 439 thousand characters,
8.0 million together. Verses that either lacks are left out (18). Validation and test are the books of source 'kjv'.
From 'Genesis', cut short:

    Chapter 1

    English:
    In the beginning God created the heaven and the earth.
    And the earth was without form, and void; ...

    Spanish:
    EN el principio crió Dios los cielos y la tierra.
    Y la tierra estaba desordenada y vacía, ...

Both are SWORD modules that number the same verses; ``kjv.py`` says how they are read.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import NamedTuple

from lcx.data.corpora import kjv
from lcx.data.corpora.corpus import Corpus
from lcx.data.packages import Package
from lcx.errors import DataError


class Pair(NamedTuple):
    """One verse in both languages."""

    book: str  # 'Genesis'
    chapter: int
    verse: int
    english: str
    spanish: str


def parse(files: Mapping[str, bytes]) -> dict[str, str]:
    """Book and text.

    Raises:
      DataError: the files are not both modules, or their books differ.
    """
    titles, other_titles = (kjv.bible(module)[0] for module in _modules(files))
    chapters: dict[str, dict[int, list[Pair]]] = {}
    for pair in pairs(files):
        chapters.setdefault(pair.book, {}).setdefault(pair.chapter, []).append(pair)
    headings = {
        book: f'{title}\n{other}\n'
        for (book, title), other in zip(titles.items(), other_titles.values(), strict=True)
    }
    return {
        book: headings[book] + ''.join(_chapter(number, found) for number, found in numbered.items())
        for book, numbered in chapters.items()
    }


def pairs(files: Mapping[str, bytes]) -> Iterator[Pair]:
    """The verses that both have, in order.

    Raises:
      DataError: the files are not both modules, or their books differ.
    """
    (titles, english), (other_titles, spanish) = map(kjv.bible, _modules(files))
    if len(titles) != len(other_titles):
        raise DataError(f'bible_en_es: {len(titles)} books in English, {len(other_titles)} in Spanish.')
    books = dict(zip(other_titles, titles, strict=True))  # in the same order
    translated = {(books[verse.book], verse.chapter, verse.verse): verse.text for verse in spanish}
    for verse in english:
        if text := translated.get(verse[:3]):
            yield Pair(*verse, text)


def _chapter(number: int, found: list[Pair]) -> str:
    english = '\n'.join(pair.english for pair in found)
    spanish = '\n'.join(pair.spanish for pair in found)
    return f'\n\nChapter {number}\n\nEnglish:\n{english}\n\nSpanish:\n{spanish}\n'


def _modules(files: Mapping[str, bytes]) -> Iterator[dict[str, bytes]]:
    """The files of the English module, and those of the Spanish one."""
    for name in ('engKJV2006eb', 'spaRV1909eb'):
        yield {path: content for path, content in files.items() if f'/{name}/' in path}


CORPUS = Corpus(
    about='The King James Bible (1769) and Reina-Valera (1909), by chapters (CrossWire and eBible.org)',
    licence='public domain (outside the United Kingdom)',
    packages=(
        kjv.PACKAGE,
        Package(
            'debian',
            'sword-text-sparv',
            '2.60-1',
            '5c87f9b2bc97457e8a872f5bae7ea7ce59cb3de1dcee73e4d4740451863694cf',
        ),
    ),
    patterns=kjv.CORPUS.patterns,
    parse=parse,
    splits=kjv.CORPUS.splits,
    digest='2ad9f00910c886ea2ab95283e86b66090c6ca1ec2c1fc2f6e39363b558e2039b',
)
