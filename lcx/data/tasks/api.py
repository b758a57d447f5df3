"""What a synthetic task is: rows made to order, at any length, with a known answer.

The same task trains (``data.source=task:NAME``, rows of varying length) and evaluates (rows of one length each).
"""

from __future__ import annotations

import bisect
from collections.abc import Mapping

import numpy as np

from lcx.data.tokenizers import Tokenizer
from lcx.errors import ConfigError, DataError
from lcx.types import PADDING, Batch


class Task:
    """Inherit; give ``name``, ``least`` and ``row``."""

    name: str
    least: int  # tokens of the shortest row

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.tokenizer = tokenizer

    def row(self, random: np.random.Generator, length: int) -> tuple[np.ndarray, np.ndarray]:
        """Token ids and their weights, ``length + 1`` of each or a few less; the answer alone has weight.

        ``length`` is at least ``least``.
        """
        raise NotImplementedError(f'{type(self).__name__} does not say what its rows are.')

    def score(self, hits: np.ndarray, weights: np.ndarray) -> Mapping[str, np.ndarray]:
        """Numbers 'B' by name, of which ``accuracy`` is 1.0 for each row whose answer is right in every token.

        ``hits`` and ``weights`` are 'B T'.
        """
        return {'accuracy': np.all((hits > 0) | (weights == 0), axis=-1).astype(np.float64)}

    def sample_batch(
        self, random: np.random.Generator, batch: int, length: int, *, vary: bool = False
    ) -> Batch:
        """``batch`` rows for ``length`` tokens; ``vary``: each for a length of its own, uniform from ``least`` on.

        Raises:
          DataError: ``length`` is below ``least``.
        """
        if length < self.least:
            raise DataError(f'{self.name}: length {length} is too short; the least is {self.least} tokens.')
        lengths = random.integers(self.least, length + 1, batch) if vary else np.full(batch, length)
        ids, weights = np.zeros((batch, length + 1), np.int32), np.zeros((batch, length + 1), np.float32)
        sizes = np.zeros(batch, int)
        for i, here in enumerate(lengths):
            row, weight = self.row(random, int(here))
            sizes[i] = len(row)
            ids[i, : len(row)], weights[i, : len(row)] = row, weight
        steps = np.arange(length)
        real = steps < sizes[:, None] - 1  # the last id is no input
        return Batch(
            tokens=np.where(real, ids[:, :-1], 0),
            targets=np.where(real, ids[:, 1:], 0),
            weights=np.where(real, weights[:, 1:], 0),
            positions=np.where(real, steps, 0).astype(np.int32),
            segments=np.where(real, 1, PADDING).astype(np.int32),
            ids=np.arange(batch, dtype=np.int32),
        )


class StringTask(Task):
    """A question and an answer of single characters: ``QUESTION=ANSWER`` and the end of the document.

    Inherit; give ``symbols``, ``answer`` and, where that is not the question's length, ``answer_size``. The question
    is a random string over the symbols. Every character is one token, so sizes are exact.
    """

    symbols: str

    def __init__(self, tokenizer: Tokenizer) -> None:
        super().__init__(tokenizer)
        self._ids = {}
        for character in [*self.symbols, '=']:
            ids = tokenizer.encode(character)
            if len(ids) != 1:
                raise ConfigError(
                    f'data.tokenizer: {len(ids)} tokens for {character!r}, which {self.name!r} needs as one; use bytes.'
                )
            self._ids[character] = int(ids[0])
        self.least = self._tokens(1)

    def answer(self, question: str) -> str:
        """The right answer, of ``answer_size(len(question))`` characters."""
        raise NotImplementedError(f'{type(self).__name__} does not say what its answers are.')

    def answer_size(self, size: int) -> int:
        """Characters in the answer to a question of ``size``."""
        return size

    def row(self, random: np.random.Generator, length: int) -> tuple[np.ndarray, np.ndarray]:
        """The largest question that fits; see the class."""
        size = bisect.bisect_right(range(1, length + 1), length, key=self._tokens)
        question = ''.join(random.choice(list(self.symbols), size))
        answer = self.answer(question)
        ids = np.array([*(self._ids[c] for c in f'{question}={answer}'), self.tokenizer.eos], np.int32)
        return ids, (np.arange(len(ids)) > size).astype(np.float32)

    def score(self, hits: np.ndarray, weights: np.ndarray) -> Mapping[str, np.ndarray]:
        """``token_accuracy``, the share of an answer's tokens that are right, beside ``accuracy``."""
        right = np.sum((hits > 0) * weights, axis=-1) / np.sum(weights, axis=-1)
        return {'token_accuracy': right, **super().score(hits, weights)}

    def _tokens(self, size: int) -> int:
        """Inputs of a row whose question has ``size`` characters: all ids but the last."""
        return size + 1 + self.answer_size(size)
