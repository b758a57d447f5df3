"""The Long Range Arena's files: tiny ones in its layout, read as rows with a label."""

from pathlib import Path

import numpy as np
import pytest

from lcx.data.config import DataConfig
from lcx.data.feed import open_feed, open_task
from lcx.data.lra import Arena
from lcx.data.sources import splits, validate
from lcx.data.tasks import TASKS
from lcx.data.tokenizers import Bytes
from lcx.errors import ConfigError, DataError

BYTES = Bytes()
# As generated for the Arena: round brackets, blanks between all tokens, tabs between columns.
LISTOPS = 'Source\tTarget\n( ( ( [MAX 2 ) 9 ) ] )\t9\n( ( ( [SM ( ( ( [MIN 4 ) 7 ) ] ) ) 8 ) ] )\t2\n5\t5\n'
RETRIEVAL = (
    "1.0\tP1\tP2\tb'A cited paper'\tb'It cites'\n"
    "0.0\tP3\tP4\tb'One'\tb'Another'\n"
)  # fmt: skip
TEXT = 'Source\tTarget\nA "good" film\t1\nbad\t0\n'


@pytest.fixture
def directory(tmp_path):
    for split in ('train', 'val', 'test'):
        (tmp_path / f'basic_{split}.tsv').write_text(LISTOPS)
        (tmp_path / f'text_{split}.tsv').write_text(TEXT)
    for split in ('train', 'eval', 'test'):
        (tmp_path / f'new_aan_pairs.{split}.tsv').write_text(RETRIEVAL)
    return str(tmp_path)


def shown(batch):
    """The text of each row, and what counts of it."""
    ids = [np.append(t[s > 0], 0) for t, s in zip(batch.tokens, batch.segments)]
    counted = [BYTES.decode(t[w > 0]) for t, w in zip(batch.targets, batch.weights)]
    return {(BYTES.decode(i[:-1]), c) for i, c in zip(ids, counted)}


def rows(kind, directory, length=64, count=2):
    return shown(Arena(BYTES, kind, directory, 'test').sample_batch(np.random.default_rng(0), count, length))


def test_rows_are_texts_with_a_label_that_alone_counts(directory):
    assert rows('listops', directory, count=3) == {('X29]=9', '9'), ('SN47]8]=2', '2'), ('5=5', '5')}
    assert rows('text', directory) == {('A "good" film=1', '1'), ('bad=0', '0')}
    assert rows('retrieval', directory) == {
        ("b'A cited paper'|b'It cites'=1", '1'),
        ("b'One'|b'Another'=0", '0'),
    }


def test_expressions_have_their_values(directory):
    """By the evaluator of the synthetic task, whose spelling this is."""
    task = TASKS['listops'](BYTES)
    for text, label in rows('listops', directory, count=3):
        assert task.answer(text.partition('=')[0]) == label


def test_a_text_that_does_not_fit_keeps_its_beginning_and_is_counted(directory):
    task = Arena(BYTES, 'retrieval', directory, 'test')
    batch = task.sample_batch(np.random.default_rng(0), 2, 15)
    assert shown(batch) == {("b'A ci|b'It c=1", '1'), ("b'One'|b'Anot=0", '0')}
    assert task.facts(batch) == {'cut': 2}
    whole = task.sample_batch(np.random.default_rng(0), 2, 64)
    assert task.facts(whole) == {'cut': 0} and sorted(whole.ids) == [0, 1]
    least = task.sample_batch(np.random.default_rng(0), 1, 5)
    assert all(len(text) == 5 for text, _ in shown(least))
    with pytest.raises(DataError, match='lra_retrieval: length 4 is too short; the least is 5'):
        task.sample_batch(np.random.default_rng(0), 1, 4)


def test_examples_are_drawn_once_while_there_are_enough(directory):
    task = Arena(BYTES, 'listops', directory, 'train')
    drawn = task.sample_batch(np.random.default_rng(1), 3, 32).ids
    assert sorted(drawn) == [0, 1, 2] and len(task.sample_batch(np.random.default_rng(1), 8, 32).ids) == 8


def config(directory, source='lra:listops', **more):
    fields = {'source': source, 'files': (directory,), 'text_feature': 'text', 'directory': directory}
    fields |= {'tokenizer': 'bytes', 'packing': 'concat', 'validation_percent': 5, **more}
    return DataConfig(**fields)


def test_a_source_has_three_splits_of_its_own(directory):
    Path(directory, 'basic_val.tsv').write_text('Source\tTarget\n7\t7\n')
    assert splits(config(directory)) == ('train', 'validation', 'test')
    assert len(open_task(config(directory), 'validation', BYTES)) == 1
    feed = open_feed(config(directory))
    assert feed.words == "the task 'lra_listops'"
    batch = next(feed.batches(length=32, batch=2, seed=0))
    assert batch.tokens.shape == (2, 32) and batch.weights.sum() == 2
    before = feed.fingerprint
    Path(directory, 'basic_train.tsv').write_text(LISTOPS + '3\t3\n')
    assert open_feed(config(directory)).fingerprint != before


def test_missing_files_say_how_they_must_look(directory, tmp_path):
    (tmp_path / 'none').mkdir()
    with pytest.raises(
        DataError, match=r'lra:retrieval: no file .*new_aan_pairs\.test\.tsv.*two texts on a line'
    ):
        validate(config(str(tmp_path / 'none'), 'lra:retrieval'), 'test')
    with pytest.raises(ConfigError, match=r"files: \(\); source 'lra:text' reads the one directory"):
        config(directory, 'lra:text', files=())
    with pytest.raises(ConfigError, match=r"unknown 'lra:listop'.*Did you mean 'lra:listops'"):
        config(directory, 'lra:listop')


@pytest.mark.parametrize(
    ('kind', 'name', 'content', 'message'),
    [
        ('listops', 'basic_test.tsv', 'Target\tSource\n', 'begins with'),
        ('listops', 'basic_test.tsv', 'Source\tTarget\n', 'has no example'),
        ('listops', 'basic_test.tsv', 'Source\tTarget\n[AVG 3 ]\t3\n', r"example 0: '\[AVG' is no token of ListOps"),
        ('text', 'text_test.tsv', 'Source\tTarget\nfilm\tgood\n', "example 0: the label is 'good'"),
        ('text', 'text_test.tsv', 'Source\tTarget\nfilm\n', 'example 0: not enough values'),
        ('retrieval', 'new_aan_pairs.test.tsv', '1.0\ta\tb\n', 'example 0: not enough values'),
    ],
)  # fmt: skip
def test_files_of_another_layout_are_refused(directory, kind, name, content, message):
    Path(directory, name).write_text(content)
    with pytest.raises(DataError, match=f'lra_{kind}: .*{message}.*It should have .*between tabs'):
        Arena(BYTES, kind, directory, 'test')
