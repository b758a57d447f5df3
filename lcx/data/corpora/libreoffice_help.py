"""Source 'libreoffice_help': pages of LibreOffice's help in English and then in Chinese, French or German.

A document is a page and its translation, paragraph by paragraph in the same order, the whole page first: to translate
the last paragraph is to look back by a page. 3,666 documents (1,013 Chinese, 1,317 French, 1,336 German) of 0.7 to 80
thousand characters, 14.0 million together. 'swriter/guide/anchor_object fr', cut short:

    English:
    An object, such as an image or frame, is positioned within a document using an anchor ...
    An anchor determines the reference point for an object. ...

    French:
    Un objet, tel qu'une image ou un cadre, est positionné dans un document à l'aide d'une ancre ...
    Une ancre détermine le point de référence d'un objet. ...

Paragraphs go together by file and by the id that they have in all languages. Left out are those that stand
untranslated, those that an earlier page has too (pages include each other's sections), and pages with less than 500
English characters after that. All languages of a page are in one split.
"""

from __future__ import annotations

import html
import re
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from lcx.data.corpora.corpus import Corpus, by_share
from lcx.data.packages import Package
from lcx.errors import DataError

_SHORTEST = 500  # English characters of a page
_LANGUAGES = {'zh-CN': ('Chinese', 'zh'), 'fr': ('French', 'fr'), 'de': ('German', 'de')}
_FILE = re.compile(r'/help/([\w-]+)/text/(.*)\.html$')
_PARAGRAPH = re.compile(r'<(p|h[1-6]|pre)\b[^>]*?\bid="([^"]+)"[^>]*>(.*?)</\1>', re.DOTALL)
_TAG = re.compile(r'<[^>]*>')


class Page(NamedTuple):
    """A page in two languages, as paragraphs that translate each other."""

    name: str  # 'swriter/guide/anchor_object'
    language: str  # of the translation: 'zh-CN'
    english: tuple[str, ...]
    translation: tuple[str, ...]


def parse(files: Mapping[str, bytes]) -> dict[str, str]:
    """Page and language ('swriter/guide/anchor_object fr'), and text.

    Raises:
      DataError: the files are no such help, or not UTF-8.
    """
    documents = {}
    for page in pages(files):
        language, short = _LANGUAGES[page.language]
        documents[f'{page.name} {short}'] = '\n'.join(
            ('English:', *page.english, '', f'{language}:', *page.translation, '')
        )
    return documents


def pages(files: Mapping[str, bytes]) -> Iterator[Page]:
    """All pages of at least 500 English characters, language by language.

    Raises:
      DataError: the files are no such help, or not UTF-8.
    """
    found: dict[str, dict[str, dict[str, str]]] = {}  # language -> page -> id -> paragraph
    for path, content in sorted(files.items()):
        if match := _FILE.search(path):
            found.setdefault(match[1], {})[match[2]] = paragraphs(path, content)
    if missing := {'en-US', *_LANGUAGES} - set(found):
        raise DataError(f'libreoffice_help: no pages in {", ".join(sorted(missing))}.')
    first: dict[str, str] = {}  # English paragraph -> the page that has it
    for name, page in found['en-US'].items():
        for text in page.values():
            first.setdefault(text, name)
    for language in _LANGUAGES:
        for name, page in found['en-US'].items():
            other = found[language].get(name, {})
            own = ((text, other.get(id, text)) for id, text in page.items() if first[text] == name)
            kept = [(text, translation) for text, translation in own if translation != text]
            if sum(len(text) for text, _ in kept) >= _SHORTEST:
                yield Page(name, language, *zip(*kept, strict=True))


def paragraphs(path: str, content: bytes) -> dict[str, str]:
    """Id and text of every paragraph that is not empty; of two with one id, the first."""
    try:
        page = content.decode()
    except UnicodeDecodeError as error:
        raise DataError(f'{path} is not UTF-8: {error}.') from error
    listed: dict[str, str] = {}
    for match in _PARAGRAPH.finditer(page.partition('<footer')[0]):
        if text := ' '.join(html.unescape(_TAG.sub('', match[3])).split()):
            listed.setdefault(match[2], text)
    return listed


def _package(language: str, sha256: str) -> Package:
    return Package('debian', f'libreoffice-help-{language}', '4:7.4.7-1+deb12u14', sha256)


CORPUS = Corpus(
    about="LibreOffice 7.4's help, page by page in English and Chinese, French or German",
    licence='MPL-2.0',
    packages=(
        _package('en-us', '8faa840285734d6cfe1ed25537b48f07e74bd6412e3917bf8e5f8a653f7b3712'),
        _package('zh-cn', 'db867cdece4c2f9c7eebe65e519c6cf386fdcf49d6e061db3dffec893b3e1dee'),
        _package('fr', 'c796530d3e95af1ea4d054076682efc8aad2b569ae9513f3d4a776b2df3fd206'),
        _package('de', '00490b63c509ac96f7f212d6a6e40452d3e0d1f97ccf4b824dd5ec4c01e8277f'),
    ),
    patterns=('*/libreoffice/help/*/text/*.html',),
    parse=parse,
    splits=by_share(lambda name: name.rpartition(' ')[0]),
    digest='b7b2033e39d63f7d5a69578f94677fe20257972fff0c3c7d22305bc01bde8f88',
)
