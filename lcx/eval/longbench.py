"""LongBench: questions on long texts out of files, whose answers the model writes. See :mod:`lcx.data.longbench`.

A prompt that does not fit the length beside its answer loses tokens in its middle, as in LongBench, since instructions
and questions are at its ends. Rows count them.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator

import numpy as np

from lcx.data import longbench
from lcx.data.longbench import KINDS, Kind, Record
from lcx.errors import ConfigError, DataError, unknown
from lcx.eval.answers import METRICS
from lcx.eval.api import Context, Generate, digest
from lcx.types import Row, Tree


def without_middle(ids: np.ndarray, room: int) -> np.ndarray:
    """``ids``, or the first and the last ``room // 2`` of them where there are more than ``room``.

    >>> without_middle(np.arange(9), 5).tolist()
    [0, 1, 7, 8]
    """
    half = room // 2
    return ids if len(ids) <= room else np.concatenate([ids[:half], ids[len(ids) - half :]])


class LongBench:
    """Yields a row for each length, data set and one of its first ``eval.samples`` records.

    ``points`` is the data set's ``metric`` of what was written and the best of the known answers, ``cut`` how many
    tokens of the prompt are missing, ``words`` the record's own length, ``text`` a digest of the prompt.
    """

    name = 'longbench'
    writes = True
    scores = False

    def __init__(self, context: Context) -> None:
        self.config, self.tokenizer = context.config, context.tokenizer
        own = self.config.longbench
        if own.directory is None:
            raise ConfigError(
                "eval.longbench.directory: 'longbench' needs the directory of LongBench's files."
            )
        kinds = {} if own.prompts is None else longbench.prompts(own.prompts)
        self.kinds: dict[str, Kind] = {}
        self.records: dict[str, list[Record]] = {}
        for task in own.tasks or KINDS:
            kind = kinds.get(task) or kinds.get(task.removesuffix('_e')) or longbench.kind_of(task)
            if kind is None:
                raise ConfigError(unknown('eval.longbench.tasks', task, [*KINDS, *kinds]))
            if kind.metric not in METRICS:
                raise ConfigError(unknown(f'eval.longbench.prompts: metric of {task}', kind.metric, METRICS))
            if kind.new > self.config.lengths[0] - 2:
                raise DataError(
                    f'{self.name}: length {self.config.lengths[0]} is too short for {task}, whose answers take '
                    f'{kind.new} tokens.'
                )
            self.kinds[task] = kind
            self.records[task] = longbench.read(own.directory, task)[: self.config.samples]
        self.expected = dict.fromkeys(self.config.lengths, sum(map(len, self.records.values())))

    def run(self, generate: Generate, params: Tree, done: Collection[Row] = ()) -> Iterator[Row]:
        """See the class; rows that are among ``done`` are left out."""
        names = ('task', 'length', 'sample', 'text')
        known = {tuple(row[name] for name in names) for row in done if row['evaluator'] == self.name}
        for length in self.config.lengths:
            for task, kind in self.kinds.items():
                left = []
                for number, record in enumerate(self.records[task]):
                    whole = self.tokenizer.encode(longbench.filled(kind.prompt, record))
                    ids = without_middle(whole, length - kind.new)
                    about = dict(zip(names, (task, length, number, digest(ids))))
                    if tuple(about.values()) not in known:
                        facts = {'cut': len(whole) - len(ids), 'words': record.length, 'record': record.id}
                        left.append((about | facts, record, ids))
                size = max(1, self.config.tokens // length)
                for start in range(0, len(left), size):
                    part = left[start : start + size]
                    written = generate(params, [ids for _, _, ids in part], kind.new)
                    for (about, record, _), ids in zip(part, written, strict=True):
                        prediction = self.read(ids)
                        row = {'points': points(kind, prediction, record), 'metric': kind.metric}
                        yield {'evaluator': self.name, **about, **row, 'prediction': prediction}

    def read(self, ids: np.ndarray) -> str:
        """The text of ids up to the end of the document."""
        ends = np.flatnonzero(np.asarray(ids) == self.tokenizer.eos)
        return self.tokenizer.decode(ids[: ends[0]] if len(ends) else ids)


def points(kind: Kind, prediction: str, record: Record) -> float:
    """The score beside the known answer that it is nearest to."""
    if kind.first_line:
        prediction = prediction.lstrip('\n').split('\n')[0]
    return max(METRICS[kind.metric](prediction, answer, record.classes) for answer in record.answers)
