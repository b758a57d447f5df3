"""Synthetic tasks: every row has the right answer, the length asked for, and weight on the answer alone."""

import inspect
import itertools
import sys

import numpy as np
import pytest

from lcx.data.pipeline import task_batches
from lcx.data.tasks import TASKS, StringTask
from lcx.data.tokenizers import Bytes
from lcx.errors import ConfigError, DataError
from tests.data.task_solvers import SOLVERS

STRINGS = {name: task for name, task in TASKS.items() if issubclass(task, StringTask)}
ONLY_ODD = ('modular_arithmetic',)  # tasks whose questions have an odd size


def made(name: str, length: int, *, count: int = 30, vary: bool = False, seed: int = 0):
    return TASKS[name](Bytes()).sample_batch(np.random.default_rng(seed), count, length, vary=vary)


def texts(batch, separator='='):
    """(question, answer) of every row, the answer being what has weight; the last target ends the document."""
    found = []
    for tokens, targets, weights, segments in zip(batch.tokens, batch.targets, batch.weights, batch.segments):
        size = int(segments.sum())
        row = [*tokens[:size], targets[size - 1]]
        assert row[-1] == Bytes.eos and weights[size - 1] == 1 and not np.any(weights[size:])
        np.testing.assert_array_equal(tokens[1:size], targets[: size - 1])
        question = Bytes().decode(row).rpartition(separator)[0]
        assert np.sum(weights) == size - len(question)
        found.append((question, Bytes().decode(targets[weights > 0])))
    return found


def size_for(task, length):
    """The largest that fits."""
    size = max(n for n in range(task.smallest, length + 1) if n + 1 + task.answer_size(n) <= length)
    return size - (task.name in ONLY_ODD and size % 2 == 0)


def test_every_string_task_has_a_solver():
    """But the one whose answers have gaps: test_mqar.py."""
    assert set(SOLVERS) == set(STRINGS) - {'mqar'}


@pytest.mark.parametrize('name', SOLVERS)
def test_answers_are_right_and_rows_as_long_as_can_be(name):
    task = TASKS[name](Bytes())
    for length in (task.least, task.least + 1, 64, 65):
        batch = made(name, length)
        assert batch.tokens.shape == (30, length) and batch.tokens.dtype == np.int32
        np.testing.assert_array_equal(batch.positions, np.arange(length) * (batch.segments > 0))
        for question, answer in texts(batch, task.separator):
            assert answer == SOLVERS[name](question) and set(question) <= {*task.symbols, task.separator}
            assert len(question) == size_for(task, length) and len(answer) <= task.answer_size(len(question))


@pytest.mark.parametrize('name', SOLVERS)
def test_answers_reach_their_size_and_differ(name):
    task, random = TASKS[name](Bytes()), np.random.default_rng(0)
    sizes, answers = zip(*((len(a), a) for _, a in (task.draw(random, 5) for _ in range(300))))
    assert max(sizes) == task.answer_size(5) and len(set(answers)) > 1
    if task.answer_size(5) == 1:  # every answer is about as probable as another
        assert min(answers.count(a) for a in set(answers)) > 0.3 * len(answers) / len(set(answers))


@pytest.mark.parametrize('name', SOLVERS)
def test_varying_rows_have_every_size(name):
    task = TASKS[name](Bytes())
    sizes = {len(question) for question, _ in texts(made(name, 20, count=400, vary=True), task.separator)}
    assert sizes == {size_for(task, length) for length in range(task.least, 21)}


@pytest.mark.parametrize('name', SOLVERS)
def test_examples_of_docstrings_are_right(name):
    task = STRINGS[name]
    lines = inspect.getdoc(sys.modules[task.__module__]).splitlines()
    known = {*task.symbols, task.separator}
    examples = [
        word.rpartition(task.separator)
        for line in lines
        if line.startswith('    ')
        for word in line.split()
        if word.count(task.separator) and word != task.separator and set(word) <= known
    ]
    assert examples and all(SOLVERS[name](question) == answer for question, _, answer in examples)


