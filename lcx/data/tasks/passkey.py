"""Passkey retrieval: a five-digit number hidden in filler must be repeated at the end.

Mohtashami & Jaggi, "Landmark Attention", arXiv 2305.16300, whose wording this is. At length 256, in bytes:

    The grass is green. The sky is blue. [...] The pass key is 68362. Remember it. 68362 is the pass key. The grass
    is green. [...] What is the pass key? The pass key is 68362

The answer is the last number with the space before it; it alone carries weight. The hiding place is uniform over the
filler. The paper's introduction ("There is an important info hidden inside a lot of irrelevant text. ...") stands in
front where it leaves at least as much room to the filler: from length 395 on, in bytes.
"""

from __future__ import annotations

import numpy as np

from lcx.data.tasks.api import Task
from lcx.data.tokenizers import Tokenizer
from lcx.errors import DataError

INTRODUCTION = (
    'There is an important info hidden inside a lot of irrelevant text. Find it and memorize it. '
    'I will quiz you about the important information there. '
)
FILLER = 'The grass is green. The sky is blue. The sun is yellow. Here we go. There and back again. '
NEEDLE = 'The pass key is {key}. Remember it. {key} is the pass key. '
QUESTION = 'What is the pass key? The pass key is'
ANSWER = ' {key}'


class Passkey(Task):
    """See the module."""

    name = 'passkey'

    def __init__(self, tokenizer: Tokenizer) -> None:
        super().__init__(tokenizer)
        self._question = tokenizer.encode(QUESTION)
        self._introduction, self._filler = tokenizer.encode(INTRODUCTION), tokenizer.encode(FILLER)
        self.least = self._needed('99999')

    def _needed(self, key: str) -> int:
        """Inputs of a row without filler."""
        needle, answer = (self.tokenizer.encode(text.format(key=key)) for text in (NEEDLE, ANSWER))
        return len(needle) + len(self._question) + len(answer) - 1

    def row(self, random: np.random.Generator, length: int) -> tuple[np.ndarray, np.ndarray]:
        """Exactly ``length + 1`` ids, the answer last."""
        key = str(random.integers(10000, 100000))
        needle = self.tokenizer.encode(NEEDLE.format(key=key))
        answer = self.tokenizer.encode(ANSWER.format(key=key))
        room = length - self._needed(key)
        if room < 0:  # a vocabulary may need more tokens for one number than for another
            raise DataError(
                f'passkey: length {length} is too short; the least for {key} is {length - room} tokens.'
            )
        introduction = self._introduction if room >= 2 * len(self._introduction) else self._introduction[:0]
        room -= len(introduction)
        filler = np.tile(self._filler, -(-room // len(self._filler)) + 1)[:room]
        place = int(random.integers(0, room + 1))
        row = np.concatenate([introduction, filler[:place], needle, filler[place:], self._question, answer])
        return row, (np.arange(length + 1) > length - len(answer)).astype(np.float32)
