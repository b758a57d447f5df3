"""Listing, reading and dividing documents on disk."""

import re
import sysconfig
from pathlib import Path

import pytest

from lcx.data import files
from lcx.errors import ConfigError, DataError


def written(root, **contents):
    for name, content in contents.items():
        (root / f'{name}.txt').write_bytes(content)
    return files.scan(files.text((f'{root}/*.txt',)))


def test_stdlib_is_long_real_code_without_tests():
    found = files.stdlib()
    assert list(found) == sorted(found)
    assert {'argparse.py', 'asyncio/events.py'} <= set(found)
    assert not [name for name in found if re.search(r'(^|/)(tests?|site-packages|idlelib|ensurepip)/', name)]
    assert found['argparse.py'] == Path(sysconfig.get_paths()['stdlib'], 'argparse.py')
    assert sum(file.size > 32_768 for file in files.scan(found)) > 40


def test_globs_give_every_file_once_in_order(tmp_path):
    (tmp_path / 'deep').mkdir()
    for name in ('b.txt', 'a.txt', 'deep/c.txt', 'a[1].txt'):
        (tmp_path / name).write_text(name)
    found = files.text((f'{tmp_path}/**/*.txt', f'{tmp_path}/a.txt', f'{tmp_path}/a[1].txt'))
    assert [Path(name).name for name in found] == ['a.txt', 'a[1].txt', 'b.txt', 'c.txt']


@pytest.mark.parametrize(('pattern', 'message'), [('no/*.txt', 'matches no file'), ('.', 'is a directory')])
def test_missing_files_are_a_configuration_error(pattern, message):
    with pytest.raises(ConfigError, match=rf'data\.files: {re.escape(repr(pattern))} {message}'):
        files.text((pattern,))


def test_not_utf8_names_file_and_offset(tmp_path):
    with pytest.raises(DataError, match=r'bad\.txt is not UTF-8: byte 0xff at offset 3'):
        written(tmp_path, good=b'good', bad=b'abc\xff')


def test_empty_files_are_left_out_and_all_empty_is_an_error(tmp_path):
    assert [file.size for file in written(tmp_path, a=b'', b=b'12')] == [2]
    (tmp_path / 'b.txt').write_bytes(b'')
    with pytest.raises(ConfigError, match=r'data\.files: all 2 files are empty'):
        files.scan(files.text((f'{tmp_path}/*',)))


def test_split_is_by_content_and_keeps_copies_together(tmp_path):
    texts = {f'f{i}': b'%d' % (i % 150) for i in range(200)}
    scanned = written(tmp_path, **texts)
    parts = files.split(scanned, 10)
    sides = {name: {file.digest for file in part} for name, part in parts.items()}
    assert not sides['train'] & sides['validation']
    assert sorted(parts['train'] + parts['validation']) == sorted(scanned)
    assert 5 <= len(sides['validation']) <= 30
    fewer = files.split(scanned[:100], 10)  # the others' sides do not move
    assert {file.digest for file in fewer['validation']} <= sides['validation']


@pytest.mark.parametrize('percent', [1, 50])
def test_both_sides_have_a_document(tmp_path, percent):
    for count in range(2, 6):
        parts = files.split(written(tmp_path, **{f'f{i}': b'%d' % i for i in range(count)}), percent)
        assert all(parts.values())


def test_copies_of_one_text_cannot_be_divided(tmp_path):
    with pytest.raises(DataError, match=r'a\.txt alone cannot be divided'):
        files.split(written(tmp_path, a=b'same', b=b'same'), 5)