def test_copies_and_sorted_strings_are_those_of_the_experiments():
    """Experiment 003 was run with these."""
    rows = {
        name: [Bytes().decode(row[:15]) for row in made(name, 16, count=2, seed=1).tokens]
        for name in ('copy', 'bucket_sort')
    }
    assert rows == {
        'copy': ['deghabg=deghabg', 'hbcgdcg=hbcgdcg'],
        'bucket_sort': ['2234004=0022344', '4114214=1112444'],
    }


# Where something stands that can be anywhere, in questions of 9 characters, and how many places there are.
PLACES = {
    'stack_manipulation': (lambda question: sum(c in '01' for c in question), 8),
    'missing_duplicate': (lambda question: question.index('_'), 8),
    'binary_addition': (lambda question: question.index('+'), 7),
    'binary_multiplication': (lambda question: question.index('*'), 7),
    'induction_heads': (lambda question: question.index('>'), 8),
    'modular_arithmetic_brackets': (
        lambda question: next(
            i
            for i, c in enumerate(question)
            if c in '+-*'
            and question[:i].count('(') - question[:i].count(')') == 1
            and question[i - 1] not in '(+-*'
        ),
        5,
    ),
}


@pytest.mark.parametrize('name', PLACES)
def test_places_are_equally_probable(name):
    where, count = PLACES[name]
    task, random = TASKS[name](Bytes()), np.random.default_rng(0)
    _, counts = np.unique([where(task.draw(random, 9)[0]) for _ in range(1000)], return_counts=True)
    expected = 1000 / count
    assert (
        len(counts) == count and np.sum((counts - expected) ** 2 / expected) < count + 5 * (2 * count) ** 0.5
    )


@pytest.mark.parametrize('name', TASKS)
def test_too_short_names_the_least_length(name):
    least = TASKS[name](Bytes()).least
    assert made(name, least).tokens.shape == (30, least)
    with pytest.raises(DataError, match=f'{name}: length {least - 1} is too short; the least is {least} tok'):
        made(name, least - 1)


def test_scores_count_tokens_and_whole_answers():
    weights = np.array([[0, 1, 1, 0], [1, 1, 1, 1], [0, 0, 1, 1.0]])
    hits = np.array([[0, 1, 1, 0], [1, 0, 1, 0], [1, 1, 0, 0.0]])
    score = TASKS['copy'](Bytes()).score(hits, weights)
    np.testing.assert_array_equal(score['token_accuracy'], [1, 0.5, 0])
    np.testing.assert_array_equal(score['accuracy'], [1, 0, 0])


@pytest.mark.parametrize('name', STRINGS)
def test_a_tokenizer_without_single_characters_is_named(name):
    class Pairs(Bytes):
        def encode(self, text):
            return np.repeat(super().encode(text), 2)

    first = STRINGS[name].symbols[0]
    with pytest.raises(
        ConfigError, match=rf"data\.tokenizer: 2 tokens for '[{first}]', which '{name}' needs as one"
    ):
        TASKS[name](Pairs())


def take(count, state=None, **changes):
    iterator = task_batches(TASKS['copy'](Bytes()), **{'length': 16, 'batch': 8, 'seed': 3} | changes)
    if state:
        iterator.set_state(state)
    return list(itertools.islice(iterator, count)), iterator.get_state()


def test_batches_are_a_function_of_seed_and_step_for_any_number_of_processes():
    whole, _ = take(4)
    halves = [take(4, mine=np.arange(4 * i, 4 * i + 4))[0] for i in range(2)]
    _, state = take(2)
    rest, _ = take(2, state)
    for step, batch in enumerate(whole):
        for name, x in batch._asdict().items():
            np.testing.assert_array_equal(x, np.concatenate([getattr(h[step], name) for h in halves]))
            if step >= 2:
                np.testing.assert_array_equal(x, getattr(rest[step - 2], name))
    assert not np.array_equal(whole[0].tokens, whole[1].tokens)
    assert not np.array_equal(whole[0].tokens, take(1, seed=4)[0][0].tokens)
    with pytest.raises(DataError, match='seed 3; now it is 4'):
        take(1, state, seed=4)
