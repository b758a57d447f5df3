"""The encoder's form of tasks: a question, places for its answer, and nothing of the answer among the inputs."""

import numpy as np
import pytest

from lcx.data.config import DataConfig
from lcx.data.feed import open_feed, open_task
from lcx.data.tasks import FORMS, TASKS, StringTask
from lcx.data.tokenizers import Bytes
from lcx.errors import ConfigError
from tests.data.task_solvers import SOLVERS

EOS = Bytes.eos
STRINGS = sorted(name for name, task in TASKS.items() if issubclass(task, StringTask))


def encoder(name):
    return FORMS['encoder'](TASKS[name](Bytes()))


def config(**fields):
    given = {'source': 'task:copy', 'form': 'encoder', 'files': (), 'text_feature': 'text', 'directory': ''}
    return DataConfig(
        **{**given, 'tokenizer': 'bytes', 'packing': 'concat', 'validation_percent': 5, **fields}
    )


def test_a_row_letter_by_letter():
    batch = encoder('bucket_sort').sample_batch(np.random.default_rng(0), 1, 7)
    question = Bytes().decode(batch.tokens[0, :3])
    np.testing.assert_array_equal(
        batch.tokens[0, 3:], [EOS, EOS, EOS, 0]
    )  # sizes are even, the last is padding
    assert Bytes().decode(batch.targets[0, 3:6]) == ''.join(sorted(question))
    for found, expected in (
        (batch.weights, [0, 0, 0, 1, 1, 1, 0]),
        (batch.positions, [0, 1, 2, 3, 4, 5, 0]),
        (batch.segments, [1, 1, 1, 1, 1, 1, 0]),
    ):
        np.testing.assert_array_equal(found[0], expected)


@pytest.mark.parametrize('name', sorted(SOLVERS))
def test_places_hold_the_answer(name):
    task = encoder(name)
    batch = task.sample_batch(np.random.default_rng(1), 20, task.tokens(12))
    for tokens, targets, weights, segments in zip(batch.tokens, batch.targets, batch.weights, batch.segments):
        real = int(segments.sum())
        question = Bytes().decode(tokens[:real])
        places = real - len(question)
        assert places == task.task.answer_size(12) and np.all(tokens[len(question) : real] == EOS)
        answer = SOLVERS[name](question)
        assert Bytes().decode(targets[weights > 0]) == answer
        ended = min(len(answer) + 1, places)  # the first end counts, where there is a place for it
        np.testing.assert_array_equal(
            weights, np.pad(np.ones(ended), (len(question), len(tokens) - len(question) - ended))
        )
        assert np.all(targets[len(question) + len(answer) : real] == EOS)


@pytest.mark.parametrize('name', STRINGS)
def test_every_string_task_has_the_form(name):
    task = encoder(name)
    batch = task.sample_batch(np.random.default_rng(0), 8, task.least + 9, vary=True)
    assert batch.weights.any(axis=1).all() and not np.any(batch.weights[batch.segments == 0])


def test_sizes_are_equally_probable_at_an_odd_length():
    """As experiment 007 trains: 1 to 40 symbols and as many places in 81 tokens."""
    task = encoder('reverse_string')
    batch = task.sample_batch(np.random.default_rng(0), 8000, 81, vary=True)
    sizes, counts = np.unique(batch.weights.sum(axis=1), return_counts=True)
    np.testing.assert_array_equal(sizes, np.arange(1, 41))
    assert np.sum((counts - 200) ** 2 / 200) < 40 + 5 * 80**0.5


def test_the_configuration_names_the_form():
    batch = next(open_feed(config()).batches(length=9, batch=2, seed=0))
    assert (
        np.any(batch.tokens == EOS)
        and open_task(config(source='stdlib', form='decoder'), 'train', Bytes()) is None
    )
    assert isinstance(open_task(config(form='decoder'), 'train', Bytes()), TASKS['copy'])
    with pytest.raises(ConfigError, match=r"^form: unknown 'encodr'. Did you mean 'encoder'"):
        config(form='encodr')
    for source in ('stdlib', 'task:passkey'):
        with pytest.raises(ConfigError, match=rf"^form: 'encoder' is for tasks .*, not '{source}'"):
            config(source=source)
