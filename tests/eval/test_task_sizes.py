"""Scores by a task's own sizes: padding changes nothing, and rows go on where they were cut off."""

import dataclasses

import numpy as np
import pytest

from lcx.data.tasks import FORMS, TASKS
from lcx.data.tokenizers import Bytes
from lcx.errors import ConfigError
from lcx.eval import Context, EvalConfig, trained_task_sizes
from lcx.models import Scores

CONFIG = EvalConfig(
    run=('task_sizes',), split='validation', every=None, lengths=(64,), windows=6, depths=(0.5,), samples=1,
    last=8, tokens=64, sizes=(3, 5, 8),
)  # fmt: skip


def evaluator(config=CONFIG, form='encoder', name='reverse_string'):
    return trained_task_sizes(Context(config, None, Bytes(), 0, FORMS[form](TASKS[name](Bytes()))))


def reader(wrong=()):
    """An ``apply`` that reverses what it reads; places in ``wrong`` are never right. Remembers shapes."""
    shapes = []

    def apply(_, batch):
        shapes.append(batch.tokens.shape)
        hit = np.zeros(batch.tokens.shape, np.float32)
        for i, (tokens, segments) in enumerate(zip(batch.tokens, batch.segments)):
            size = int(segments.sum()) // 2
            hit[i, size : 2 * size] = tokens[:size][::-1] == batch.targets[i, size : 2 * size]
            hit[i, [size + place for place in wrong if place < size]] = 0
        return Scores(1 - hit, hit * 0, hit)

    return apply, shapes


def test_a_reader_is_right_at_every_size_and_rows_are_padded_to_powers_of_two():
    apply, shapes = reader()
    rows = list(evaluator().run(apply, None))
    assert [(row['size'], row['length'], row['token_accuracy'], row['accuracy']) for row in rows] == [
        (size, 2 * size, 1, 1) for size in (3, 5, 8)
    ]
    assert {row['evaluator'] for row in rows} == {'reverse_string_sizes'} and rows[0]['samples'] == 6
    assert set(shapes) == {(6, 8), (4, 16)}  # at most 64 tokens at one time


def test_places_are_counted_one_by_one():
    rows = list(evaluator().run(reader(wrong=(0, 4))[0], None))
    assert [row['token_accuracy'] for row in rows] == pytest.approx([2 / 3, 3 / 5, 6 / 8])
    assert all(row['accuracy'] == 0 for row in rows)


def test_finished_sizes_are_left_out_unless_their_samples_differ():
    task, (apply, shapes) = evaluator(), reader()
    whole = list(task.run(apply, None))
    shapes.clear()
    done = [whole[1], {**whole[0], 'text': 'another'}, {**whole[2], 'evaluator': 'copy_sizes'}]
    assert list(task.run(apply, None, done)) == [whole[0], whole[2]] and (6, 8) in shapes


def test_a_decoders_sizes_are_those_of_its_questions():
    found = evaluator(form='decoder').batches
    assert [int((batch.weights.sum(axis=1) - 1)[0]) for batch in found] == [3, 5, 8]


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        ({'sizes': ()}, 'eval.sizes: () must be at least one size, of missing_duplicate 2 or more'),
        ({'sizes': (1, 4)}, 'eval.sizes: (1, 4) must be'),
    ],
)
def test_sizes_that_cannot_be_are_refused(change, message):
    with pytest.raises(ConfigError) as caught:
        evaluator(dataclasses.replace(CONFIG, **change), name='missing_duplicate')
    assert str(caught.value).startswith(message)


def test_sizes_rise_and_belong_to_a_task_that_has_them():
    with pytest.raises(ConfigError, match=r'^sizes: \(5, 3\) must rise'):
        dataclasses.replace(CONFIG, sizes=(5, 3))
    with pytest.raises(ConfigError, match="'task_sizes' needs a task of strings"):
        evaluator(form='decoder', name='passkey')
    with pytest.raises(ConfigError, match="'task_sizes' needs a task of strings"):
        trained_task_sizes(Context(CONFIG, None, Bytes(), 0))
