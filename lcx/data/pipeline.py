"""Rows to shuffled, endless, resumable batches, on grain.

The order of the data is a function of (tokens, packing, length, seed, global batch) and the step alone: rows
are shuffled anew in every epoch and batched globally, and only then does each process take its own rows. So
one process or eight, stopped or not, see the same global batches.
"""

from __future__ import annotations

import weakref
from collections.abc import Mapping, Sequence
from typing import Any

import grain
import numpy as np
from grain import experimental as grain_experimental

from lcx.data.packing import PACKINGS, Spans, rows
from lcx.data.tasks import Task
from lcx.data.tokens import Tokens
from lcx.errors import ConfigError, DataError, unknown
from lcx.types import Batch

# Rows that first_fit fills at one time. More of them leave less padding (source code in rows of 4096: 16
# leave 3.4 %, 64 leave 1.8 %, 256 leave 1.0 %), but where an epoch ends, pieces of two meet in the open rows.
OPEN_ROWS = 64


class BatchIterator:
    """Endless batches of this process's rows, as numpy arrays; the next ones are made in the background."""

    def __init__(self, dataset: grain.IterDataset, identity: Mapping[str, Any], prefetch: int):
        self._identity = dict(identity)
        ahead = grain_experimental.ThreadPrefetchIterDataset(dataset, prefetch_buffer_size=prefetch)
        self._live = [iter(ahead)]
        self.close = weakref.finalize(self, _close, self._live)  # also at exit, while threads can be joined

    def __iter__(self) -> BatchIterator:
        return self

    def __next__(self) -> Batch:
        return Batch(**next(self._live[0]))

    def get_state(self) -> dict[str, Any]:
        """Where the next batch is, as JSON values of a few bytes, whatever the number of processes."""
        return {'of': self._identity, 'at': self._live[0].get_state()}

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Continues exactly where ``state`` was taken, possibly by another number of processes.

        Raises:
          DataError: the state belongs to other data or another order.
        """
        for name, value in self._identity.items():
            saved = state['of'].get(name)
            if saved != value:
                raise DataError(f'The saved data position is for {name} {saved!r}; now it is {value!r}.')
        self._live[0].set_state(state['at'])


def _close(live: list[grain.DatasetIterator]) -> None:
    while live:
        live.pop().close()


def batches(
    tokens: Tokens,
    *,
    length: int,
    batch: int,
    seed: int,
    packing: str,
    mine: np.ndarray | None = None,
    prefetch: int = 2,
) -> BatchIterator:
    """Batches of rows of ``length`` tokens, this process's part of every global batch.

    Args:
      tokens: the split to read.
      length: T, tokens in a row.
      batch: B, rows in the global batch.
      seed: of the order, 0 to 2**32 - 1.
      packing: a name in :data:`lcx.data.packing.PACKINGS`.
      mine: the rows of the global batch that this process holds, by their numbers in it, ascending; None: all.
      prefetch: batches made ahead of their use; 0 makes them when asked for.

    Raises:
      ConfigError: ``batch`` has no rows, or not all of ``mine``, or an unknown packing.
      DataError: the split has fewer rows than one batch.
    """
    if packing not in PACKINGS:
        raise ConfigError(unknown('packing', packing, PACKINGS))
    mine = _checked(length, batch, mine)
    spans = PACKINGS[packing](tokens, length)
    available = -(-int(spans.sizes.sum()) // length) if packing == 'first_fit' else len(spans.starts)
    if available < batch:
        raise DataError(
            f'{tokens.label} gives {available} rows of length {length} with packing {packing!r}, fewer than '
            f'a batch of {batch}: use more text, shorter rows or batch at most {available}.'
        )
    make = _packed if packing == 'first_fit' else _indexed
    identity = {
        'data': tokens.fingerprint, 'packing': packing, 'length': length, 'batch': batch, 'seed': seed
    }  # fmt: skip
    return BatchIterator(make(tokens, spans, length, batch, seed, mine), identity, prefetch)


def task_batches(
    task: Task,
    *,
    length: int,
    batch: int,
    seed: int,
    mine: np.ndarray | None = None,
    prefetch: int = 2,
) -> BatchIterator:
    """Batches of a synthetic task, rows of varying length up to ``length``; the rest as :func:`batches`.

    Raises:
      ConfigError: ``batch`` has no rows, or not all of ``mine``.
      DataError: ``length`` is less than the task's least.
    """
    mine = _checked(length, batch, mine)

    def make(step: int) -> dict[str, np.ndarray]:
        whole = task.sample_batch(np.random.default_rng([seed, int(step)]), batch, length, vary=True)
        return {name: x[mine] for name, x in whole._asdict().items()}

    make(0)  # errors come before anything runs
    identity = {'data': task.fingerprint, 'length': length, 'batch': batch, 'seed': seed}
    return BatchIterator(_on_demand(grain.MapDataset.range(2**31 - 1).map(make)), identity, prefetch)


def _checked(length: int, batch: int, mine: np.ndarray | None) -> np.ndarray:
    """The rows of this process."""
    if length < 1 or batch < 1:
        raise ConfigError(f'batch: {batch} rows of length {length}; both must be at least 1.')
    mine = np.arange(batch) if mine is None else np.asarray(mine)
    if not len(mine) or mine.min() < 0 or mine.max() >= batch:
        raise ConfigError(f'batch: {batch} rows, of which {mine.tolist()} are not the rows of a process.')
    return mine


def _indexed(
    tokens: Tokens, spans: Spans, length: int, batch: int, seed: int, mine: np.ndarray
) -> grain.IterDataset:
    """One span a row: the global batch is a list of span numbers, and only this process's are read."""

    def read(numbers: np.ndarray) -> dict[str, np.ndarray]:
        numbers = numbers[mine]
        return rows(tokens, Spans(spans.starts[numbers], spans.sizes[numbers]), length) | {
            'ids': numbers.astype(np.int32)
        }

    # There is no remainder, but grain counts the batches, and its count of single rows overflows with one.
    return _on_demand(_shuffled(spans, seed).batch(batch, drop_remainder=True).map(read))


