"""Runs evaluators on parameters and appends their rows to a workdir's results.jsonl."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import itertools
import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh
from rich.console import Console

from lcx.bench import memory
from lcx.config import plain
from lcx.data.feed import open_task
from lcx.data.tokenizers import make_tokenizer
from lcx.data.tokens import open_tokens
from lcx.errors import ConfigError
from lcx.eval import EVALUATORS, Apply, Context, EvalConfig
from lcx.eval.api import Evaluator, Reader
from lcx.generate.policies import Room, held_bytes, make_policy
from lcx.launch import origin
from lcx.launch.experiment import ExperimentConfig
from lcx.launch.progress import Progress
from lcx.launch.scoring import Programs
from lcx.models import ModelConfig, Scores
from lcx.parallel import processes
from lcx.parallel.placement import Placement
from lcx.parallel.processes import Processes
from lcx.train.metrics import JsonlWriter, read_jsonl
from lcx.types import Batch, Tree

Evaluate = Callable[[Tree, ModelConfig, int], int]

WORTH_A_LINE = 2.0  # seconds: single windows and samples that took less are written, but not shown
SILENCE = 10.0  # seconds: after so many the next one is
SINGLE = ('window', 'sample', 'document')  # columns of rows that are one of many


def make_evaluate(config: ExperimentConfig, workdir: Path, source: Path, placement: Placement) -> Evaluate:
    """``evaluate(params, model, step)``: all of ``config.eval.run``, each row written as soon as it is known.

    It returns how many rows it wrote.

    ``seconds`` of a row are those since the one before; ``peak_bytes`` is the most memory (:func:`peak_bytes`) since
    its evaluator first scored a batch of its length, compilation included.

    Windows and prompts are drawn here, so that missing data ends a run before it trains. ``source`` is where the
    parameters are from: an evaluation of the same parameters that was cut short goes on. ``placement`` is where texts
    are scored; parameters lie on its mesh.
    """
    tokenizer = make_tokenizer(config.data.tokenizer)
    task = open_task(config.data, config.eval.split, tokenizer)
    programs, here = Programs(config, tokenizer, placement), processes.current()
    console = Console(stderr=True, quiet=not here.first)
    context = Context(
        config.eval,
        open_tokens(config.data, config.eval.split) if task is None else None,
        tokenizer,
        config.seed,
        task,
        Path(config.data.directory).expanduser() / 'ruler',
        judge_of(config, lambda model: programs.apply(model, False), placement.mesh),
    )
    evaluators = [EVALUATORS[name](context) for name in config.eval.run]
    check_together(here, config.eval, evaluators)

    def evaluate(params: Tree, model: ModelConfig, step: int) -> int:
        common = {
            'label': config.label or model.position['name'],
            'run': workdir.name,
            'seed': config.seed,
            'step': step,
            'split': config.eval.split,
            'trained_length': model.trained_length,
            'position': model.position['name'],
        }
        path, count = workdir / 'results.jsonl', 0
        with contextlib.ExitStack() as stack:
            if here.first:
                results = stack.enter_context(JsonlWriter(path))  # first, since it removes a torn last line
            before = rows_before(here, path)
            for evaluator in evaluators:
                of = identity(model, step, config.seed, source, through(config, evaluator))
                done, caches = (
                    [row for row in before if row.get('of') == of],
                    columns(config, model, evaluator),
                )
                since = shown = time.monotonic()
                progress = Progress(evaluator.name, evaluator.expected, done)
                given = programs.write(model)
                if evaluator.scores:
                    apply = renewing_peak(programs.apply(model, config.eval.cached))
                    given = Reader(apply, given) if evaluator.writes else apply
                for row in evaluator.run(given, params, done):
                    now = time.monotonic()
                    own = {'of': of, 'factor': factor(model, row['length']), **caches.get(row['length'], {})}
                    row = {**common, **own, **row, 'seconds': now - since}
                    row['peak_bytes'] = peak_bytes()
                    since = now
                    if here.first:
                        results.write(
                            {k: float(v) if isinstance(v, np.floating) else v for k, v in row.items()}
                        )
                    count += 1
                    far = progress.add(row)
                    worth = row['seconds'] > WORTH_A_LINE or progress.complete()
                    if worth or now - shown > SILENCE or not any(name in row for name in SINGLE):
                        shown = now
                        console.print(f'  {line(row, far)}', highlight=False, soft_wrap=True)
        return count

    return evaluate


def judge_of(
    config: ExperimentConfig, apply_of: Callable[[ModelConfig], Apply], mesh: Mesh
) -> Callable[[], tuple[Apply, Tree]] | None:
    """What loads the model of ``eval.longppl.judge``, as it was trained; None where none is named or nobody asks.

    Raises:
      ConfigError: it is neither a run nor a Hugging Face directory, or is not known to read the same tokens.
      StorageError: its files are missing or broken.
    """
    field, name = 'eval.longppl.judge', config.eval.longppl.judge
    if name is None or 'longppl' not in config.eval.run:
        return None
    found = origin.find(Path(name), field)
    own, ours = origin.tokenizer_spec(found.path), config.data.tokenizer
    if own is None or make_tokenizer(own).identity != make_tokenizer(ours).identity:
        raise ConfigError(
            f'{field}: {name!r} reads the tokens of {own!r}, not those of data.tokenizer {ours!r}; a judge must read '
            'the same.'
        )
    return functools.cache(lambda: (apply_of(found.model), found.params(found.model, mesh)))


def check_together(here: Processes, config: EvalConfig, evaluators: Sequence[Evaluator]) -> None:
    """Raises ConfigError for what several processes cannot evaluate together: what one device reads in pieces."""
    if here.count == 1:
        return
    writers = [name for name, evaluator in zip(config.run, evaluators) if evaluator.writes]
    what = 'eval.cached: True' if config.cached else f'eval.run: {writers[0]!r}' if writers else None
    if what is not None:
        raise ConfigError(f'{what} takes one process. Leave it out, and evaluate with lcx eval afterwards.')


def rows_before(here: Processes, path: Path) -> list[dict[str, Any]]:
    """The rows that were there when the first process looked, which may be writing by now."""
    count = int(here.of_first('rows', lambda: str(len(list(read_jsonl(path))))))
    return list(itertools.islice(read_jsonl(path), count)) if count else []


def cache_bytes(config: ExperimentConfig, model: ModelConfig, length: int) -> int:
    """What the cache of one text of ``length`` takes once it has been read, if it goes on a token at a time.

    Raises:
      ConfigError: it cannot hold the text, or cannot serve the model.
    """
    policy = make_policy(config.cache, Room(length, 0, 1))
    own = policy.model(model)
    return held_bytes(jax.eval_shape(lambda: policy.compressed(policy.caches(own, 1))))


def columns(config: ExperimentConfig, model: ModelConfig, evaluator: Evaluator) -> dict[int, dict[str, Any]]:
    """What rows of each length say of the cache, where there is one. Raises ConfigError as :func:`cache_bytes`."""
    if not through(config, evaluator):
        return {}
    sizes = {length: cache_bytes(config, model, length) for length in config.eval.lengths}
    return {length: {'cache': config.cache['name'], 'cache_bytes': size} for length, size in sizes.items()}


def through(config: ExperimentConfig, evaluator: Evaluator) -> list:
    """What the evaluator reads texts through, if that is a cache: its options, the tokens of a piece, how it writes."""
    cache = [plain(config.cache.set()), config.generate.chunk]
    if evaluator.writes:
        return [*cache, plain(config.generate.sampling)]
    return cache if config.eval.cached else []


def identity(model: ModelConfig, step: int, seed: int, source: Path, through: Sequence = ()) -> str:
    """A digest of what is evaluated: equal for equal parameters, model, seed and cache."""
    facts = [plain(model), step, seed, str(source.resolve()), *([list(through)] if through else [])]
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:12]


def renewing_peak(apply: Apply) -> Apply:
    """``apply``; before a batch of another length than the last one, the process's peak memory starts anew.

    Not before each batch: giving free memory back takes milliseconds, as long as short windows do.
    """
    last = None

    def call(params: Tree, batch: Batch) -> Scores:
        nonlocal last
        if batch.tokens.shape[1] != last:
            last = batch.tokens.shape[1]
            memory.reset_peak()
        return apply(params, batch)

    return call


def peak_bytes() -> int | None:
    """The most memory that was in use; None if the device does not say.

    Of an accelerator that is its own memory, of the fullest device since the process began; on a CPU that which the
    process held, all included, since :func:`lcx.bench.memory.reset_peak`.
    """
    devices = jax.local_devices()
    if devices[0].platform == 'cpu':
        return memory.peak()
    peaks = [(device.memory_stats() or {}).get('peak_bytes_in_use') for device in devices]
    return None if None in peaks else max(peaks)


def factor(model: ModelConfig, length: int) -> float:
    """The extension factor in use at ``length``, for the record."""
    entry = model.trained_at(length).position
    while entry.get('factor') is None and entry.get('base') is not None:
        entry = entry['base']  # a wrapper of another method
    return float(entry.get('factor') or 1.0)


def line(row: dict[str, Any], progress: str) -> str:
    """One row for a person: the evaluator, the length and the numbers with their errors."""
    numbers = []
    for name, value in row.items():
        if isinstance(value, float) and f'{name}_stderr' in row:
            numbers.append(f'{name} {value:.3f} ±{row[f"{name}_stderr"]:.3f}')
    where = f'length {row["length"]}'
    if 'bucket_end' in row:
        where = f'positions {row["bucket_start"]}-{row["bucket_end"]}'
    if 'window' in row:
        where += f', window {row["window"]}'
    for name in ('task', 'depth', 'sample', 'document'):
        if name in row:
            where += f', {name} {row[name]:g}' if name == 'depth' else f', {name} {row[name]}'
    if 'asked' in row:
        numbers += [f'{name} {row[name]:.3f}' for name in ('value', 'cost') if name in row and not numbers]
    if any(name in row for name in SINGLE):
        shown = ('nats', 'last_nats', 'key_nats', 'accuracy', 'answer_bits', 'score', 'points')
        numbers = [f'{name} {row[name]:.3f}' for name in shown if name in row]
    took = f'{row["seconds"]:.1f} s' + (progress and f'; {progress}')
    return f'{row["label"]}: {row["evaluator"]}, {where}: {", ".join(numbers)} ({took})'
