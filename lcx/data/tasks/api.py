"""What a synthetic task is: rows made to order, at any length, with a known answer.

The same task trains (``data.source=task:NAME``, rows of varying length) and evaluates (rows of one length each).
"""

from __future__ import annotations

import bisect
from collections.abc import Mapping, Sequence

import numpy as np

from lcx.data.tokenizers import Tokenizer
from lcx.errors import ConfigError, DataError
from lcx.types import Batch

Example = tuple[
    np.ndarray, np.ndarray, np.ndarray
]  # inputs, targets and weights, one of each for every token


class Task:
    """Inherit; give ``name``, ``least`` and ``row``."""

    name: str
    least: int  # tokens of the shortest row

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.tokenizer = tokenizer

    @property
    def fingerprint(self) -> str:
        """Changes when rows do."""
        return f'task {self.name}'

    def row(self, random: np.random.Generator, length: int) -> tuple[np.ndarray, np.ndarray]:
        """Token ids and their weights, ``length + 1`` of each or less; the answer alone has weight.

        ``length`` is at least ``least``.
        """
        raise NotImplementedError(f'{type(self).__name__} does not say what its rows are.')

    def example(self, random: np.random.Generator, length: int) -> Example:
        """Inputs, targets and weights, ``length`` of each or less: the target of a token is the one that follows it."""
        return shifted(*self.row(random, length))

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
        self.check(length)
        lengths = random.integers(self.least, length + 1, batch) if vary else np.full(batch, length)
        return as_batch([self.example(random, int(here)) for here in lengths], length)

    def check(self, length: int) -> None:
        """Raises DataError if ``length`` is below ``least``."""
        if length < self.least:
            raise DataError(f'{self.name}: length {length} is too short; the least is {self.least} tokens.')

    def facts(self, batch: Batch) -> Mapping[str, int]:
        """What a row of results says of ``batch`` beside its scores."""
        return {}


def shifted(ids: np.ndarray, weights: np.ndarray) -> Example:
    """Inputs, targets and weights of a row: the target of a token is the one that follows it."""
    return ids[:-1], ids[1:], weights[1:]


def as_batch(examples: Sequence[Example], length: int) -> Batch:
    """Inputs, targets and weights, ``length`` of each or less, as a batch of ``length`` tokens, padded at the end."""
    batch = len(examples)
    tokens, targets, positions, segments = (np.zeros((batch, length), np.int32) for _ in range(4))
    weights = np.zeros((batch, length), np.float32)
    for i, (own, asked, counts) in enumerate(examples):
        size = len(own)
        tokens[i, :size], targets[i, :size], weights[i, :size] = own, asked, counts
        positions[i, :size], segments[i, :size] = np.arange(size), 1
    return Batch(tokens, targets, weights, positions, segments, ids=np.arange(batch, dtype=np.int32))


class SizedTask(Task):
    """A task with a size of its own, such as the characters of a question. Inherit; give ``tokens``, too."""

    smallest = 1  # the least size

    def tokens(self, size: int) -> int:
        """The most inputs in a row of this size; it grows with the size."""
        raise NotImplementedError(f'{type(self).__name__} does not say how long its rows are.')

    def largest(self, length: int) -> int:
        """The largest size whose rows have no more than ``length`` inputs."""
        sizes = range(self.smallest, length + 1)
        return sizes[bisect.bisect_right(sizes, length, key=self.tokens) - 1]


class StringTask(SizedTask):
    """A question and an answer of single characters: ``QUESTION=ANSWER`` and the end of the document.

    Inherit; give ``symbols`` and either ``answer``, for questions that are random strings over the symbols, or ``draw``
    for others; and, where they differ, what has a default. Every character is one token, so sizes are exact.

    ``draw`` is the task itself; a decoder's row is made from it, and other forms are in :mod:`lcx.data.tasks.forms`.
    """

    symbols: str  # of both; in this order the numbers 0, 1, ... of the paper's own code, where there is one
    separator = '='

    def __init__(self, tokenizer: Tokenizer) -> None:
        super().__init__(tokenizer)
        self.ids: dict[str, int] = {}  # of each character
        for character in [*self.symbols, self.separator]:
            ids = tokenizer.encode(character)
            if len(ids) != 1:
                raise ConfigError(
                    f'data.tokenizer: {len(ids)} tokens for {character!r}, which {self.name!r} needs as one; use bytes.'
                )
            self.ids[character] = int(ids[0])
        self.least = self.tokens(self.smallest)

    def draw(self, random: np.random.Generator, size: int) -> tuple[str, str]:
        """A question of ``size`` characters, ``smallest`` or more, and its answer, of ``answer_size(size)`` at most."""
        question = ''.join(random.choice(list(self.symbols), size))
        return question, self.answer(question)

    def answer(self, question: str) -> str:
        """The right answer to any string over the symbols."""
        raise NotImplementedError(f'{type(self).__name__} does not say what its answers are.')

    def answer_size(self, size: int) -> int:
        """The most characters in the answer to a question of ``size``."""
        return size

    def tokens(self, size: int) -> int:
        """The most inputs in a row of this size: all ids but the last."""
        return size + 1 + self.answer_size(size)

    def counts(self, answer: str) -> np.ndarray:
        """The weights of the answer's characters and of the end."""
        return np.ones(len(answer) + 1, np.float32)

    def row(self, random: np.random.Generator, length: int) -> tuple[np.ndarray, np.ndarray]:
        """A question of the largest size that fits; see the class."""
        question, answer = self.draw(random, self.largest(length))
        text = f'{question}{self.separator}{answer}'
        ids = np.array([*(self.ids[c] for c in text), self.tokenizer.eos], np.int32)
        return ids, np.concatenate([np.zeros(len(question) + 1, np.float32), self.counts(answer)])

    def score(self, hits: np.ndarray, weights: np.ndarray) -> Mapping[str, np.ndarray]:
        """``token_accuracy``, the share of an answer's tokens that are right, beside ``accuracy``."""
        right = np.sum((hits > 0) * weights, axis=-1) / np.sum(weights, axis=-1)
        return {'token_accuracy': right, **super().score(hits, weights)}


class SymbolTask(StringTask):
    """A string task whose answer is one symbol, which ``accuracy`` tells of; ``token_accuracy`` counts the end, too."""

    def answer_size(self, size: int) -> int:
        """One."""
        return 1
