"""Stories in filler: a reader who knows the rules of the world, and reads backwards, has the answer."""

import re

import numpy as np
import pytest

from lcx.data.tasks import TASKS
from lcx.data.tasks.passkey import FILLER
from lcx.data.tasks.world import happen
from lcx.data.tokenizers import Bytes
from lcx.errors import DataError

BABI = {name: task for name, task in TASKS.items() if name.startswith('babi_')}
PERSON, PLACE = r'(Daniel|John|Mary|Sandra)', r'(bathroom|bedroom|garden|hallway|kitchen|office)'
THING = r'(apple|football|milk)'
GO = rf'{PERSON} (?:went|moved|journeyed|travelled) to the {PLACE}\.'
TAKE = rf'{PERSON} (?:took|got|grabbed|picked up) the {THING} there\.'
DROP = rf'{PERSON} (?:dropped|discarded|left|put down) the {THING}\.'
GIVE = rf'{PERSON} (?:gave|handed|passed) the {THING} to {PERSON}\.'
KIND = r'(cat|cats|mouse|mice|sheep|wolf|wolves)'
FEAR, IS = (
    rf'(Cats|Mice|Sheep|Wolves) are afraid of {KIND}\.',
    rf'(Emily|Gertrude|Jessica|Winona) is a {KIND}\.',
)
FACT = '|'.join(' ' + re.sub(r'\((?!\?)', '(?:', form) for form in (GO, TAKE, DROP, GIVE, FEAR, IS))
ONE = {'cats': 'cat', 'mice': 'mouse', 'wolves': 'wolf'}


def person_at(facts, person):
    """Where a person is after the facts."""
    return next((m[2] for f in reversed(facts) if (m := re.fullmatch(GO, f)) and m[1] == person), None)


def holder(facts, thing):
    """Who has a thing after the facts, or None; and the number of the fact that says so."""
    for i in reversed(range(len(facts))):
        for form, group in ((TAKE, 1), (GIVE, 3), (DROP, None)):
            found = re.fullmatch(form, facts[i])
            if found and found[2] == thing:
                return (found[group] if group else None), i
    return None, None


def thing_at(facts, thing):
    """Where a thing is after the facts: with its holder, or where it was dropped; None if nothing is told of it."""
    who, number = holder(facts, thing)
    if number is None:
        return None
    if who is None:
        dropper = re.fullmatch(DROP, facts[number])[1]
        return person_at(facts[:number], dropper)
    return person_at(facts, who)


def solve(facts, question):
    if m := re.fullmatch(rf'Where is {PERSON}\?', question):
        return person_at(facts, m[1])
    if m := re.fullmatch(rf'Where is the {THING}\?', question):
        return thing_at(facts, m[1])
    if m := re.fullmatch(rf'Where was the {THING} before the {PLACE}\?', question):
        places = [thing_at(facts[:i], m[1]) for i in range(len(facts) + 1)]
        came = [i for i in range(1, len(places)) if places[i] == m[2] != places[i - 1]]
        assert len(came) == 1  # so that the question has one answer
        return places[came[0] - 1]
    if m := re.fullmatch(rf'Is {PERSON} in the {PLACE}\?', question):
        return 'yes' if person_at(facts, m[1]) == m[2] else 'no'
    if m := re.fullmatch(rf'How many objects is {PERSON} carrying\?', question):
        held = sum(holder(facts, thing)[0] == m[1] for thing in ('apple', 'football', 'milk'))
        return ('none', 'one', 'two', 'three')[held]
    name = re.fullmatch(r'What is (\w+) afraid of\?', question)[1]
    (kind,) = (m[2] for f in facts if (m := re.fullmatch(IS, f)) and m[1] == name)
    fears = (m.groups() for f in facts if (m := re.fullmatch(FEAR, f)))
    (feared,) = (b for a, b in fears if ONE.get(a.lower(), a.lower()) == kind)
    return ONE.get(feared, feared)


