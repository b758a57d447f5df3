"""Files through a prepared data set and back: bytes, names, damage, and two processes at once."""

import subprocess
import sys

import pytest

from lcx.data import builder, files, sources
from lcx.data.config import DataConfig
from lcx.errors import DataError, StorageError

TEXTS = ['\ufeffone\r\ntwo\n', 'nul \x00 inside', 'naïve 漢字 \U0001f600', 'z' * 70_000]


def configured(root, **fields):
    (root / 'texts').mkdir(exist_ok=True)
    for i, text in enumerate(TEXTS):
        (root / 'texts' / f'{i}.txt').write_bytes(text.encode())
    defaults = {
        'source': 'text', 'files': (f'{root}/texts/*.txt',), 'text_feature': 'text',
        'directory': f'{root}/data', 'tokenizer': 'bytes', 'packing': 'concat', 'validation_percent': 25,
    }  # fmt: skip
    return DataConfig(**defaults | fields)


def documents(config):
    opened = [sources.open_documents(config, split) for split in sources.SPLITS]
    return {source.name(i): source[i] for source in opened for i in range(len(source))}


def test_every_byte_and_name_comes_back(tmp_path, capsys):
    config = configured(tmp_path)
    assert documents(config) == {f'{tmp_path}/texts/{i}.txt': text for i, text in enumerate(TEXTS)}
    printed = capsys.readouterr()
    assert printed.out == ''
    assert (
        printed.err.startswith('Preparing text: 4 documents, 70.0 kB, in ') and printed.err.count('\n') == 1
    )
    documents(config)
    assert capsys.readouterr().err == ''


def test_a_source_is_a_sequence(tmp_path):
    source = sources.open_documents(configured(tmp_path), 'train')
    assert len(list(source)) == len(source) > 0
    with pytest.raises(DataError, match=r"unknown 'trian'. Did you mean 'train'"):
        sources.open_documents(configured(tmp_path), 'trian')


def test_changed_files_and_shares_are_other_data_sets(tmp_path):
    config = configured(tmp_path)
    first = sources.open_documents(config, 'train').fingerprint
    assert sources.open_documents(config, 'train').fingerprint == first
    assert sources.open_documents(config, 'validation').fingerprint != first
    other_share = configured(tmp_path, validation_percent=50)
    assert sources.open_documents(other_share, 'train').fingerprint != first
    (tmp_path / 'texts' / '1.txt').write_text('changed')
    assert sources.open_documents(config, 'train').fingerprint != first
    assert 'changed' in documents(config).values()


@pytest.mark.parametrize('keep', [0.0, 0.5])
def test_a_truncated_data_set_is_refused(tmp_path, keep):
    config = configured(tmp_path)
    sources.open_documents(config, 'train')
    (path,) = (tmp_path / 'data').glob('text-*/documents/*/documents-train.array_record*')
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * keep)])
    with pytest.raises(DataError, match=r"split 'train' holds 0 of \d records. Delete this directory"):
        sources.open_documents(config, 'train')


def test_a_file_that_changes_meanwhile_is_an_error(tmp_path):
    config = configured(tmp_path)
    parts = files.split(files.scan(files.text(config.files)), 25)
    (tmp_path / 'texts' / '0.txt').write_text('new')
    with pytest.raises(DataError, match='changed while it was being prepared'):
        builder.prepare(parts, tmp_path / 'prepared')
    assert not list(tmp_path.glob('*prepared*'))


def test_a_directory_that_cannot_be_written_is_a_storage_error(tmp_path):
    (tmp_path / 'data').write_text('a file')
    with pytest.raises(StorageError, match=r'cannot be written.*Set data\.directory'):
        sources.open_documents(configured(tmp_path), 'train')


def test_processes_that_prepare_at_once_end_with_one_data_set(tmp_path):
    config = configured(tmp_path)
    program = (
        'from lcx.data.config import DataConfig; from lcx.data.tokens import open_tokens; import sys; '
        f'config = {config!r}; print(open_tokens(config, "train").fingerprint); '
        'assert "tensorflow" not in sys.modules'
    )
    running = [subprocess.Popen([sys.executable, '-c', program], stdout=subprocess.PIPE) for _ in range(2)]
    outputs = {process.communicate(timeout=60)[0] for process in running}
    assert all(process.returncode == 0 for process in running)
    assert len(outputs) == 1
    assert sorted(path.name.split('-')[0] for path in (tmp_path / 'data').iterdir()) == ['text', 'tokens']
