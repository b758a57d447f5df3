"""Needles in real text: well formed under every tokenizer, at the depths asked for, and scored as they deserve."""

import dataclasses
import re

import numpy as np
import pytest

from lcx.data import tokens
from lcx.data.tokenizers import Bytes, make_tokenizer
from lcx.errors import ConfigError, DataError
from lcx.eval import Context, EvalConfig, Needle
from lcx.eval.needle import ADJECTIVES, INTRODUCTION, NOUNS, QUESTION, REACH, place_of
from lcx.models import Scores
from tests.data import vocabulary_files

CONFIG = EvalConfig(
    run=(),
    split='validation',
    every=None,
    lengths=(512, 1024),
    windows=1,
    depths=(0.0, 0.5, 1.0),
    samples=4,
    last=4,
    tokens=2048,
)
SENTENCE = re.compile(r' One of the special magic numbers for (\w+-\w+) is: (\d{7})\.')


def story(seed, sentences=300):
    """Sentences of three to nine words; every number of them is another."""
    random = np.random.default_rng(seed)
    words = ['the', 'cat', 'sat', 'there', 'mat', 'other', 'and', 'tree', 'walked']
    return ' '.join(
        ' '.join([f'Story{seed}', *random.choice(words, random.integers(2, 8)), str(i), 'times.'])
        for i in range(sentences)
    )


STORIES = [story(0), story(1)]


def context(directory, tokenizer, **changes):
    tokens.write(directory / 'a', STORIES, tokenizer)
    config = dataclasses.replace(CONFIG, **changes)
    return Context(config, tokens.read(directory / 'a', 'test'), tokenizer, seed=0)


@pytest.fixture(scope='module')
def in_bytes(tmp_path_factory):
    return context(tmp_path_factory.mktemp('tokens'), Bytes())


def inputs(evaluator, length):
    """(sample, ids, place) of every row."""
    pairs = zip(evaluator.samples, evaluator.texts, strict=True)
    return [(found, *evaluator.ids(found, text, length)) for found, text in pairs]


@pytest.fixture(params=['bytes', 'byte_level', 'spaced', 'metaspace', 'sentencepiece'])
def tokenizer(request, tmp_path):
    if request.param == 'bytes':
        return Bytes()
    if request.param == 'sentencepiece':
        pytest.importorskip('sentencepiece')
    name = 'tokenizer.model' if request.param == 'sentencepiece' else 'tokenizer.json'
    return make_tokenizer(str(getattr(vocabulary_files, request.param)(tmp_path / name)))


def test_every_tokenizer_gives_texts_of_the_length_with_one_needle_and_the_answer_last(tokenizer, tmp_path):
    evaluator = Needle(context(tmp_path, tokenizer))
    seen = set()
    for length in CONFIG.lengths:
        for found, ids, place in inputs(evaluator, length):
            assert ids.shape == (length + 1,) and ids.dtype == np.int32
            text = tokenizer.decode(ids)
            ((key, value),) = SENTENCE.findall(text)
            assert text.endswith(QUESTION.format(key=key) + f' {value}')
            assert set(key.split('-')) <= {*ADJECTIVES, *NOUNS}
            answer = tokenizer.decode(found.answer)
            assert answer.endswith(value) and (QUESTION.format(key=key) + f' {value}').endswith(answer)
            np.testing.assert_array_equal(ids[-len(found.answer) :], found.answer)
            rest = SENTENCE.sub('', text).removesuffix(QUESTION.format(key=key) + f' {value}')
            haystack = rest.removeprefix(INTRODUCTION)
            assert any(haystack in whole for whole in STORIES)
            introduced = length - evaluator.largest >= 2 * len(evaluator.introduction)
            assert rest.startswith(INTRODUCTION) == introduced
            before = text.partition(' One of the special')[0].removeprefix(INTRODUCTION)
            assert before == tokenizer.decode(ids[len(evaluator.introduction) * introduced :][:place])
            if found.depth == 0.5:  # a sentence, or at these lengths a word, ends there
                assert not before[-1].isspace() and haystack[len(before)].isspace()
                assert abs(len(before) / len(haystack) - 0.5) < 0.2
            assert {0.0: before == '', 0.5: True, 1.0: before == haystack}[found.depth]
            seen.add((key, value))
    assert len(seen) == len(evaluator.samples) == 12  # a number for each, at both lengths the same


def test_places_are_the_nearest_ends_of_sentences_then_of_words_then_of_tokens():
    def place(text, depth):
        return place_of(Bytes(), Bytes().encode(text), depth)

    text = 'a' * 40 + 'word. b' + 'c' * 53  # 100 bytes; the sentence ends at 45
    assert place(text, 0.5) == place(text, 0.4) == 45
    assert place(text, 0.3) == 30  # more than an eighth of the text away
    assert place(text.replace('word. b', 'said "no more." b'[-7:]), 0.5) == 45
    assert place('a' * 40 + ' Mr. Darcy ' + 'c' * 49, 0.44) == 44  # the word's end that is nearest
    assert place('a' * 100, 0.5) == 50
    assert [place(text, depth) for depth in (0.0, 1.0)] == [0, 100]
    long = 'word. ' + 'a' * 9000
    assert place(long, 0.02) == 5 and place(long, 0.1) == round(0.1 * len(long))
    assert len(long) // 8 > REACH


