"""Sources 'python_docs' and 'linux_docs': manuals as reStructuredText, a page per document, unchanged.

python_docs  the documentation of Python 3.11: 497 pages of up to 212 thousand characters, 11.0 million together
linux_docs   that of Linux 6.12, without translations: 3,127 pages of up to 325 thousand, 24.4 million together

Prose with code in it. Pages are divided among the splits by their names. Debian updates both packages within a
release, which changes pages of linux_docs; then its text is announced as another one than lcx knows.
"""

from __future__ import annotations

from collections.abc import Mapping

from lcx.data.corpora.corpus import Corpus, by_share
from lcx.data.packages import Package, gunzipped
from lcx.errors import DataError


def python_pages(files: Mapping[str, bytes]) -> dict[str, str]:
    """Page ('library/asyncio-task') and text.

    Raises:
      DataError: a page is not UTF-8.
    """
    return {
        name.partition('/_sources/')[2].removesuffix('.rst.txt'): _decoded(name, content)
        for name, content in sorted(files.items())
    }


def linux_pages(files: Mapping[str, bytes]) -> dict[str, str]:
    """Page ('admin-guide/mm/ksm') and text.

    Raises:
      DataError: a page is damaged or not UTF-8.
    """
    pages = {}
    for name, content in sorted(files.items()):
        page = name.partition('/Documentation/')[2].removesuffix('.rst.gz')
        if not page.startswith('translations/'):
            pages[page] = _decoded(name, gunzipped(name, content))
    return pages


def _decoded(name: str, content: bytes) -> str:
    try:
        return content.decode()
    except UnicodeDecodeError as error:
        raise DataError(f'{name} is not UTF-8: {error}.') from error


PYTHON = Corpus(
    about='The documentation of Python 3.11',
    licence='PSF-2.0',
    packages=(
        Package(
            'debian',
            'python3.11-doc',
            '3.11.2-6+deb12u9',
            '5b3594189d6ef9a6963ce0347fd307a1cc67620ad697e144db366070e2e146be',
        ),
    ),
    patterns=('*/html/_sources/*.rst.txt',),
    parse=python_pages,
    splits=by_share(),
    digest='9b83481b9517e38cbd5b1a5aaa3ba841d1f4fee0c9b5ca5cd46014cd2fca1db2',
)

LINUX = Corpus(
    about='The documentation of the Linux kernel 6.12',
    licence='GPL-2.0, mostly',
    packages=(
        Package(
            'debian',
            'linux-doc-6.12',
            '6.12.117-1~deb12u1',
            '6a73937ac1a8ab586b9399b6a67df3cc24e66e637824a97ca97b5f94b47ae40e',
        ),
    ),
    patterns=('*/Documentation/*.rst.gz',),
    parse=linux_pages,
    splits=by_share(),
    digest='179a3e286d792af09b3a2ef23122d7b1d7f34aea9584753dfb5c91d669d69864',
)
