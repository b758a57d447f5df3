"""What a corpus is, and how it comes to lie in the cache as plain text files, one per document."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
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
    package: packages.Package
    pattern: str  # the package's files that ``parse`` reads; * spans slashes
    parse: Callable[[Mapping[str, bytes]], Mapping[str, str]]  # files -> document name -> text
    splits: Mapping[str, tuple[str, ...]]  # train, validation, test -> document names
    digest: str  # of the texts that ``package`` gives: see text_digest


def text_digest(documents: Mapping[str, str]) -> str:
    """sha256, in hex, over names and texts sorted by name; equal for equal corpora."""
    sums = {name: hashlib.sha256(text.encode()).hexdigest() for name, text in documents.items()}
    return hashlib.sha256(json.dumps(sums, sort_keys=True).encode()).hexdigest()


def prepared(name: str, corpus: Corpus, root: Path) -> dict[str, Split]:
    """Split, document and file of a corpus below ``root``, obtained and written there first if it is not.

    The directory holds ``facts.json`` too: where the text is from, under which licence, and all sha256. Another version
    of the package is taken with a warning, and so is other text; then the directory's name is the same, and what
    identifies the data (``Source.fingerprint``) differs.

    Raises:
      DataError: the package cannot be had or parsed, documents are missing, or the cache is damaged.
      StorageError: ``root`` cannot be written.
    """
    path = root / 'corpora' / f'{name}-{corpus.digest[:16]}'
    if not path.is_dir():
        with packages.obtained(corpus.package, root / 'packages') as found:
            documents = _chosen(corpus, found, corpus.parse(packages.members(found.path, corpus.pattern)))
            facts = _facts(corpus, found, documents)
        if facts['digest'] != corpus.digest:
            announce(f'Warning: the text of {name} differs from the one lcx knows: numbers will too.')
        atomic.create(path, lambda temporary: _write(temporary, documents, facts))
    _check(path)
    return {
        split: {document: path / f'{document}.txt' for document in documents}
        for split, documents in corpus.splits.items()
    }


def _chosen(corpus: Corpus, found: packages.Found, documents: Mapping[str, str]) -> dict[str, str]:
    """The documents of the splits; a name that is none of them never becomes a file's."""
    names = [name for part in corpus.splits.values() for name in part]
    missing = [name for name in names if name not in documents]
    if missing:
        raise DataError(f'{found.path.name} holds no {", ".join(missing)}; it cannot be used.')
    return {name: documents[name] for name in names}


def _facts(corpus: Corpus, found: packages.Found, documents: Mapping[str, str]) -> dict:
    return {
        'about': corpus.about,
        'licence': corpus.licence,
        'registry': corpus.package.registry,
        'package': corpus.package.name,
        'version': found.version,
        'package_sha256': packages.digest(found.path),
        'digest': text_digest(documents),
        'documents': {
            name: {'sha256': hashlib.sha256(text.encode()).hexdigest(), 'characters': len(text)}
            for name, text in documents.items()
        },
    }


def _write(directory: Path, documents: Mapping[str, str], facts: dict) -> None:
    for name, text in documents.items():
        (directory / f'{name}.txt').write_bytes(text.encode())
    (directory / 'facts.json').write_text(json.dumps(facts, indent=1))


def _check(path: Path) -> None:
    """Raises a DataError unless every file is the one that was written."""
    try:
        facts = json.loads((path / 'facts.json').read_text())
        for name, document in facts['documents'].items():
            if packages.digest(path / f'{name}.txt') != document['sha256']:
                raise ValueError(f'{name}.txt was changed')
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(f'{path} is damaged: {error}. Delete this directory; it is written anew.') from error
