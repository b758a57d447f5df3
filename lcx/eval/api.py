"""What an evaluator is given, and how texts are scored within a bound on memory."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np

from lcx import config
from lcx.data.tasks import Task
from lcx.data.tokenizers import Tokenizer
from lcx.data.tokens import Tokens
from lcx.errors import ConfigError, unknown
from lcx.models import Scores
from lcx.types import PADDING, Batch, Row, Tree

# (params, batch) -> Scores as numpy 'B T'. Compiled once per length.
Apply = Callable[[Tree, Batch], Scores]

# (params, prompts, n) -> for each prompt, ids int32 [T], the n or fewer ids that the model would write after it.
Generate = Callable[[Tree, Sequence[np.ndarray], int], Sequence[np.ndarray]]


class Reader(NamedTuple):
    """A model as it is given to evaluators that score and write."""

    score: Apply
    write: Generate


SPLITS = ('validation', 'test')  # that may be scored


@dataclasses.dataclass(frozen=True)
class RulerConfig:
    """The fields of ``config.eval.ruler``."""

    tasks: tuple[str, ...] = ()
    squad: str | None = None
    hotpotqa: str | None = None
    template: str = '{prompt}'


@dataclasses.dataclass(frozen=True)
class SlidingConfig:
    """The fields of ``config.eval.sliding``."""

    stride: int | None = None
    most: int | None = None

    def __post_init__(self) -> None:
        config.positive(self, 'stride')
        if self.most is not None and self.most < 2:
            raise ConfigError(f'most: {self.most} must be at least 2 tokens, one of them to be predicted.')


@dataclasses.dataclass(frozen=True)
class LongPPLConfig:
    """The fields of ``config.eval.longppl``."""

    judge: str | None = None
    short: int | None = None
    alpha: float = 2.0
    beta: float = -2.0

    def __post_init__(self) -> None:
        config.positive(self, 'short')


@dataclasses.dataclass(frozen=True)
class HarnessConfig:
    """The fields of ``config.eval.harness``."""

    tasks: tuple[str, ...] = ()
    include: str | None = None
    shots: int | None = None
    limit: int | None = None

    def __post_init__(self) -> None:
        config.positive(self, 'limit')


@dataclasses.dataclass(frozen=True)
class LongBenchConfig:
    """The fields of ``config.eval.longbench``."""

    directory: str | None = None
    tasks: tuple[str, ...] = ()
    prompts: str | None = None


@dataclasses.dataclass(frozen=True)
class EvalConfig:
    """The fields of ``config.eval``, which configs/base.py explains."""

    run: tuple[str, ...]
    split: str
    every: int | None
    lengths: tuple[int, ...]
    windows: int
    depths: tuple[float, ...]
    samples: int
    last: int
    tokens: int
    report: bool = False
    cached: bool = False
    ruler: RulerConfig = RulerConfig()
    sliding: SlidingConfig = SlidingConfig()
    longppl: LongPPLConfig = LongPPLConfig()
    harness: HarnessConfig = HarnessConfig()
    longbench: LongBenchConfig = LongBenchConfig()
    sizes: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        config.positive(self, 'every', 'windows', 'samples', 'last', 'tokens')
        if self.split not in SPLITS:
            raise ConfigError(unknown('split', self.split, SPLITS))
        if not self.lengths:
            raise ConfigError('lengths: () evaluates nothing; give at least one length.')
        for length in self.lengths:
            if length < 1 or length & (length - 1):
                near = 1 << max(0, round(np.log2(max(length, 1))))
                raise ConfigError(f'lengths: {length} is not a power of two; the nearest is {near}.')
        if tuple(sorted(set(self.lengths))) != self.lengths:
            raise ConfigError(f'lengths: {self.lengths} must rise.')
        if tuple(sorted(set(self.sizes))) != self.sizes:
            raise ConfigError(f'sizes: {self.sizes} must rise.')
        if not self.depths or not all(0 <= depth <= 1 for depth in self.depths):
            raise ConfigError(f'depths: {self.depths} must be at least one share of the text, from 0 to 1.')
        if tuple(sorted(set(self.depths))) != self.depths:
            raise ConfigError(f'depths: {self.depths} must rise.')
        if self.last > self.lengths[0]:
            raise ConfigError(f'last: {self.last} exceeds the shortest of lengths, {self.lengths[0]}.')
        if self.sliding.stride is not None and self.sliding.stride > self.lengths[0]:
            raise ConfigError(
                f'sliding.stride: {self.sliding.stride} exceeds the shortest of lengths, {self.lengths[0]}: tokens '
                'between windows would not be scored.'
            )


class Context(NamedTuple):
    """What evaluators are made from."""

    config: EvalConfig
    tokens: Tokens | None  # of the split that is scored; None where the data source is a task
    tokenizer: Tokenizer
    seed: int
    task: Task | None = None  # the data source, if it is one
    directory: Path | None = None  # where what is made to order may be kept
    judge: Callable[[], tuple[Apply, Tree]] | None = (
        None  # the model of eval.longppl.judge, loaded when asked for
    )


class Evaluator(Protocol):
    """Yields flat rows; the caller adds what run, step and model they belong to.

    One that ``scores`` is given an :data:`Apply`, one that ``writes`` a :data:`Generate`, one that does both a
    :class:`Reader`.

    ``done`` are rows of the same evaluation from an attempt that was cut short; an evaluator whose rows take long
    leaves out those it finds there. ``expected`` says how many rows it has at each length, those included, as far as
    it knows.
    """

    name: str
    writes: bool
    scores: bool
    expected: Mapping[int, int]

    def run(
        self, apply: Apply | Generate | Reader, params: Tree, done: Collection[Row] = ()
    ) -> Iterator[Row]: ...


def whole_rows(ids: np.ndarray, last: int | Sequence[int] | None = None) -> Batch:
    """Rows of T + 1 ids, one document each, as a batch in which every target counts.

    With ``last`` (of each row) only so many at the end count: what is before them is a prompt.
    """
    batch, length = ids.shape[0], ids.shape[1] - 1
    counted = np.broadcast_to(length if last is None else last, batch)
    return Batch(
        tokens=ids[:, :-1],
        targets=ids[:, 1:],
        weights=(np.arange(length) >= length - counted[:, None]).astype(np.float32),
        positions=np.tile(np.arange(length, dtype=np.int32), (batch, 1)),
        segments=np.ones((batch, length), np.int32),
        ids=np.arange(batch, dtype=np.int32),
    )


def digest(ids: np.ndarray) -> str:
    """Twelve hex digits that are equal for equal token ids."""
    return hashlib.sha256(ids.astype('<i4').tobytes()).hexdigest()[:12]


def needs_text(context: Context, evaluator: str) -> Tokens:
    """The tokens that ``evaluator`` reads; raises ConfigError where the data source is a task."""
    if context.tokens is None:
        raise ConfigError(f"eval.run: {evaluator!r} reads text, and data.source is a task; run 'task'.")
    return context.tokens


def scored(apply: Apply, params: Tree, batch: Batch, tokens: int, rows: int | None = None) -> Scores:
    """Scores of all rows, ``rows`` at a time; None: as many as make at most about ``tokens`` tokens.

    The last part is filled up with padding rows, so that one length compiles once.
    """
    count, length = batch.tokens.shape
    size = max(1, min(count, tokens // length)) if rows is None else rows
    parts = []
    for start in range(0, count, size):
        part = Batch(*(x[start : start + size] for x in batch))
        missing = size - len(part.tokens)
        if missing:
            part = Batch(*(np.pad(x, [(0, missing)] + [(0, 0)] * (x.ndim - 1)) for x in part))
            part.segments[size - missing :] = PADDING
        scores = apply(params, part)
        parts.append([np.asarray(x)[: size - missing] for x in scores])
    return Scores(*(np.concatenate(x) for x in zip(*parts)))


def mean(values: np.ndarray) -> tuple[float, float]:
    """The mean over independent samples and its standard error (0 for a single sample)."""
    values = np.asarray(values, np.float64)
    error = values.std(ddof=1) / np.sqrt(len(values)) if len(values) > 1 else 0.0
    return float(values.mean()), float(error)
