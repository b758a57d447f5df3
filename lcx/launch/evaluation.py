"""Runs evaluators on parameters and appends their rows to a workdir's results.jsonl."""

from __future__ import annotations

import functools
import hashlib
import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from rich.console import Console

from lcx.bench import memory
from lcx.config import plain
from lcx.data.feed import open_task
from lcx.data.tokenizers import make_tokenizer
from lcx.data.tokens import open_tokens
from lcx.eval import EVALUATORS, Apply, Context, Generate
from lcx.eval.api import Evaluator
from lcx.generate import reading
from lcx.generate.loop import generate
from lcx.generate.policies import Room, held_bytes, make_policy
from lcx.launch.experiment import ExperimentConfig
from lcx.models import ModelConfig, Scores, score
from lcx.train.metrics import JsonlWriter, read_jsonl
from lcx.types import Batch, Tree

Evaluate = Callable[[Tree, ModelConfig, int], None]

WORTH_A_LINE = 2.0  # seconds: single windows and samples that took less are written, but not shown
SINGLE = ('window', 'sample')  # columns of rows that are one of many


def make_evaluate(config: ExperimentConfig, workdir: Path, source: Path) -> Evaluate:
    """``evaluate(params, model, step)``: all of ``config.eval.run``, each row written as soon as it is known.

    ``seconds`` of a row are those since the one before; ``peak_bytes`` is the most memory (:func:`peak_bytes`) since
    its evaluator first scored a batch of its length, compilation included.

    Windows and prompts are drawn here, so that missing data ends a run before it trains. ``source`` is where the
    parameters are from: an evaluation of the same parameters that was cut short goes on.
    """
    tokenizer = make_tokenizer(config.data.tokenizer)
    task = open_task(config.data, tokenizer)
    context = Context(
        config.eval,
        open_tokens(config.data, config.eval.split) if task is None else None,
        tokenizer,
        config.seed,
        task,
        Path(config.data.directory).expanduser() / 'ruler',
    )
    evaluators = [EVALUATORS[name](context) for name in config.eval.run]
    console = Console(stderr=True)

    @functools.cache
    def apply_of(model: ModelConfig) -> Callable:
        def apply(params: Tree, batch: Batch, after: int) -> Scores:
            length = batch.tokens.shape[1]
            remap = model.remap(length)
            if remap is not None:  # some methods draw positions at evaluation too; the same ones every time
                batch = batch._replace(positions=remap(jax.random.key(config.seed), batch.positions, False))
            if not config.eval.cached:
                return score(model, params, batch, chunk=config.loss.chunk)
            chunk = min(config.generate.chunk, length)
            policy = make_policy(config.cache, reading.room(length, chunk, after))
            return reading.score(model, params, batch, policy, chunk=chunk, logits=config.loss.chunk)

        program = jax.jit(apply, static_argnums=2)
        return lambda params, batch: program(params, batch, tokens_after(batch) if config.eval.cached else 0)

    def write_of(model: ModelConfig) -> Generate:
        def write(params: Tree, prompts: Sequence[np.ndarray], new: int) -> list[np.ndarray]:
            """As ``config.generate`` says, until the document ends."""
            options = {
                'sampling': config.generate.sampling,
                'chunk': config.generate.chunk,
                'seed': config.seed,
            }
            return generate(model, params, prompts, new=new, cache=config.cache, eos=tokenizer.eos, **options)

        return write

    def evaluate(params: Tree, model: ModelConfig, step: int) -> None:
        common = {
            'label': config.label or model.position['name'],
            'run': workdir.name,
            'seed': config.seed,
            'step': step,
            'split': config.eval.split,
            'trained_length': model.trained_length,
            'position': model.position['name'],
        }
        path = workdir / 'results.jsonl'
        with JsonlWriter(path) as results:  # first, since it removes a torn last line
            before = list(read_jsonl(path))
            for evaluator in evaluators:
                of = identity(model, step, config.seed, source, through(config, evaluator))
                done, caches = (
                    [row for row in before if row.get('of') == of],
                    columns(config, model, evaluator),
                )
                since = time.monotonic()
                given = write_of(model) if evaluator.writes else renewing_peak(apply_of(model))
                for row in evaluator.run(given, params, done):
                    now = time.monotonic()
                    own = {'of': of, 'factor': factor(model, row['length']), **caches.get(row['length'], {})}
                    row = {**common, **own, **row, 'seconds': now - since}
                    row['peak_bytes'] = peak_bytes()
                    since = now
                    results.write({k: float(v) if isinstance(v, np.floating) else v for k, v in row.items()})
                    if row['seconds'] > WORTH_A_LINE or not any(name in row for name in SINGLE):
                        console.print(f'  {line(row)}', highlight=False, soft_wrap=True)

    return evaluate


def tokens_after(batch: Batch) -> int:
    """A power of two that holds what follows the prompt in ``batch``: few programs for answers of many lengths."""
    counted = np.flatnonzero(np.any(np.asarray(batch.weights) > 0, axis=0))
    after = batch.tokens.shape[1] - 1 - counted[0] if len(counted) else 0
    return 1 << int(after).bit_length()


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


def line(row: dict[str, Any]) -> str:
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
    for name in ('task', 'depth', 'sample'):
        if name in row:
            where += f', {name} {row[name]:g}' if name == 'depth' else f', {name} {row[name]}'
    if any(name in row for name in SINGLE):
        shown = ('nats', 'last_nats', 'accuracy', 'answer_bits', 'score')
        numbers = [f'{name} {row[name]:.3f}' for name in shown if name in row]
    return f'{row["label"]}: {row["evaluator"]}, {where}: {", ".join(numbers)} ({row["seconds"]:.1f} s)'
