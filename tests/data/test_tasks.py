"""Synthetic tasks: every row has the right answer, the length asked for, and weight on the answer alone."""

import itertools

import numpy as np
import pytest

from lcx.data.pipeline import task_batches
from lcx.data.tasks import TASKS, StringTask
from lcx.data.tokenizers import Bytes
from lcx.errors import ConfigError, DataError

STRINGS = {name: task for name, task in TASKS.items() if issubclass(task, StringTask)}

# The answers written here apart from the tasks.
SOLVERS = {
    'copy': lambda question: question,
    'bucket_sort': lambda question: ''.join(c * question.count(c) for c in '01234'),
}


def made(name: str, length: int, *, count: int = 30, vary: bool = False, seed: int = 0):
    return TASKS[name](Bytes()).sample_batch(np.random.default_rng(seed), count, length, vary=vary)


def texts(batch):
    """(question, answer) of every row, the answer being what has weight; the last target ends the document."""
    found = []
    for tokens, targets, weights, segments in zip(batch.tokens, batch.targets, batch.weights, batch.segments):
        size = int(segments.sum())
        row = [*tokens[:size], targets[size - 1]]
        assert row[-1] == Bytes.eos and weights[size - 1] == 1 and not np.any(weights[size:])
        np.testing.assert_array_equal(tokens[1:size], targets[: size - 1])
        question = Bytes().decode(row).partition('=')[0]
        assert np.sum(weights) == size - len(question)
        found.append((question, Bytes().decode(targets[weights > 0])))
    return found


def test_every_string_task_has_a_solver_here():
    assert set(SOLVERS) == set(STRINGS)


@pytest.mark.parametrize('name', STRINGS)
@pytest.mark.parametrize('length', [3, 4, 64, 65])
def test_answers_are_right_and_rows_as_long_as_can_be(name, length):
    batch = made(name, length)
    assert batch.tokens.shape == (30, length) and batch.tokens.dtype == np.int32
    np.testing.assert_array_equal(batch.positions, np.arange(length) * (batch.segments > 0))
    task = TASKS[name](Bytes())
    for question, answer in texts(batch):
        assert answer == SOLVERS[name](question) and set(question) <= set(task.symbols)
        size = len(question)
        assert size + 1 + task.answer_size(size) <= length < size + 2 + task.answer_size(size + 1)


@pytest.mark.parametrize('name', STRINGS)
def test_varying_rows_have_every_size(name):
    sizes = {len(question) for question, _ in texts(made(name, 20, count=400, vary=True))}
    assert sizes == set(range(1, 10))


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


def test_a_tokenizer_without_single_characters_is_named():
    class Pairs(Bytes):
        def encode(self, text):
            return np.repeat(super().encode(text), 2)

    with pytest.raises(ConfigError, match=r"data\.tokenizer: 2 tokens for 'a', which 'copy' needs as one"):
        TASKS['copy'](Pairs())


def take(count, state=None, **changes):
    iterator = task_batches(TASKS['copy'](Bytes()), **{'length': 16, 'batch': 8, 'seed': 3} | changes)
    if state:
        iterator.set_state(state)
    return list(itertools.islice(iterator, count)), iterator.get_state()


def test_batches_are_a_function_of_seed_and_step_for_any_number_of_processes():
    whole, _ = take(4)
    halves = [take(4, process_index=i, process_count=2)[0] for i in range(2)]
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
