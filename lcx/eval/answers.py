"""Scores of an answer beside a known one, from 0 to 1, as LongBench has them (Bai et al. 2024, arXiv:2308.14508).

Each is ``(prediction, answer, classes) -> score``; ``classes`` are the labels that a classification may have. What
differs from LongBench's code: ROUGE-L is of whole texts, not a union over sentences; Chinese is compared by characters,
since its words need a dictionary (jieba there); the similarity of code is not rounded to a percent.
"""

from __future__ import annotations

import collections
import re
import string
from collections.abc import Callable, Sequence

import numpy as np

Score = Callable[[str, str, Sequence[str]], float]

_ARTICLES = re.compile(r'\b(a|an|the)\b')


def normalised(text: str) -> list[str]:
    """The words of a text without case, punctuation and articles, as SQuAD compares them.

    >>> normalised('The  "Cat", a cat.')
    ['cat', 'cat']
    """
    bare = ''.join(c for c in text.lower() if c not in string.punctuation)
    return _ARTICLES.sub(' ', bare).split()


def characters(text: str) -> list[str]:
    """Letters and digits one by one, without case: what Chinese is compared by."""
    return [c for c in text.lower() if c.isalnum()]


def common(first: Sequence, second: Sequence) -> int:
    """The length of the longest common subsequence, in O(n m) steps.

    >>> common('abcde', 'xbxdx')
    2
    """
    codes = {symbol: code for code, symbol in enumerate(dict.fromkeys([*first, *second]))}
    row = np.array([codes[symbol] for symbol in second], np.int64)
    best = np.zeros(len(row) + 1, np.int64)
    for symbol in first:
        taken = np.where(row == codes[symbol], best[:-1] + 1, best[1:])
        best[1:] = np.maximum.accumulate(np.maximum(taken, best[1:]))
    return int(best[-1])


def harmonic(same: int, predicted: int, known: int) -> float:
    """F1 of ``same`` things in common; 0 without any."""
    return 2 * same / (predicted + known) if same else 0.0


def _bag(prediction: Sequence[str], answer: Sequence[str]) -> float:
    same = sum((collections.Counter(prediction) & collections.Counter(answer)).values())
    return harmonic(same, len(prediction), len(answer))


def f1(prediction: str, answer: str, classes: Sequence[str] = ()) -> float:
    """F1 over the words that both have, as often as both have them."""
    return _bag(normalised(prediction), normalised(answer))


def f1_zh(prediction: str, answer: str, classes: Sequence[str] = ()) -> float:
    """F1 over characters."""
    return _bag(characters(prediction), characters(answer))


def rouge_l(prediction: str, answer: str, classes: Sequence[str] = ()) -> float:
    """F1 of the longest common subsequence of words (Lin 2004), which are what blanks divide."""
    words, known = prediction.split(), answer.split()
    return harmonic(common(words, known), len(words), len(known))


def rouge_l_zh(prediction: str, answer: str, classes: Sequence[str] = ()) -> float:
    """F1 of the longest common subsequence of characters."""
    words, known = characters(prediction), characters(answer)
    return harmonic(common(words, known), len(words), len(known))


def exact_match(prediction: str, answer: str, classes: Sequence[str] = ()) -> float:
    """1 where both have the same words in the same order, without case, punctuation and articles."""
    return float(normalised(prediction) == normalised(answer))


def classification(prediction: str, answer: str, classes: Sequence[str]) -> float:
    """1 divided by the number of classes that are named, if the right one is; parts of its name do not count."""
    named = [name for name in classes if name in prediction]
    named = [name for name in named if name == answer or name not in answer]
    return 1 / len(named) if answer in named else 0.0


def code_similarity(prediction: str, answer: str, classes: Sequence[str] = ()) -> float:
    """Edit similarity of the first line that is code: 1 - (insertions + deletions) / (both lengths).

    A line with a backtick, a hash or two slashes counts as none.
    """
    lines = prediction.lstrip('\n').split('\n')
    line = next((x for x in lines if not any(mark in x for mark in ('`', '#', '//'))), '')
    return harmonic(common(line, answer), len(line), len(answer))


def _numbers(prediction: str, right: str) -> float:
    found = re.findall(r'\d+', prediction)
    return found.count(right) / len(found) if found else 0.0


def count(prediction: str, answer: str, classes: Sequence[str] = ()) -> float:
    """The share of the numbers written that are the right one."""
    return _numbers(prediction, answer)


def retrieval(prediction: str, answer: str, classes: Sequence[str] = ()) -> float:
    """The same, where the answer is the number of a paragraph, such as 'Paragraph 7'."""
    return _numbers(prediction, ''.join(re.findall(r'\d+', answer)[:1]))


METRICS: dict[str, Score] = {
    'f1': f1,
    'f1_zh': f1_zh,
    'rouge_l': rouge_l,
    'rouge_l_zh': rouge_l_zh,
    'exact_match': exact_match,
    'classification': classification,
    'code_similarity': code_similarity,
    'count': count,
    'retrieval': retrieval,
}
