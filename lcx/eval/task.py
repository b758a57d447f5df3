"""Synthetic tasks by length: how much of what the context asks for is answered, and where that ends.

Answers are scored in one forward pass: a token of the answer counts as right when it is the most probable one after
those before it, so an answer right in every token is what greedy decoding would produce. An encoder's is right where it
is the most probable one at its place.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator

import numpy as np

from lcx.data.tasks import Passkey, SizedTask, Task
from lcx.errors import ConfigError
from lcx.eval.api import Apply, Context, digest, mean, scored
from lcx.models import Scores
from lcx.types import Batch, Row, Tree


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
        self.expected = dict.fromkeys(self.config.lengths, 1)

    def run(self, apply: Apply, params: Tree, done: Collection[Row] = ()) -> Iterator[Row]:
        """See the class; lengths that are among ``done`` are left out."""
        known = {(row['length'], row.get('text')) for row in done if row['evaluator'] == self.name}
        for length, batch in zip(self.config.lengths, self.batches):
            if (length, digest(batch.tokens)) not in known:
                scores = scored(apply, params, batch, self.config.tokens)
                yield {'evaluator': self.name, 'length': length, **row_of(self.task, batch, scores)}


class TaskSizes:
    """The same by the task's own sizes: a row for each of ``sizes``, whose ``length`` is the tokens of such a row.

    Rows are filled up with padding to a power of two, so that few lengths compile.
    """

    scores = True
    writes = False

    def __init__(self, context: Context, task: SizedTask) -> None:
        self.config, self.task, self.name = context.config, task, f'{task.name}_sizes'
        self.batches = [
            task.sample_batch(
                np.random.default_rng([context.seed, size]), self.config.windows, task.tokens(size)
            )
            for size in self.config.sizes
        ]
        self.expected = Counter(task.tokens(size) for size in self.config.sizes)

    def run(self, apply: Apply, params: Tree, done: Collection[Row] = ()) -> Iterator[Row]:
        """See the class; sizes that are among ``done`` are left out."""
        known = {(row['size'], row['text']) for row in done if row['evaluator'] == self.name}
        for size, batch in zip(self.config.sizes, self.batches):
            if (size, digest(batch.tokens)) not in known:
                scores = scored(apply, params, padded(batch), self.config.tokens)
                length = batch.tokens.shape[1]
                scores = Scores(*(x[:, :length] for x in scores))
                names = {'evaluator': self.name, 'length': length, 'size': size}
                yield {**names, **row_of(self.task, batch, scores)}


def padded(batch: Batch) -> Batch:
    """``batch`` with padding behind its tokens, up to a power of two."""
    length = batch.tokens.shape[1]
    more = (1 << (length - 1).bit_length()) - length
    return Batch(*(np.pad(x, [(0, 0), (0, more)]) if x.ndim == 2 else x for x in batch))


def row_of(task: Task, batch: Batch, scores: Scores) -> dict:
    """What a row says of the samples in ``batch``."""
    row = {'samples': len(batch.tokens), 'text': digest(batch.tokens)}
    for name, values in task.score(scores.hit, batch.weights).items():
        row[name], row[f'{name}_stderr'] = mean(values)
    row |= task.facts(batch)
    row['answer_bits'], _ = mean((scores.nll * batch.weights).sum(axis=1) / np.log(2))
    return row


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


def trained_task_sizes(context: Context) -> TaskSizes:
    """The same by ``eval.sizes``; raises ConfigError where the source has no sizes, or the task none of these."""
    task, sizes = context.task, context.config.sizes
    if not isinstance(task, SizedTask):
        raise ConfigError("eval.run: 'task_sizes' needs a task of strings in data.source, such as task:copy.")
    if not sizes or sizes[0] < task.smallest:
        raise ConfigError(
            f'eval.sizes: {sizes} must be at least one size, of {task.name} {task.smallest} or more.'
        )
    return TaskSizes(context, task)
