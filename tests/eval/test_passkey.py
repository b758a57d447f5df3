"""Passkey prompts are well formed at every length, and solvers that read them get the accuracy they deserve."""

import re

import numpy as np
import pytest

from lcx.data.tasks import TASKS, Passkey
from lcx.data.tasks.passkey import FILLER, INTRODUCTION, QUESTION
from lcx.data.tokenizers import Bytes
from lcx.errors import DataError
from lcx.eval import Context, EvalConfig, passkey
from lcx.models import Scores

TOKENIZER = Bytes()
LEAST = 101  # bytes of needle, question and answer, less the last, which is no input
LENGTHS = (128, 256, 512)
CONFIG = EvalConfig(
    run=('passkey',),
    split='validation',
    every=None,
    lengths=LENGTHS,
    windows=8,
    depths=(0.5,),
    samples=1,
    last=8,
    tokens=1024,
)


def prompts(length, count=40, seed=0):
    batch = Passkey(TOKENIZER).sample_batch(np.random.default_rng(seed), count, length)
    return batch, [TOKENIZER.decode([*row, target[-1]]) for row, target in zip(batch.tokens, batch.targets)]


@pytest.mark.parametrize('length', [LEAST, LEAST + 1, 128, 394, 395, 512])
def test_prompts_have_the_length_and_end_with_the_answer(length):
    batch, texts = prompts(length)
    assert batch.tokens.shape == batch.targets.shape == (40, length)
    np.testing.assert_array_equal(batch.tokens[:, 1:], batch.targets[:, :-1])
    np.testing.assert_array_equal(batch.positions, np.tile(np.arange(length), (40, 1)))
    assert np.all(batch.segments == 1)
    for text, targets, weights in zip(texts, batch.targets, batch.weights):
        (key,) = set(re.findall(r'[1-9]\d{4}', text))
        assert text.count(key) == 3 and text.endswith(f'{QUESTION} {key}')
        assert TOKENIZER.decode(targets[weights > 0]) == f' {key}'
        assert text.startswith(INTRODUCTION) == (length >= 395)
        filler = re.sub(rf'The pass key is {key}\. Remember it\. {key} is the pass key\. ', '', text)
        filler = filler.removeprefix(INTRODUCTION).removesuffix(f'{QUESTION} {key}')
        assert (FILLER * 10).startswith(filler)
    assert len({text[-5:] for text in texts}) > 35


def test_hiding_places_are_spread_over_the_filler():
    _, texts = prompts(512, count=200)
    places = np.array([text.index('The pass key is') for text in texts]) - len(INTRODUCTION)
    room = 512 - LEAST - len(INTRODUCTION)
    counts, _ = np.histogram(places, bins=4, range=(0, room))
    assert places.min() < room / 20 and places.max() > room * 19 / 20 and np.all(counts > 30)


def test_same_seed_same_prompts():
    assert prompts(128, seed=3)[1] == prompts(128, seed=3)[1] != prompts(128, seed=4)[1]


def test_too_short_names_the_least_length():
    with pytest.raises(DataError, match=f'length 64 is too short; the least is {LEAST} tokens'):
        prompts(64)
    with pytest.raises(DataError, match=f'length {LEAST - 1} is too short; the least is {LEAST}'):
        prompts(LEAST - 1)


def solver(read):
    """An ``apply`` that says ``read(text so far)`` and is sure of it: one bit per right token, ten per wrong one."""

    def apply(_, batch):
        guesses = np.full(batch.tokens.shape, -1)
        for row, tokens in enumerate(batch.tokens):
            text = TOKENIZER.decode(tokens)
            end = text.find(QUESTION) + len(QUESTION)  # padding rows have no question
            answer = TOKENIZER.encode(read(text[:end])) if QUESTION in text else np.zeros(6, int)
            guesses[row, -len(answer) :] = answer
        hit = (guesses == batch.targets).astype(np.float32)
        return Scores(np.where(hit, 1, 10) * np.log(2), np.zeros_like(hit), hit)

    return apply


def rows(apply):
    return list(passkey(Context(CONFIG, None, TOKENIZER, seed=1)).run(apply, None))


def find(text):
    found = re.search(r'The pass key is (\d{5})\.', text)
    return f' {found[1]}' if found else ' 00000'


def test_a_reader_is_always_right():
    for row, length in zip(rows(solver(find)), LENGTHS, strict=True):
        assert len(row['text']) == 12
        assert row == {
            'evaluator': 'passkey',
            'length': length,
            'samples': 8,
            'text': row['text'],
            'accuracy': 1.0,
            'accuracy_stderr': 0.0,
            'answer_bits': pytest.approx(6),
        }


def test_finished_lengths_are_left_out_unless_their_prompts_differ():
    task, seen = passkey(Context(CONFIG, None, TOKENIZER, seed=1)), []

    def apply(params, batch):
        seen.append(batch.tokens.shape[1])
        return solver(find)(params, batch)

    whole = list(task.run(apply, None))
    seen.clear()
    done = [whole[1], {**whole[0], 'text': 'another'}, {**whole[2], 'evaluator': 'copy'}]
    assert list(task.run(apply, None, done)) == [whole[0], whole[2]] and set(seen) == {128, 512}


def test_almost_right_is_wrong():
    """The first five of six tokens."""
    for row in rows(solver(lambda text: find(text)[:-1] + 'x')):
        assert row['accuracy'] == 0 and row['answer_bits'] == pytest.approx(5 + 10)


def test_a_short_memory_finds_what_lies_within_it():
    """Who sees the last 160 bytes is right where the needle is there: the accuracy counts exactly these."""
    task = passkey(Context(CONFIG, None, TOKENIZER, seed=1))
    for row, batch in zip(task.run(solver(lambda text: find(text[-160:])), None), task.batches):
        texts = [TOKENIZER.decode(tokens).partition(QUESTION)[0] + QUESTION for tokens in batch.tokens]
        near = np.array([re.search(r'The pass key is \d{5}\.', text[-160:]) is not None for text in texts])
        assert row['accuracy'] == np.mean(near)
        assert row['accuracy_stderr'] == pytest.approx(np.std(near, ddof=1) / 8**0.5)
        assert (row['length'] == 128) == (row['accuracy'] == 1)


def test_tasks_are_registered_by_name():
    assert all(task.name == name for name, task in TASKS.items())
