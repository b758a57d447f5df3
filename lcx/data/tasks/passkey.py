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

from lcx.data.tokenizers import Tokenizer
from lcx.errors import DataError
from lcx.types import Batch

INTRODUCTION = (
    'There is an important info hidden inside a lot of irrelevant text. Find it and memorize it. '
    'I will quiz you about the important information there. '
)
FILLER = 'The grass is green. The sky is blue. The sun is yellow. Here we go. There and back again. '
NEEDLE = 'The pass key is {key}. Remember it. {key} is the pass key. '
QUESTION = 'What is the pass key? The pass key is'
ANSWER = ' {key}'


class Passkey:
    """``sample_batch`` makes prompts with answers; ``score`` tells how many were answered."""

    name = 'passkey'

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.tokenizer = tokenizer

    def sample_batch(self, random: np.random.Generator, batch: int, length: int) -> Batch:
        """``batch`` prompts of exactly ``length`` tokens, the answer's last token being the last target.

        Raises DataError, with the least length, when prompt and answer do not fit.
        """
        rows, weights = zip(*(self._row(random, length) for _ in range(batch)))
        ids = np.array(rows, np.int32)
        return Batch(
            tokens=ids[:, :-1],
            targets=ids[:, 1:],
            weights=np.array(weights, np.float32)[:, 1:],
            positions=np.tile(np.arange(length, dtype=np.int32), (batch, 1)),
            segments=np.ones((batch, length), np.int32),
            ids=np.arange(batch, dtype=np.int32),
        )

    def score(self, hits: np.ndarray, weights: np.ndarray) -> np.ndarray:
        """1.0 for each row whose answer is right in every token; ``hits`` and ``weights`` are 'B T'."""
        return np.all((hits > 0) | (weights == 0), axis=-1).astype(np.float64)

    def _row(self, random: np.random.Generator, length: int) -> tuple[np.ndarray, np.ndarray]:
        """Token ids and weights, ``length + 1`` of each."""
        encode = self.tokenizer.encode
        key = str(random.integers(10000, 100000))
        needle, question = encode(NEEDLE.format(key=key)), encode(QUESTION)
        answer = encode(ANSWER.format(key=key))
        room = length + 1 - len(needle) - len(question) - len(answer)
        if room < 0:
            raise DataError(f'passkey: length {length} is too short; the least is {length - room} tokens.')
        introduction = encode(INTRODUCTION)
        if room < 2 * len(introduction):
            introduction = introduction[:0]
        filler = encode(FILLER)
        room -= len(introduction)
        filler = np.tile(filler, -(-room // len(filler)) + 1)[:room]
        place = int(random.integers(0, room + 1))
        row = np.concatenate([introduction, filler[:place], needle, filler[place:], question, answer])
        weights = np.zeros(length + 1, np.float32)
        weights[-len(answer) :] = 1
        return row, weights