def read(name, length, count=40, **options):
    """(facts, question, answer, filler) of rows; the filler has a bar where a fact was."""
    task = BABI[name](Bytes(), **options)
    batch = task.sample_batch(np.random.default_rng(length), count, length)
    assert batch.tokens.shape == (count, length) and np.all(batch.segments == 1)
    for tokens, targets, weights in zip(batch.tokens, batch.targets, batch.weights):
        np.testing.assert_array_equal(tokens[1:], targets[:-1])
        text, answer = Bytes().decode([tokens[0], *targets]), Bytes().decode(targets[weights > 0])
        assert text.endswith(answer) and answer[0] == ' '
        text = text.removesuffix(answer)
        question = re.search(r' (Where|Is|How|What)( [A-Za-z]+)+\?$', text)[0]
        text = text.removesuffix(question)
        facts = [fact[1:] for fact in re.findall(FACT, text)]
        yield facts, question[1:], answer[1:], re.sub(FACT, '|', text)


@pytest.mark.parametrize('name', BABI)
def test_a_reader_is_always_right(name):
    task = BABI[name](Bytes())
    for length in (task.least, 400, 2048):
        for facts, question, answer, filler in read(name, length):
            assert answer == solve(facts, question)
            assert task.fewest <= len(facts) <= task.most and set(facts) <= set(task.facts)
            assert question in task.questions and answer in task.answers
            spoken = sum(map(len, facts))
            assert len(facts) == task.fewest or spoken <= length / 2
            assert filler.replace('|', '') in f' {FILLER * (2 + length // len(FILLER))}'
            assert all(filler[i - 1] in '.|' for i, c in enumerate(filler) if c == '|' and i)


@pytest.mark.parametrize('name', BABI)
def test_no_answer_is_a_safe_guess(name):
    answers = [answer for _, _, answer, _ in read(name, 2048, count=300)]
    counts = [answers.count(a) for a in set(answers)]
    possible = BABI[name](Bytes()).answers
    assert len(counts) == len(possible) and max(counts) < 1.9 * len(answers) / len(possible)


def test_facts_are_spread_over_the_filler():
    places = [
        i / len(filler)
        for *_, filler in read('babi_qa1', 2048, 200)
        for i, c in enumerate(filler)
        if c == '|'
    ]
    counts, _ = np.histogram(places, bins=4, range=(0, 1))
    assert np.all(counts > 0.8 * len(places) / 4)


def test_text_that_is_handed_in_is_the_filler():
    text = 'It was a dark night! Was it?\nIt was.\n'
    for *_, filler in read('babi_qa2', 300, filler=text):
        assert filler.replace('|', '') in ' It was a dark night! Was it? It was.' * 12
    with pytest.raises(DataError, match='babi_qa2: the filler has no sentence'):
        BABI['babi_qa2'](Bytes(), filler=' \n')


@pytest.mark.parametrize('name', BABI)
def test_the_least_length_is_enough_in_any_vocabulary(name):
    class Uneven(Bytes):
        """From one to three tokens for a letter."""

        def encode(self, text):
            ids = super().encode(text)
            return np.repeat(ids, 1 + ids % 3)

    task, random = BABI[name](Uneven()), np.random.default_rng(0)
    sizes = set()
    for _ in range(50):
        row, weights = task.row(random, task.least)
        assert len(row) == len(weights) == task.least + 1
        sizes.add(weights.sum())
    assert len(sizes) > 1 or name in ('babi_qa6', 'babi_qa7')


def test_the_world_keeps_its_rules():
    """Nobody takes or gives what is elsewhere, or drops what is not at hand."""
    for seed in range(20):
        facts, _ = happen(np.random.default_rng(seed), 60, things=0.5)
        for i, fact in enumerate(facts):
            before = facts[:i]
            if m := re.fullmatch(GO, fact):
                assert person_at(before, m[1]) != m[2]
            elif m := re.fullmatch(TAKE, fact):
                assert holder(before, m[2])[0] is None
                assert thing_at(before, m[2]) in (None, person_at(before, m[1])) and person_at(before, m[1])
            elif m := re.fullmatch(GIVE, fact):
                assert holder(before, m[2])[0] == m[1] and person_at(before, m[1]) == person_at(before, m[3])
            else:
                m = re.fullmatch(DROP, fact)
                assert holder(before, m[2])[0] == m[1]
