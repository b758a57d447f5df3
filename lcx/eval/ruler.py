"""RULER: what a model writes after prompts of :mod:`lcx.data.ruler`, scored as in Hsieh et al. 2024, arXiv:2404.06654.

Scores are shares from 0 to 1; RULER prints them times 100. ``lcx report`` tells the effective length.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator, Sequence

import numpy as np

from lcx.data.announce import announce
from lcx.data.ruler import RULER, Sample, samples
from lcx.data.tokenizers import Tokenizer
from lcx.data.tokens import Tokens
from lcx.errors import ConfigError, unknown
from lcx.eval.api import Context, Generate, digest
from lcx.types import Row, Tree

_CONTROL = re.compile(r'[\x00-\x1f]')


def string_match_all(predictions: Sequence[str], references: Sequence[Sequence[str]]) -> float:
    """The share of references that are in their prediction, whatever their case; the mean over predictions."""
    return float(np.mean([np.mean(_found(*pair)) for pair in zip(predictions, references, strict=True)]))


def string_match_part(predictions: Sequence[str], references: Sequence[Sequence[str]]) -> float:
    """1 where any of the references is in its prediction, whatever its case; the mean over predictions."""
    return float(np.mean([max(_found(*pair)) for pair in zip(predictions, references, strict=True)]))


def _found(prediction: str, references: Sequence[str]) -> list[bool]:
    return [reference.lower() in prediction.lower() for reference in references]


SCORERS = {'string_match_all': string_match_all, 'string_match_part': string_match_part}


class Ruler:
    """Yields a row for each length, task and sample.

    ``score`` is the task's metric of this sample alone: the score of a task is the mean of its rows, and RULER's of a
    length the mean of its tasks. ``text`` is a digest of the prompt, ``prediction`` what was written up to the end of
    the document; ``depth``, where one answer is hidden, is the share of the haystack before it.

    ``draw(task, length, count)`` gives the first ``count`` samples. One of each task and length is drawn at once, so
    that what is missing or too short shows before a model is run. At most about ``tokens`` tokens, or one prompt, are
    given at a time.
    """

    name = 'ruler'
    writes = True
    scores = False

    def __init__(
        self,
        tokenizer: Tokenizer,
        draw: Callable[[str, int, int], Sequence[Sample]],
        *,
        tasks: Sequence[str],
        lengths: Sequence[int],
        count: int,
        tokens: int,
    ) -> None:
        for task in tasks:
            if task not in RULER:
                raise ConfigError(unknown('eval.ruler.tasks', task, RULER))
        self.tokenizer, self.draw, self.count, self.tokens = tokenizer, draw, count, tokens
        self.cells = [(length, task) for length in lengths for task in tasks]
        self.expected = dict.fromkeys(lengths, count * len(tasks))
        for length, task in self.cells:
            draw(task, length, 1)

    def run(self, generate: Generate, params: Tree, done: Collection[Row] = ()) -> Iterator[Row]:
        """See the class; rows that are among ``done`` are left out."""
        names = ('task', 'length', 'sample', 'text')
        known = {tuple(row[name] for name in names) for row in done if row['evaluator'] == self.name}
        for length, task in self.cells:
            left = []
            for sample in self.draw(task, length, self.count):
                ids = self.tokenizer.encode(sample.prompt)
                about = dict(zip(names, (task, length, sample.index, digest(ids))))
                if tuple(about.values()) not in known:
                    left.append((about, sample, ids))
            size = max(1, self.tokens // length)
            for start in range(0, len(left), size):
                part = left[start : start + size]
                written = generate(params, [ids for _, _, ids in part], RULER[task].generate)
                for (about, sample, _), ids in zip(part, written, strict=True):
                    prediction = self.read(ids)
                    score = SCORERS[RULER[task].metric]([prediction], [sample.references])
                    depths = sample.facts.get('depths', ())
                    depth = {'depth': depths[0]} if len(depths) == 1 else {}
                    yield {'evaluator': self.name, **about, **depth, 'score': score, 'prediction': prediction}

    def read(self, ids: np.ndarray) -> str:
        """The text of ids up to the end of the document, control characters as line ends, without blanks around it."""
        ends = np.flatnonzero(np.asarray(ids) == self.tokenizer.eos)
        text = self.tokenizer.decode(ids[: ends[0]] if len(ends) else ids)
        return _CONTROL.sub('\n', text.strip()).strip()


def make_ruler(context: Context) -> Ruler:
    """The evaluator of ``eval.ruler`` at ``eval.lengths``; needles are hidden in the text that is evaluated.

    Where no tasks are named, those are left out, with a word, whose data are not there.

    Raises:
      ConfigError: an unknown task, or what :func:`lcx.data.ruler.samples` refuses.
      DataError: a task that is named lacks its text or file, or a length is too short for it.
    """
    config, given = context.config, context.config.ruler
    text = None if context.tokens is None else text_of(context.tokens, context.tokenizer)
    files = {'qa_1': given.squad, 'qa_2': given.hotpotqa}
    there = {'text': text is not None, None: True}
    missing = [name for name, task in RULER.items() if not there.get(task.needs, files.get(name) is not None)]
    if missing and not given.tasks:
        announce(
            f'ruler: without {", ".join(missing)}, whose data are not there (eval.ruler.squad, eval.ruler.hotpotqa).'
        )

    def draw(task: str, length: int, count: int) -> list[Sample]:
        return samples(
            task,
            context.tokenizer,
            length=length,
            count=count,
            seed=context.seed,
            text=text,
            file=files.get(task),
            template=given.template,
            cache=context.directory if count > 1 else None,
        )

    return Ruler(
        context.tokenizer,
        draw,
        tasks=given.tasks or [name for name in RULER if name not in missing],
        lengths=config.lengths,
        count=config.samples,
        tokens=config.tokens,
    )


def text_of(tokens: Tokens, tokenizer: Tokenizer) -> str:
    """The text of all documents, lines between them."""
    return '\n'.join(tokenizer.decode(tokens[i]) for i in range(len(tokens)))
