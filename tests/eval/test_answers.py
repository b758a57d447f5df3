"""Scores of answers on literal pairs, worked out by hand."""

import difflib
import random

import pytest

from lcx.eval.answers import METRICS, common

CLASSES = ('Person', 'Person group', 'Place', 'Date')
# metric -> (prediction, answer, score)
PAIRS = {
    'f1': [
        ('The cat sat.', 'a cat', 2 * 0.5 * 1 / 1.5),
        ('cat cat dog', 'cat bird', 2 / 5),  # one of the two cats is common
        ('', 'cat', 0.0),
        ('The.', 'the', 0.0),  # no words are left
        ('In 1969!', '1969', 2 / 3),
    ],
    'f1_zh': [('北京，中国。', '北京', 2 * 2 / 6), ('上海', '北京', 0.0), ('A北', 'a北', 1.0)],
    'rouge_l': [
        ('the cat sat on the mat', 'the cat lay on a mat', 2 * 4 / 12),
        ('police killed the gunman', 'the gunman killed police', 2 * 2 / 8),
        ('a b', 'b a', 2 / 4),
        ('', 'a', 0.0),
        ('A.', 'a.', 0.0),  # case and punctuation are kept
    ],
    'rouge_l_zh': [('我爱北京', '我在北京', 6 / 8)],
    'exact_match': [('The Eiffel Tower.', 'eiffel tower', 1.0), ('Eiffel', 'Eiffel Tower', 0.0)],
    'classification': [
        ('Type: Place', 'Place', 1.0),
        ('Place or Date', 'Place', 0.5),
        ('Person group', 'Person group', 1.0),  # 'Person' is a part of the right name
        ('Person group', 'Person', 0.5),
        ('nothing', 'Place', 0.0),
    ],
    'code_similarity': [
        ('\n# no\nreturn x\n', 'return x', 1.0),
        ('`a`\n// b\nabcd', 'abxd', 2 * 3 / 8),
        ('# only', 'x', 0.0),
    ],
    'count': [('There are 17.', '17', 1.0), ('7 or 17', '17', 0.5), ('none', '17', 0.0), ('177', '17', 0.0)],
    'retrieval': [
        ('Paragraph 3', 'Paragraph 3', 1.0),
        ('Paragraphs 3, 3 and 4', 'Paragraph 3', 2 / 3),
        ('段落12', '段落12', 1.0),
    ],
}


@pytest.mark.parametrize(('metric', 'pair'), [(name, pair) for name in PAIRS for pair in PAIRS[name]])
def test_literal_pairs(metric, pair):
    prediction, answer, expected = pair
    assert METRICS[metric](prediction, answer, CLASSES) == pytest.approx(expected)


def test_every_metric_has_pairs():
    assert PAIRS.keys() == METRICS.keys()


def slowly(first, second):
    """The longest common subsequence by its definition."""
    if not first or not second:
        return 0
    if first[-1] == second[-1]:
        return slowly(first[:-1], second[:-1]) + 1
    return max(slowly(first[:-1], second), slowly(first, second[:-1]))


def test_subsequences_are_the_longest():
    draw = random.Random(0)
    for _ in range(60):
        first, second = (''.join(draw.choices('abc', k=draw.randint(0, 7))) for _ in range(2))
        assert common(first, second) == slowly(first, second)
        # difflib finds blocks, never more than the longest subsequence.
        blocks = difflib.SequenceMatcher(None, first, second).get_matching_blocks()
        assert common(first, second) >= sum(block.size for block in blocks)
