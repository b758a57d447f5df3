"""Frequent words extraction: the three most frequent of made-up words whose frequencies follow a zeta distribution.

    Read the following coded text and track the frequency of each coded word. Find the three most frequently appeared
    coded words. ... vtsgop ... ... qkxzwe vtsgop [...]
    Question: Do not provide any explanation. Please ignore the dots '....'. What are the three most frequently
    appeared words in the above coded text? Answer: According to the coded text above, the three most frequently
    appeared words are:

Of n words the one of rank k appears floor(n k^-alpha / zeta(alpha)) times; that of rank 1 is '...', to be ignored.
Wording and arguments are RULER's (freq_words_extraction.py). Its prompts take the whole length, so that nothing is left
for the answer; here the tokens to be generated are set aside as in the other tasks.
"""

from __future__ import annotations

import dataclasses
import math
import string
from collections.abc import Callable
from typing import ClassVar

import numpy as np

from lcx.data.ruler.api import Body, Draft, Given, sizes

TEMPLATE = (
    'Read the following coded text and track the frequency of each coded word. Find the three most frequently '
    "appeared coded words. {context}\nQuestion: Do not provide any explanation. Please ignore the dots '....'. What "
    'are the three most frequently appeared words in the above coded text?'
)
PREFIX = ' Answer: According to the coded text above, the three most frequently appeared words are:'
DOTS = '...'
ANSWERS = 3
LETTERS = 6  # in a word
SHARE = 50  # tokens of the length for each word of the vocabulary


@dataclasses.dataclass(frozen=True)
class FrequentWords:
    """See the module. Facts: ``counts``, how often the three appear, and the next."""

    alpha: float = 2.0

    generate: ClassVar[int] = 50
    metric: ClassVar[str] = 'string_match_all'
    needs: ClassVar[None] = None
    asks: ClassVar[None] = None

    def drafts(self, given: Given) -> Callable[[list[int]], Draft]:
        """See :class:`lcx.data.ruler.api.Task`."""
        ranks = np.arange(1, max(given.length // SHARE, ANSWERS + 2) + 1)
        shares = ranks**-self.alpha / zeta(self.alpha)
        least = math.ceil(
            1 / (shares[ANSWERS] - shares[ANSWERS + 1])
        )  # from here on the last answer has no equal

        def draft(seed: list[int]) -> Draft:
            random = np.random.default_rng(seed)
            words = [DOTS, *coded(random, len(ranks) - 1)]
            tokens = sizes(given.tokenizer, (' ' + word for word in words))

            def counts(n: int) -> np.ndarray:
                return (n * shares).astype(int)

            def build(n: int) -> Body:
                found = counts(n)
                items = np.random.default_rng([*seed, 1]).permutation(np.repeat(np.arange(len(words)), found))
                prompt = TEMPLATE.format(context=' '.join(words[i] for i in items))
                facts = {'counts': found[1 : ANSWERS + 2].tolist()}
                return Body(prompt, PREFIX, tuple(words[1 : ANSWERS + 1]), facts)

            return Draft(least, least + 4 * given.room, lambda n: int(np.dot(counts(n), tokens)), build)

        return draft


def coded(random: np.random.Generator, count: int) -> list[str]:
    """Different words of random letters."""
    letters = np.array(list(string.ascii_lowercase))
    words: dict[str, None] = {}
    while len(words) < count:
        missing = count - len(words)
        words |= dict.fromkeys(map(''.join, random.choice(letters, (missing, LETTERS)).tolist()))
    return list(words)


def zeta(alpha: float) -> float:
    """Riemann's, for ``alpha`` > 1: a sum and Euler and Maclaurin's correction.

    >>> abs(zeta(2.0) - math.pi**2 / 6) < 1e-14
    True
    """
    last = 1000
    head = math.fsum(k**-alpha for k in range(1, last))
    return head + last ** (1 - alpha) / (alpha - 1) + last**-alpha / 2 + alpha * last ** (-alpha - 1) / 12
