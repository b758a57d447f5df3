"""Package files: taken from the store, downloaded when they are not there, and errors that say what to do."""

import hashlib
import io
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

from lcx.data import packages
from lcx.data.packages import Package
from lcx.errors import DataError, StorageError

WHEEL = Package('pypi', 'some-texts', '1.2')
DEB = Package('debian', 'some-texts', '1.0-1')
NPM = Package('npm', 'some-texts', '1.2')
SOURCE = Package('pypi_source', 'some-texts', '1.2', hashlib.sha256(b'content').hexdigest())


def wheel(path, **files):
    with zipfile.ZipFile(path, 'w') as archive:
        for name, content in files.items():
            archive.writestr(f'some_texts/{name}', content)
    return path


def test_a_file_in_the_store_is_taken_and_stays(tmp_path, capsys):
    path = wheel(tmp_path / 'some_texts-1.2-py3-none-any.whl', a='text')
    with packages.obtained(WHEEL, tmp_path) as found:
        assert found == (path, '1.2')
    assert path.is_file() and capsys.readouterr().err == ''


def test_another_version_is_a_warning(tmp_path, capsys):
    (tmp_path / 'some-texts_2%3a1.1-2_all.deb').write_bytes(b'')
    with packages.obtained(DEB, tmp_path) as found:
        assert found.version == '2:1.1-2'
    assert 'Warning: some-texts is version 2:1.1-2; lcx was tried with 1.0-1' in capsys.readouterr().err


@pytest.mark.parametrize(
    ('package', 'name', 'words'),
    [
        (
            WHEEL,
            'some_texts-1.2-py3-none-any.whl',
            [sys.executable, '-m', 'pip', 'download', 'some-texts==1.2'],
        ),
        (DEB, 'some-texts_1.0-1_all.deb', ['apt-get', 'download', 'some-texts']),
        (NPM, 'some-texts-1.2.tgz', ['npm', 'pack', '--ignore-scripts', 'some-texts@1.2']),
        (
            SOURCE,
            'some-texts-1.2.tar.gz'.replace('-', '_', 1),
            ['--require-hashes', '--requirement=requirements.txt', '--no-binary=some-texts', '--no-deps'],
        ),
    ],
)
def test_a_download_lives_as_long_as_the_block(tmp_path, monkeypatch, capsys, package, name, words):
    def run(command, cwd, **_):
        assert set(words) <= set(command)
        if package is SOURCE:
            needed = (Path(cwd) / 'requirements.txt').read_text()
            assert needed == f'some-texts==1.2 --hash=sha256:{SOURCE.sha256}\n'
        (Path(cwd) / name).write_bytes(b'content')

    monkeypatch.setattr(packages.subprocess, 'run', run)
    with packages.obtained(package, tmp_path / 'store') as found:
        assert found.path.read_bytes() == b'content'
    assert not list((tmp_path / 'store').iterdir())
    assert capsys.readouterr().err.startswith(f'Downloading some-texts {package.version} from ')


def fails(error):
    def run(command, **_):
        raise error(command)

    return run


@pytest.mark.parametrize(
    ('package', 'run', 'message'),
    [
        (
            WHEEL,
            fails(lambda c: subprocess.CalledProcessError(1, c, stderr=b'a\nNo module named pip\n')),
            r'(?s)python failed: No module named pip\..*ensurepip.*pip download .*some-texts==1\.2\n.*copy the file to',
        ),
        (
            DEB,
            fails(
                lambda c: subprocess.CalledProcessError(
                    100, c, stderr=b'E: Unable to locate package some-texts'
                )
            ),
            r'(?s)apt-get failed: E: Unable to locate package.*apt-get update first.*    apt-get download some-texts',
        ),
        (DEB, fails(lambda _: FileNotFoundError()), 'apt-get is not on this machine'),
        (DEB, lambda *_, **__: None, 'apt-get left no package file'),
        (
            NPM,
            fails(lambda _: FileNotFoundError()),
            r'(?s)npm is not on this machine.*npm pack .*some-texts@1\.2',
        ),
        (
            SOURCE,
            fails(lambda c: subprocess.CalledProcessError(1, c, stderr=b'HASHES DO NOT MATCH')),
            r'(?s)python failed: HASHES DO NOT MATCH.*pip download --no-deps some-texts==1\.2',
        ),
        (Package('mpn', 'x', '1'), None, "unknown 'mpn'. Choices: debian, npm, pypi"),
    ],
)
def test_what_to_do_when_it_cannot_be_had(tmp_path, monkeypatch, package, run, message):
    monkeypatch.setattr(packages.sys, 'executable', 'python')
    monkeypatch.setattr(packages.subprocess, 'run', run)
    with pytest.raises(DataError, match=message), packages.obtained(package, tmp_path):
        pass


