"""TFDS data sets by name: a builder of the user's own, what it was prepared as, and what is not there."""

import importlib
import sys

import pytest
import tensorflow_datasets as tfds

from lcx.data import catalogue, sources
from lcx.data.config import DataConfig
from lcx.errors import ConfigError, DataError

BUILDER = """
import numpy as np
import tensorflow_datasets as tfds

class {name}(tfds.core.GeneratorBasedBuilder):
    VERSION = tfds.core.Version('1.0.0')

    def _info(self):
        features = {{'number': np.int64, 'text': tfds.features.Text()}}
        return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(features))

    def _split_generators(self, _):
        return {{name: self._generate_examples(name, count) for name, count in {splits}.items()}}

    def _generate_examples(self, name, count):
        for i in range(count):
            yield i, {{'number': i, 'text': f'{{name}} {{i}}'}}
"""


def config(root, source, **fields):
    defaults = {
        'source': source, 'files': (), 'text_feature': 'text', 'directory': str(root), 'tokenizer': 'bytes',
        'packing': 'concat', 'validation_percent': 20,
    }  # fmt: skip
    return DataConfig(**defaults | fields)


@pytest.fixture
def register(tmp_path, monkeypatch):
    """Writes a module with a builder class and imports it, as a user's configuration would."""
    monkeypatch.syspath_prepend(tmp_path)

    def define(name, splits):
        module = f'own_{name.lower()}'
        (tmp_path / f'{module}.py').write_text(BUILDER.format(name=name, splits=splits))
        if module in sys.modules:
            del sys.modules[module]
        return getattr(importlib.import_module(module), name)

    return define


def test_a_builder_of_ones_own_is_prepared_and_read(tmp_path, register):
    register('LcxOwnSplits', {'train': 5, 'validation': 3, 'test': 2})
    for split, count in (('train', 5), ('validation', 3), ('test', 2)):
        source = sources.open_documents(config(tmp_path, 'tfds:lcx_own_splits'), split)
        assert sorted(source) == [f'{split} {i}' for i in range(count)]
        assert source.name(0) == f'tfds:lcx_own_splits {split} 0'
    assert sources.splits(config(tmp_path, 'tfds:lcx_own_splits')) == ('train', 'validation', 'test')


def test_test_serves_as_validation(tmp_path, register):
    register('LcxTestOnly', {'train': 5, 'test': 2})
    source = sources.open_documents(config(tmp_path, 'tfds:lcx_test_only:1.0.0'), 'validation')
    assert sorted(source) == ['test 0', 'test 1']


def test_the_last_documents_serve_as_validation_where_there_is_only_train(tmp_path, register):
    register('LcxTrainOnly', {'train': 10})
    parts = [
        sources.open_documents(config(tmp_path, 'tfds:lcx_train_only'), split) for split in sources.SPLITS
    ]
    assert [len(part) for part in parts] == [8, 2]
    assert sources.splits(config(tmp_path, 'tfds:lcx_train_only')) == sources.SPLITS
    with pytest.raises(DataError, match=r"no documents in a split 'test'; it has {'train': 10}"):
        sources.open_documents(config(tmp_path, 'tfds:lcx_train_only'), 'test')
    assert sorted([*parts[0], *parts[1]]) == sorted(f'train {i}' for i in range(10))


def test_a_set_in_another_format_is_refused(tmp_path, register):
    pytest.importorskip('pyarrow')
    built = register('LcxParquet', {'train': 3})(data_dir=tmp_path, file_format='parquet')
    built.download_and_prepare(download_config=tfds.download.DownloadConfig(try_download_gcs=False))
    with pytest.raises(DataError, match='is prepared as parquet, which cannot be read'):
        sources.open_documents(config(tmp_path, 'tfds:lcx_parquet'), 'train')


@pytest.mark.parametrize(
    ('source', 'fields', 'message'),
    [
        ('tfds:lm1bb', {}, r"data\.source: TFDS knows no 'lm1bb'. Nearest: lm1b"),
        ('tfds:hugging:face', {}, r'data\.source: .* is not tfds:NAME'),
        ('tfds:lm1b:9.9.9', {}, r'data\.source: .*lm1b'),
        ('tfds:lm1b/nonsense', {}, r'data\.source: .*nonsense'),
        ('tfds:lm1b', {'text_feature': 'txet'}, r"data\.text_feature: unknown 'txet'. Did you mean 'text'"),
    ],
)
def test_unknown_names_are_configuration_errors(tmp_path, source, fields, message):
    with pytest.raises(ConfigError, match=message):
        sources.validate(config(tmp_path, source, **fields))


