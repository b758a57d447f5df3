"""Multi-query associative recall: keys with values, then the keys once more, between noise, each before its value.

    p6f8O7m9v1=p6..m9O7f8....v1............        (the digits behind the equals sign count)

Of Arora et al. 2023, "Zoology", arXiv:2312.04927. Keys differ, and are asked for in no order; their places follow the
paper's power law: of those behind the equals sign the i-th has the weight i^(a - 1), a = 0.01, so that most are near.
There the vocabulary had 8192 tokens, half of them keys and half values, lengths from 64 to 512 had 4 to 64 pairs, and
the noise was random tokens. Here every symbol is a character: letters are keys, digits are values, and a quarter of a
row is pairs, up to the 52 keys that there are, from length 416 on. A guess is right once in ten.
"""

from __future__ import annotations

import numpy as np

from lcx.data.tasks.api import StringTask

KEYS = 'abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ'
VALUES = '0123456789'
NOISE = '.'
POWER = 0.01  # a


class Mqar(StringTask):
    """See the module. A size is the number of inputs in a row, ``token_accuracy`` the share of the values found."""

    name = 'mqar'
    symbols = KEYS + VALUES + NOISE
    smallest = 5  # a pair, the equals sign, and the pair

    def draw(self, random: np.random.Generator, size: int) -> tuple[str, str]:
        """Pairs of a key and its value; and the pairs once more, in places of two characters between noise."""
        count = min(len(KEYS), max(1, size // 8))
        places = (size - 1) // 2 - count
        weights = np.arange(1, places + 1) ** (POWER - 1)
        keys = random.choice(list(KEYS), count, replace=False)
        pairs = np.strings.add(keys, random.choice(list(VALUES), count))
        asked = np.full(places, NOISE * 2)
        asked[random.choice(places, count, replace=False, p=weights / weights.sum())] = pairs
        return ''.join(pairs), ''.join(asked)

    def tokens(self, size: int) -> int:
        """As many as the size."""
        return size

    def counts(self, answer: str) -> np.ndarray:
        """Values count; keys, noise and the end cannot be known."""
        return np.array([*(c in VALUES for c in answer), False], np.float32)
