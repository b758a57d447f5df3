"""Passkey retrieval by length: does the model find a number anywhere in its context?

Answers are scored in one forward pass: the answer counts as right when each of its tokens is the most probable one
after those before it, which is what greedy decoding would produce.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from lcx.data.tasks.passkey import Passkey
from lcx.eval.api import Apply, Context, mean, scored
from lcx.types import Row, Tree


class PasskeyRetrieval:
    """Yields one row per length: ``accuracy``, and ``answer_bits``, the bits that the answer costs."""

    name = 'passkey'

    def __init__(self, context: Context) -> None:
        self.config = context.config
        self.task = Passkey(context.tokenizer)
        self.batches = [
            self.task.sample_batch(np.random.default_rng([context.seed, length]), self.config.windows, length)
            for length in self.config.lengths
        ]

    def run(self, apply: Apply, params: Tree) -> Iterator[Row]:
        """See the class."""
        for length, batch in zip(self.config.lengths, self.batches):
            scores = scored(apply, params, batch, self.config.tokens)
            accuracy, error = mean(self.task.score(scores.hit, batch.weights))
            bits, _ = mean((scores.nll * batch.weights).sum(axis=1) / np.log(2))
            yield {
                'evaluator': self.name,
                'length': length,
                'samples': self.config.windows,
                'accuracy': accuracy,
                'accuracy_stderr': error,
                'answer_bits': bits,
            }