def test_a_numeric_feature_is_not_a_text(tmp_path, register):
    register('LcxNumbers', {'train': 2})
    with pytest.raises(ConfigError, match=r"text_feature: unknown 'number'. Choices: text"):
        sources.validate(config(tmp_path, 'tfds:lcx_numbers', text_feature='number'))


CATALOGUE = [
    (
        'pg19',
        'book_text',
        {
            'book_text': 'It was the best of times.',
            **{'book_title': 'A Tale', 'publication_date': '1859', 'book_link': 'x', 'book_id': 98},
        },
        'It was the best of times.',
    ),
    (
        'scrolls/gov_report',
        'input,output',
        {'id': '1', 'pid': '1_0', 'input': 'A long report.', 'output': 'Short.'},
        'A long report.\nShort.',
    ),
    ('imdb_reviews', 'text,label', {'text': 'Dull.', 'label': 'neg'}, 'Dull.\nneg'),
    (
        'billsum',
        'title, text,summary',
        {'title': 'An Act', 'text': 'Section 1.', 'summary': 'Acts.'},
        'An Act\nSection 1.\nActs.',
    ),
    ('wmt16_translate/de-en', 'en,de', {'de': 'Guten Tag', 'en': 'Good day'}, 'Good day\nGuten Tag'),
    ('booksum', 'document,summary', {'document': 'Chapter 1', 'summary': 'One'}, 'Chapter 1\nOne'),
    (
        'gov_report',
        'reports',
        {'reports': 'Findings.', **{'summary': 'F.', 'title': 'T', 'released_date': '2020', 'id': '1'}},
        'Findings.',
    ),
]


@pytest.mark.parametrize(('name', 'feature', 'record', 'text'), CATALOGUE, ids=[row[0] for row in CATALOGUE])
def test_features_of_the_catalogue(tmp_path, monkeypatch, name, feature, record, text):
    """The real builders, so the real features, with records made here in place of the downloads."""
    chosen = config(tmp_path, f'tfds:{name}', text_feature=feature)
    builder = catalogue.find(chosen)

    def split_generators(self, *_):
        return {split: iter([(i, record) for i in range(2)]) for split in ('train', 'test')}

    monkeypatch.setattr(type(builder), '_split_generators', split_generators)
    monkeypatch.setattr(type(builder), 'MANUAL_DOWNLOAD_INSTRUCTIONS', None)
    sources.validate(chosen)
    source = sources.open_documents(chosen, 'train')
    assert list(source) == [text, text]
    assert 'tensorflow' not in sys.modules
    other = config(tmp_path, f'tfds:{name}', text_feature=feature.split(',')[-1].strip())
    same = sources.open_documents(other, 'train').fingerprint == source.fingerprint
    assert same == (',' not in feature)
    with pytest.raises(ConfigError, match=r"text_feature: unknown ''. Choices: "):
        sources.validate(config(tmp_path, f'tfds:{name}', text_feature=f'{feature},'))


def test_a_record_without_a_class_or_with_bytes_that_are_no_text():
    data = [{'text': b'Dull.', 'label': -1}, {'text': b'\xff', 'label': 1}]
    records = sources.Records(data, ('text', 'label'), 'tiny train', 'x', {'label': ['neg', 'pos']})
    with pytest.raises(
        DataError, match=r"tiny train: 'label' of record 0 is -1, no class of \['neg', 'pos'\]"
    ):
        records[0]
    with pytest.raises(DataError, match=r"tiny train: 'text' of record 1 is not UTF-8 text"):
        records[1]


def test_a_set_that_cannot_be_prepared_says_how(tmp_path, register, monkeypatch):
    broken = register('LcxOffline', {'train': 1})

    def offline(*_):
        raise ConnectionError('no route to host')

    monkeypatch.setattr(broken, '_split_generators', offline)
    sources.validate(config(tmp_path, 'tfds:lcx_offline'))
    with pytest.raises(
        DataError, match=r'no route to host(.|\n)*download_and_prepare\(\)(.|\n)*copy prepared'
    ):
        sources.open_documents(config(tmp_path, 'tfds:lcx_offline'), 'train')
