"""Synthetic tasks by length: how much of what the context asks for is answered, and where that ends.

Answers are scored in one forward pass: a token of the answer counts as right when it is the most probable one after
those before it, so an answer right in every token is what greedy decoding would produce.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator

import numpy as np

from lcx.data.tasks import Passkey, Task
from lcx.errors import ConfigError
from lcx.eval.api import Apply, Context, digest, mean, scored
from lcx.types import Row, Tree


class TaskAccuracy:
    """Yields one row per length: the task's scores, and ``answer_bits``, the bits that the answer costs.

    ``text`` is a digest of the inputs.
    """

    writes = False
    scores = True

    def __init__(self, context: Context, task: Task) -> None:
        self.config, self.task, self.name = context.config, task, task.name
        self.batches = [
            task.sample_batch(np.random.default_rng([context.seed, length]), self.config.windows, length)
            for length in self.config.lengths
        ]

    def run(self, apply: Apply, params: Tree, done: Collection[Row] = ()) -> Iterator[Row]:
        """See the class; lengths that are among ``done`` are left out."""
        known = {(row['length'], row.get('text')) for row in done if row['evaluator'] == self.name}
        for length, batch in zip(self.config.lengths, self.batches):
            text = digest(batch.tokens)
            if (length, text) in known:
                continue
            scores = scored(apply, params, batch, self.config.tokens)
            row = {
                'evaluator': self.name,
                'length': length,
                'samples': self.config.windows,
                'text': text,
            }
            for name, values in self.task.score(scores.hit, batch.weights).items():
                row[name], row[f'{name}_stderr'] = mean(values)
            row |= self.task.facts(batch)
            row['answer_bits'], _ = mean((scores.nll * batch.weights).sum(axis=1) / np.log(2))
            yield row


def passkey(context: Context) -> TaskAccuracy:
    """Does the model find a number anywhere in its context?"""
    return TaskAccuracy(context, Passkey(context.tokenizer))


def trained_task(context: Context) -> TaskAccuracy:
    """The task that is the data source; raises ConfigError where the source is text."""
    if context.task is None:
        raise ConfigError(
            "eval.run: 'task' evaluates the task in data.source, which is text; set it to task:NAME."
        )
    return TaskAccuracy(context, context.task)