def test_a_store_that_cannot_be_written(tmp_path):
    (tmp_path / 'file').write_text('')
    with (
        pytest.raises(StorageError, match='cannot be written'),
        packages.obtained(DEB, tmp_path / 'file' / 'x'),
    ):
        pass


def test_members_of_a_wheel(tmp_path, monkeypatch):
    path = wheel(
        tmp_path / 'some_texts-1.2-py3-none-any.whl', **{'a.txt': 'A', 'deep/b.txt': 'B', 'c.py': 'C'}
    )
    assert packages.members(path, '*/*.txt') == {'some_texts/a.txt': b'A', 'some_texts/deep/b.txt': b'B'}
    with pytest.raises(DataError, match='holds no file'):
        packages.members(path, '*.rdb')
    monkeypatch.setattr(packages, 'LARGEST', 0)
    with pytest.raises(DataError, match=r'a\.txt has 1 bytes, more than the 0'):
        packages.members(path, '*/a.txt')
    path.write_bytes(path.read_bytes()[:50])
    with pytest.raises(DataError, match=r'is damaged: .* Delete it'):
        packages.members(path, '*')


@pytest.mark.parametrize('name', ['some-texts-1.2.tgz', 'some_texts-1.2.tar.gz'])
def test_members_of_a_tar_file(tmp_path, name):
    path = tmp_path / name
    with tarfile.open(path, 'w:gz') as archive:
        for member, content in (('package/a.txt', b'A'), ('./package/b.json', b'B'), ('package/c.py', b'C')):
            item = tarfile.TarInfo(member)
            item.size = len(content)
            archive.addfile(item, io.BytesIO(content))
        link = tarfile.TarInfo('package/link.txt')
        link.type, link.linkname = tarfile.SYMTYPE, '/etc/passwd'
        archive.addfile(link)
    assert packages.members(path, '*.txt', '*.json') == {'package/a.txt': b'A', 'package/b.json': b'B'}
    with pytest.raises(DataError, match=r"holds no file '\*\.x' or '\*\.y'"):
        packages.members(path, '*.x', '*.y')
    content = path.read_bytes()
    for damaged in (content[:60], content[:30] + b'\xff' * 30 + content[60:], b'no archive'):
        path.write_bytes(damaged)
        with pytest.raises(DataError, match=r'is damaged: .* Delete it'):
            packages.members(path, '*')


def test_a_file_of_another_content_is_refused(tmp_path, capsys):
    """Where the version is the known one; another version is taken, whatever it holds."""
    path = tmp_path / 'some_texts-1.2.tar.gz'
    path.write_bytes(b'content')
    with packages.obtained(SOURCE, tmp_path) as found:
        assert found == (path, '1.2')
    path.write_bytes(b'changed')
    with (
        pytest.raises(
            DataError, match=r'is not some-texts 1\.2: its sha256 is .*, expected is ed70.* Delete it'
        ),
        packages.obtained(SOURCE, tmp_path),
    ):
        pass
    path.rename(tmp_path / 'some_texts-1.3.tar.gz')
    with packages.obtained(SOURCE, tmp_path) as found:
        assert found.version == '1.3'
    assert 'is version 1.3; lcx was tried with 1.2' in capsys.readouterr().err


def test_versions_in_names_of_npm_packages(tmp_path):
    (tmp_path / 'some-texts-2.0.1-beta-3.tgz').write_bytes(b'')
    (tmp_path / 'some-texts-more-1.0.0.tgz').write_bytes(b'')
    with packages.obtained(NPM, tmp_path) as found:
        assert found.version == '2.0.1-beta-3'


@pytest.mark.skipif(shutil.which('dpkg-deb') is None, reason='needs dpkg-deb')
def test_members_of_a_debian_package(tmp_path, monkeypatch):
    tree = tmp_path / 'tree'
    (tree / 'DEBIAN').mkdir(parents=True)
    (tree / 'usr/share').mkdir(parents=True)
    (tree / 'usr/share/a.txt').write_text('A')
    (tree / 'usr/share/link.txt').symlink_to('/etc/passwd')
    fields = 'Package: some-texts\nVersion: 1.0-1\nArchitecture: all\nMaintainer: x <x@x>\nDescription: x\n'
    (tree / 'DEBIAN/control').write_text(fields)
    subprocess.run(['dpkg-deb', '--root-owner-group', '-b', tree, tmp_path], check=True, capture_output=True)
    path = tmp_path / 'some-texts_1.0-1_all.deb'
    assert packages.members(path, '*.txt') == {'usr/share/a.txt': b'A'}
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(DataError, match=r'is damaged: .* Delete it'):
        packages.members(path, '*.txt')
    monkeypatch.setenv('PATH', '')
    with pytest.raises(DataError, match=r'dpkg-deb is not here\. Install dpkg'):
        packages.members(path, '*.txt')
