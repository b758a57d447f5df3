"""Multi-query associative recall: each key is asked for once, and only values that are known count."""

import numpy as np
import pytest

from lcx.data.tasks import TASKS
from lcx.data.tasks.mqar import KEYS, NOISE, VALUES
from lcx.data.tokenizers import Bytes


def rows(length, count=30):
    """Text, targets (from its second character on) and weights of every row."""
    batch = TASKS['mqar'](Bytes()).sample_batch(np.random.default_rng(0), count, length)
    for tokens, targets, weights in zip(batch.tokens, batch.targets, batch.weights):
        yield Bytes().decode([tokens[0], *targets]).rstrip('\0'), targets, weights


@pytest.mark.parametrize('length', [5, 6, 16, 64, 65, 415, 416, 1024])
def test_a_reader_of_pairs_knows_every_value_that_counts(length):
    for text, targets, weights in rows(length):
        pairs, _, asked = text.partition('=')
        known, order = dict(zip(pairs[::2], pairs[1::2], strict=True)), []
        assert not np.any(weights[len(text) :])
        for place, weight in enumerate(weights[: len(text)]):
            before, here = text[place], text[place + 1 : place + 2]
            assert (weight == 1) == (place > len(pairs) and here in known.values() and before in known)
            if weight:
                assert chr(targets[place]) == here == known[before]
                order.append(before)
        assert sorted(order) == sorted(known) and len(known) == max(1, min(52, length // 8))
        assert set(known) <= set(KEYS) and set(known.values()) <= set(VALUES)
        assert set(asked) <= {*known, *known.values(), NOISE} and len(text) == length - 1 + length % 2


def test_places_follow_the_power_law():
    """A single pair in 6 places, i from 1: probabilities i^-0.99 over their sum."""
    task, random = TASKS['mqar'](Bytes()), np.random.default_rng(0)
    answers = [task.draw(random, 15)[1] for _ in range(2000)]
    places = [next(i for i, c in enumerate(answer) if c != NOISE) // 2 for answer in answers]
    expected = np.arange(1, 7) ** -0.99
    expected *= 2000 / expected.sum()
    counts = np.bincount(places, minlength=6)
    assert np.sum((counts - expected) ** 2 / expected) < 5 + 5 * 10**0.5


def test_the_share_of_values_found_is_a_score():
    weights = np.array([[0, 1, 0, 1, 0, 1.0]])
    score = TASKS['mqar'](Bytes()).score(np.array([[0, 1, 0, 0, 0, 1.0]]), weights)
    assert score['token_accuracy'] == [2 / 3] and score['accuracy'] == [0]
