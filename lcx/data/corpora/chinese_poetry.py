"""Source 'chinese_poetry': poems of the Tang and Song dynasties, ci of the Song and qu of the Yuan, by poet.

A document is all that one poet wrote in one of these collections: for each poem its title (of a ci, its tune) and its
lines, with an empty line after it. 1,668 documents of 1 to 672 thousand characters (Lu You), 24.9 million together.
Tang and Song are in traditional characters, ci and qu in simplified ones. A poem that is ascribed to several is the
first's; poets of less than 1,000 characters are left out. A poet is in one split with all collections that write the
name alike. From 'Tang 李白':

    靜夜思
    牀前看月光，疑是地上霜。
    舉頭望山月，低頭思故鄉。

The texts are from the npm package chinese-poetry, files of up to 1,000 poems in JSON.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping

from lcx.data.corpora.corpus import Corpus, by_share
from lcx.data.packages import Package
from lcx.errors import DataError

_SHORTEST = 1000  # characters of a poet's poems
_FILE = re.compile(r'/(?:poet\.(tang|song)\.(\d+)|(ci)\.song\.(\d+)y?|yuan(qu))\.json$')


def parse(files: Mapping[str, bytes]) -> dict[str, str]:
    """Collection and poet ('Tang 李白'), and poems.

    Raises:
      DataError: a file is not a list of poems.
    """
    documents: dict[str, list[str]] = {}
    seen: set[str] = set()
    for path, content in sorted(files.items(), key=lambda item: _order(item[0])):
        collection, _ = _order(path)
        try:
            for poem in json.loads(content):
                lines = '\n'.join(poem['paragraphs'])
                if lines and lines not in seen:
                    seen.add(lines)
                    title = poem.get('title') or poem.get('rhythmic')  # of a ci: its tune
                    documents.setdefault(f'{collection} {poem["author"]}', []).append(
                        f'{title}\n{lines}\n' if title else f'{lines}\n'
                    )
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise DataError(f'{path} is not the list of poems that was expected: {error!r}.') from error
    return {name: '\n'.join(poems) for name, poems in documents.items() if sum(map(len, poems)) >= _SHORTEST}


def _order(path: str) -> tuple[str, int]:
    """Collection and number of a file: their order is that of the collection."""
    match = _FILE.search(path)
    if match is None:
        raise DataError(f'{path} is not a file of poems that was expected.')
    collection = match[1] or match[3] or match[5]
    return collection.title(), int(match[2] or match[4] or 0)


CORPUS = Corpus(
    about='Poems of Tang, Song and Yuan, by poet (chinese-poetry)',
    licence='texts: public domain; package: MIT',
    packages=(
        Package(
            'npm',
            'chinese-poetry',
            '2.0.1',
            '25b549e46919c3a0569db6b68ddc96956b04a484ea4518ad2bbd4f137e307e86',
        ),
    ),
    patterns=(
        'package/dist/quantangshi/poet.*.json',
        'package/dist/songci/ci.*.json',
        'package/dist/yuanqu/yuanqu.json',
    ),
    parse=parse,
    splits=by_share(lambda name: name.partition(' ')[2]),
    digest='c1172c3b6561eb328ac4c1af22957f360e8b4581e1ceab7d9ac7af957239930e',
)
