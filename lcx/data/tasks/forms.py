"""Forms of a task: how its question and answer become the row that a model reads.

decoder   Question, separator, answer, end of the document: every token is predicted from those before it.
encoder   Question, and as many empty places as the answer has: a model that reads all at once fills the places, each
          from the same input, and nothing of the answer is ever read.

The encoder's is that of Delétang et al. 2023, arXiv:2207.02098, and Ruoss et al. 2023, arXiv:2305.16843; it asks for a
model whose attention looks both ways, ``model.kinds.full.rule=()``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from lcx.data.tasks.api import SizedTask, StringTask, Task


class Encoder(SizedTask):
    """A string task for an encoder. An empty place, ``_``, is what ends documents elsewhere:

        0 1 1 0 1 0 _ _ _ _ _ _      inputs
                    0 1 0 1 1 0      targets with weight (reverse_string)

    There are ``answer_size`` places. After a shorter answer the target is the end of the document, and of these the
    first alone has weight.
    """

    def __init__(self, task: StringTask) -> None:
        super().__init__(task.tokenizer)
        self.task, self.name, self.smallest = task, task.name, task.smallest
        self.least = self.tokens(self.smallest)

    def tokens(self, size: int) -> int:
        """The question and its places."""
        return size + self.task.answer_size(size)

    def example(self, random: np.random.Generator, length: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """See the class; the question is of the largest size that fits."""
        largest = self.largest(length)
        question, answer = self.task.draw(random, largest)
        size, places = len(question), self.task.answer_size(largest)
        tokens = np.full(size + places, self.tokenizer.eos, np.int32)
        targets, weights = tokens.copy(), np.zeros(size + places, np.float32)
        tokens[:size] = [self.task.ids[c] for c in question]
        targets[size : size + len(answer)] = [self.task.ids[c] for c in answer]
        counts = self.task.counts(answer)[:places]  # an answer that fills all places leaves none for the end
        weights[size : size + len(counts)] = counts
        return tokens, targets, weights

    def score(self, hits: np.ndarray, weights: np.ndarray) -> Mapping[str, np.ndarray]:
        """As the task itself does."""
        return self.task.score(hits, weights)


def _decoder(task: Task) -> Task:
    return task


# From a task to what a model of this form reads; 'encoder' is for string tasks alone.
FORMS: Mapping[str, Callable[[Task], Task]] = {'decoder': _decoder, 'encoder': Encoder}