def test_a_story_has_needles_at_ends_of_sentences_close_to_their_depths(in_bytes):
    evaluator = Needle(in_bytes._replace(config=dataclasses.replace(CONFIG, depths=(0.25, 0.5, 0.75))))
    for found, ids, place in inputs(evaluator, 1024):
        text = Bytes().decode(ids).removeprefix(INTRODUCTION)
        assert text[place - 1] == '.'
        assert abs(place - found.depth * (len(text) - 1 - found.size)) < 50


def test_every_depth_reads_all_documents(in_bytes):
    whose = {d: set() for d in CONFIG.depths}
    for found, ids, _ in inputs(Needle(in_bytes), 1024):
        whose[found.depth] |= set(re.findall(r'Story\d', Bytes().decode(ids)))
    assert all(names == {'Story0', 'Story1'} for names in whose.values())


def test_same_seed_same_samples_and_texts_that_end_alike_at_every_length(in_bytes):
    evaluator = Needle(in_bytes)
    for (_, a, _), (_, b, _) in zip(inputs(evaluator, 512), inputs(Needle(in_bytes), 512)):
        np.testing.assert_array_equal(a, b)
    other = [tuple(ids) for _, ids, _ in inputs(Needle(in_bytes._replace(seed=1)), 512)]
    assert not {tuple(ids) for _, ids, _ in inputs(evaluator, 512)} & set(other)
    for (found, short, _), (_, long, _) in zip(inputs(evaluator, 512), inputs(evaluator, 1024)):
        same = len(found.question) + len(found.answer) + 60 * (found.depth < 1)
        np.testing.assert_array_equal(short[-same:], long[-same:])


def solver(read, shapes=None):
    """An ``apply`` that says ``read(text before the answer)``: one bit per right token, ten per wrong one."""

    def apply(_, batch):
        if shapes is not None:
            shapes.append(batch.tokens.shape)
        guesses, real = np.full(batch.tokens.shape, -1), np.any(batch.segments, axis=1)
        assert np.all(batch.weights[real, -8:] == 1) and np.all(
            batch.weights[real].sum(axis=1) == 8
        )  # the answer
        for row, ids in enumerate(batch.tokens[batch.segments[:, 0] > 0]):
            answer = Bytes().encode(read(Bytes().decode(ids[: -len(' 1234567') + 1])))
            guesses[row, -len(answer) :] = answer
        hit = (guesses == batch.targets).astype(np.float32)
        return Scores(np.where(hit, 1, 10) * np.log(2), np.zeros_like(hit), hit)

    return apply


def find(text):
    found = SENTENCE.search(text)
    return f' {found[2]}' if found else ' 0000000'


def test_a_reader_is_always_right_and_almost_right_is_wrong(in_bytes):
    rows = list(Needle(in_bytes).run(solver(find), None))
    cells = [(r['length'], r['sample'], r['depth']) for r in rows]
    assert cells == [(n, i, d) for n in CONFIG.lengths for i in range(4) for d in CONFIG.depths]
    names = ['evaluator', 'length', 'depth', 'sample', 'text', 'place', 'accuracy', 'answer_bits']
    for row in rows:
        assert list(row) == names and row['evaluator'] == 'needle'
        assert row['accuracy'] == 1.0 and row['answer_bits'] == pytest.approx(8)
    for row in Needle(in_bytes).run(solver(lambda text: find(text)[:-1] + 'x'), None):
        assert row['accuracy'] == 0.0 and row['answer_bits'] == pytest.approx(7 + 10)


def test_a_short_memory_finds_what_lies_within_it(in_bytes):
    """Who sees the last 600 bytes: all at 512, at 1024 what is not at the beginning."""
    for row in Needle(in_bytes).run(solver(lambda text: find(text[-600:])), None):
        assert row['accuracy'] == float(row['length'] == 512 or row['depth'] > 0)


def test_finished_samples_are_left_out_and_a_length_has_one_shape(in_bytes):
    shapes, evaluator = [], Needle(in_bytes)
    rows = list(evaluator.run(solver(find, shapes), None))
    assert set(shapes) == {(4, 512), (2, 1024)}
    done = [*rows[:5], *rows[13:20], {**rows[20], 'text': 'another'}, {**rows[21], 'evaluator': 'other'}]
    again = []
    rest = list(evaluator.run(solver(find, again), None, done))
    assert rest == [r for r in rows if r not in done] and set(again) == set(shapes)


def test_too_short_names_the_least_length_at_which_one_token_of_text_is_left(in_bytes, tmp_path):
    least = Needle(in_bytes).largest + 1
    for found, ids, place in inputs(Needle(in_bytes), least):
        assert len(ids) == least + 1 and 0 <= place <= least - found.size > 0
    short = dataclasses.replace(CONFIG, lengths=(128, 512))
    with pytest.raises(DataError, match=f'^needle: length 128 is too short; the least is {least} tokens'):
        Needle(in_bytes._replace(config=short))
    long = dataclasses.replace(CONFIG, lengths=(2**15,))
    with pytest.raises(DataError, match='test has no document of'):
        Needle(in_bytes._replace(config=long))


def test_a_task_has_no_text(in_bytes):
    with pytest.raises(ConfigError, match=r"eval\.run: 'needle' reads text"):
        Needle(in_bytes._replace(tokens=None))
