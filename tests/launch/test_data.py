"""``lcx data`` without a configuration: a corpus and a vocabulary by name."""

import json
import zipfile

from lcx.data.corpora import CORPORA
from lcx.data.corpora.corpus import Corpus, text_digest
from lcx.data.packages import Package
from tests.data import vocabulary_files
from tests.running import lcx, rows

TEXTS = {name: f'the {name} text ' * 100 for name in ('one', 'two', 'three')}
CORPUS = Corpus(
    about='a test',
    licence='none',
    packages=(Package('pypi', 'some-texts', '1.0'),),
    patterns=('*.json',),
    parse=lambda files: json.loads(next(iter(files.values()))),
    splits={'train': ('one',), 'validation': ('two',), 'test': ('three',)},
    digest=text_digest(TEXTS),
)


def test_a_source_by_name(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv('HOME', str(tmp_path))
    monkeypatch.setitem(CORPORA, 'tiny', CORPUS)
    store = tmp_path / '.cache' / 'lcx' / 'data' / 'packages'
    store.mkdir(parents=True)
    with zipfile.ZipFile(store / 'some_texts-1.0-py3-none-any.whl', 'w') as archive:
        archive.writestr('texts.json', json.dumps(TEXTS))
    path = vocabulary_files.byte_level(tmp_path / 'tokenizer.json')
    assert lcx('data', '--source=tiny') == 0
    assert '1,300' in capsys.readouterr().out  # bytes of 'one'
    assert lcx('data', '--source=tiny', f'--tokenizer={path}') == 0
    printed = capsys.readouterr().out
    assert all(word in printed for word in ('validation', 'test', '1,300'))
    assert (tmp_path / '.cache' / 'lcx' / 'data' / 'tokens').is_dir()


def test_training_and_scoring_with_a_vocabulary_on_the_test_split(tmp_path, monkeypatch):
    """The vocabulary's size is the model's, and rows say which split they are of."""
    monkeypatch.setitem(CORPORA, 'tiny', CORPUS)
    prepared = tmp_path / 'prepared'
    (prepared / 'packages').mkdir(parents=True)
    with zipfile.ZipFile(prepared / 'packages' / 'some_texts-1.0-py3-none-any.whl', 'w') as archive:
        archive.writestr('texts.json', json.dumps(TEXTS))
    path = vocabulary_files.byte_level(tmp_path / 'tokenizer.json')
    words = [
        f'--config.data.tokenizer={path}',
        '--config.data.source=tiny',
        f'--config.data.directory={prepared}',
    ]
    words += ['--config.eval.split=test', "--config.eval.run=('perplexity',)", '--config.eval.lengths=(64,)']
    words += ['--config.stages[0].steps=1', '--config.eval.last=16', f'--workdir={tmp_path}/run']
    assert lcx('train', '--config=configs/base.py:smoke', *words) == 0
    (row,) = [row for row in rows(tmp_path / 'run' / 'results.jsonl') if 'bucket_end' not in row]
    assert row['split'] == 'test' and 0 < row['bits_per_byte'] < 20
