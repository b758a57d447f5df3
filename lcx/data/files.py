"""Documents that are files: which they are, what they hold, and which are kept for validation."""

from __future__ import annotations

import glob
import hashlib
import os
import sysconfig
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from lcx.errors import ConfigError, DataError

# Parts of the standard library that distributions leave out, package apart or generate for one machine.
# Without them the trees of python.org and of Debian agree about well.
_NOT_STDLIB = {
    *('test', 'tests', 'idlelib', 'lib2to3', 'tkinter', 'turtledemo', 'distutils', 'ensurepip', 'venv'),
    *('site-packages', 'dist-packages', 'lib-dynload', '__pycache__', '__phello__'),
    *('sitecustomize.py', 'usercustomize.py', '_distutils_system_mod.py'),
}
_NOT_STDLIB_PREFIX = ('config-', '_sysconfigdata')


class File(NamedTuple):
    """A document on disk."""

    name: str  # relative to the standard library, or as the glob found it
    path: Path
    digest: str  # sha256 of the content, in hex
    size: int  # bytes


def stdlib(_: tuple[str, ...] = ()) -> dict[str, Path]:
    """Name and path of the .py files of the running Python's standard library, sorted: code by many hands.

    Raises:
      DataError: this Python has none (an embedded or zipped one).
    """
    root = Path(sysconfig.get_paths()['stdlib'])
    found = {}
    for directory, folders, names in os.walk(root):
        folders[:] = [name for name in folders if _kept(name)]
        for name in names:
            if name.endswith('.py') and _kept(name):
                path = Path(directory, name)
                found[path.relative_to(root).as_posix()] = path
    if not found:
        raise DataError(
            f"Source 'stdlib' found no .py file in {root}; use source 'text' with files of your own."
        )
    return dict(sorted(found.items()))


def _kept(name: str) -> bool:
    return name not in _NOT_STDLIB and not name.startswith(_NOT_STDLIB_PREFIX)


def text(patterns: tuple[str, ...]) -> dict[str, Path]:
    """Name and path of every file that ``patterns`` match (paths or globs, ``**`` too), sorted, each once.

    Raises:
      ConfigError: a pattern matches no file.
    """
    found = {}
    for pattern in patterns:
        here = os.path.expanduser(pattern)
        names = [here] if os.path.isfile(here) else glob.glob(here, recursive=True)
        files = [Path(name) for name in names if os.path.isfile(name)]
        if not files:
            if os.path.isdir(here):
                raise ConfigError(f'data.files: {pattern!r} is a directory; name its files: {here}/**/*.txt.')
            raise ConfigError(
                f'data.files: {pattern!r} matches no file; relative paths start at {os.getcwd()}.'
            )
        found |= {path.resolve(): path for path in files}
    return {path.as_posix(): path for _, path in sorted(found.items())}


# From the name of a source to the function that lists its documents.
LISTINGS = {'stdlib': stdlib, 'text': text}


def scan(listing: Mapping[str, Path]) -> list[File]:
    """Reads every listed file once; empty ones are left out.

    Raises:
      ConfigError: all files are empty.
      DataError: a file cannot be read or is not UTF-8.
    """
    files = []
    for name, path in listing.items():
        content = read(path)
        if content:
            files.append(File(name, path, hashlib.sha256(content).hexdigest(), len(content)))
    if not files:
        raise ConfigError(
            f'data.files: all {len(listing)} files are empty, {next(iter(listing))!r} the first.'
        )
    return files


def read(path: Path) -> bytes:
    """A document's bytes, known to be UTF-8."""
    try:
        content = path.read_bytes()
        content.decode()
    except OSError as error:
        raise DataError(f'{path} cannot be read: {error.strerror}.') from error
    except UnicodeDecodeError as error:
        byte = content[error.start]
        raise DataError(
            f'{path} is not UTF-8: byte {byte:#04x} at offset {error.start}. Convert or exclude it.'
        ) from None
    return content


def split(files: Sequence[File], percent: int) -> dict[str, list[File]]:
    """Divides documents among 'train' and 'validation' by their content's hash.

    A document stays where it is when others come and go or when it is renamed, and copies of one text are
    never on both sides. About ``percent`` of the different documents are kept for validation, at least one on
    either side.

    Raises:
      DataError: fewer than two different documents.
    """

    def bucket(digest: str) -> int:
        return int(digest[:12], 16) % 100

    digests = sorted({file.digest for file in files}, key=lambda digest: (bucket(digest), digest))
    if len(digests) < 2:
        raise DataError(
            f'{files[0].path} alone cannot be divided among training and validation. '
            'Name more files, or cut it into several: a document is never on both sides.'
        )
    kept = sum(bucket(digest) < percent for digest in digests)
    validation = set(digests[: min(max(kept, 1), len(digests) - 1)])
    return {
        'train': [file for file in files if file.digest not in validation],
        'validation': [file for file in files if file.digest in validation],
    }