def _packed(
    tokens: Tokens, spans: Spans, length: int, batch: int, seed: int, mine: np.ndarray
) -> grain.IterDataset:
    """Several spans a row, first fit: where one lands depends on all before, so every process packs all."""
    fields = ('tokens', 'targets', 'weights')

    def read(number: int) -> dict[str, Any]:
        size = spans.sizes[number]
        row = rows(tokens, Spans(spans.starts[[number]], spans.sizes[[number]]), size)
        return {name: row[name][0] for name in fields} | {'span': int(number)}

    def collate(packed: Sequence[Mapping[str, Any]]) -> dict[str, np.ndarray]:
        own = [packed[i] for i in mine]
        stacked = {name: np.stack([row[name] for row in own]) for name in fields}
        return stacked | {
            'positions': np.stack([row['tokens_positions'] for row in own]),
            'segments': np.stack([row['tokens_segment_ids'] for row in own]),
            'ids': np.array([row['span'][0] for row in own], np.int32),
        }

    return grain_experimental.FirstFitPackIterDataset(
        _on_demand(_shuffled(spans, seed).map(read)),
        length_struct=dict.fromkeys(fields, length),
        num_packing_bins=OPEN_ROWS,
        seed=seed,
        meta_features=('span',),
    ).batch(batch, batch_fn=collate)


def _shuffled(spans: Spans, seed: int) -> grain.MapDataset:
    """Span numbers without end, in a new order every epoch."""
    return grain.MapDataset.range(len(spans.starts)).seed(seed).shuffle().repeat()


def _on_demand(dataset: grain.MapDataset) -> grain.IterDataset:
    """An iterator without threads of its own: the one thread that prefetches whole batches is enough."""
    return dataset.to_iter_dataset(grain.ReadOptions(num_threads=0, prefetch_buffer_size=0))
