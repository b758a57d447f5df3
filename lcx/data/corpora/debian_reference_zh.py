"""Source 'debian_reference_zh': the Debian Reference in Chinese, a chapter per document.

Prose and commands; the text of the HTML edition, whose paragraphs are not broken into lines as those of the plain
text are. Headings stand between empty lines, a row of a table is a line, and blocks of code keep their form. 14
documents of 3 to 54 thousand characters, 292 thousand together. From 'Chapter 01':

    1.1.1. shell 提示符

    启动系统之后，如果你没有安装 GUI（例如GNOME 或者 KDE），那么你会看到字符登录界面。...
"""

from __future__ import annotations

import html.parser
import re
from collections.abc import Mapping

from lcx.data.corpora.corpus import Corpus
from lcx.data.packages import Package
from lcx.errors import DataError

# A chapter's own content: no navigation, no table of its contents.
_BODY = re.compile(r'<div class="(?:preface|chapter|appendix)".*(?=<div class="navfooter">)', re.DOTALL)
_CONTENTS = re.compile(r'<div class="toc">.*?</dl>\s*</div>', re.DOTALL)
_FILE = re.compile(r'/(pr|ch|ap)(\w+)\.zh-cn\.html$')
_NAMES = {'pr': 'Preface', 'ch': 'Chapter', 'ap': 'Appendix'}
_BLOCKS = {'p', 'pre', 'tr', 'li', 'dt', 'dd', 'div', 'table', 'h1', 'h2', 'h3', 'h4', 'h5', 'h6'}


def parse(files: Mapping[str, bytes]) -> dict[str, str]:
    """Chapter ('Chapter 01') and text.

    Raises:
      DataError: a file is not a chapter of this book.
    """
    chapters = {}
    for name, content in sorted(files.items()):
        part = _FILE.search(name)
        if part is None:
            continue  # the title page
        try:
            body = _BODY.search(content.decode())[0]
        except (UnicodeDecodeError, TypeError) as error:
            raise DataError(f'{name} is not the chapter that was expected: {error}.') from error
        chapters[f'{_NAMES[part[1]]} {part[2].upper()}'] = text(_CONTENTS.sub('', body))
    return chapters


def text(page: str) -> str:
    """The text of HTML: a line per block, empty lines around headings and code."""
    reader = _Reader()
    reader.feed(page)
    reader.close()
    reader.end_block()
    return '\n'.join(reader.lines).strip() + '\n'


class _Reader(html.parser.HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []
        self.words: list[str] = []  # of the block at hand

    def handle_starttag(self, tag: str, attributes: list) -> None:
        if tag in _BLOCKS:
            self.end_block()
        elif tag in ('td', 'th'):
            self.words.append(' | ')

    def handle_endtag(self, tag: str) -> None:
        if tag == 'pre':
            self._add('', ''.join(self.words).rstrip(), '')
        elif tag.startswith('h') and tag in _BLOCKS:
            self._add('', *self._block(), '')
        elif tag in _BLOCKS:
            self.end_block()

    def handle_data(self, data: str) -> None:
        self.words.append(data)

    def end_block(self) -> None:
        self._add(*self._block())

    def _block(self) -> list[str]:
        """The line of a block, or none."""
        line = ' '.join(''.join(self.words).split()).strip('| ')
        return [line] if line else []

    def _add(self, *lines: str) -> None:
        self.words = []
        for line in lines:
            if line or (self.lines and self.lines[-1]):  # never two empty lines
                self.lines.append(line)


CORPUS = Corpus(
    about='Debian Reference 2.100 in Chinese, by Osamu Aoki and translators',
    licence='GPL-2.0-or-later',
    packages=(
        Package(
            'debian',
            'debian-reference-zh-cn',
            '2.100',
            '6d2d8d9a646397e28b04cdff23d2e4374101ebf9be348e35961af62c8a2d0977',
        ),
    ),
    patterns=('*/debian-reference/*.zh-cn.html',),
    parse=parse,
    splits={
        'train': (
            *(
                'Preface 01',
                'Chapter 01',
                'Chapter 02',
                'Chapter 03',
                'Chapter 04',
                'Chapter 05',
                'Chapter 07',
            ),
            *('Chapter 08', 'Chapter 09', 'Chapter 12', 'Appendix A'),
        ),
        'validation': ('Chapter 06',),
        'test': ('Chapter 10', 'Chapter 11'),
    },
    digest='889a80945cff020857c9f5b2c9cbc60b4d472136148a9daae7f722857299bb1e',
)
