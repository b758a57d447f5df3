"""Runs evaluators on parameters and appends their rows to a workdir's results.jsonl."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
from rich.console import Console

from lcx.data.tasks import TASKS
from lcx.data.tokenizers import TOKENIZERS
from lcx.data.tokens import open_tokens
from lcx.eval import EVALUATORS, Context
from lcx.launch.experiment import ExperimentConfig
from lcx.models import ModelConfig, Scores, score
from lcx.train.metrics import JsonlWriter
from lcx.types import Batch, Tree

Evaluate = Callable[[Tree, ModelConfig, int], None]


def make_evaluate(config: ExperimentConfig, workdir: Path) -> Evaluate:
    """``evaluate(params, model, step)``: all of ``config.eval.run``, each row written as soon as it is known.

    Windows and prompts are drawn here, so that missing data ends a run before it trains.
    """
    tokenizer, task = TOKENIZERS[config.data.tokenizer](), config.data.task
    context = Context(
        config.eval,
        open_tokens(config.data, 'validation') if task is None else None,
        tokenizer,
        config.seed,
        None if task is None else TASKS[task](tokenizer),
    )
    evaluators = [EVALUATORS[name](context) for name in config.eval.run]
    console = Console(stderr=True)

    @functools.cache
    def apply_of(model: ModelConfig) -> Callable:
        def apply(params: Tree, batch: Batch) -> Scores:
            remap = model.remap(batch.tokens.shape[1])
            if remap is not None:  # some methods draw positions at evaluation too; the same ones every time
                batch = batch._replace(positions=remap(jax.random.key(config.seed), batch.positions, False))
            return score(model, params, batch, chunk=config.loss.chunk)

        return jax.jit(apply)

    def evaluate(params: Tree, model: ModelConfig, step: int) -> None:
        common = {
            'label': config.label or model.position['name'],
            'run': workdir.name,
            'seed': config.seed,
            'step': step,
            'split': 'validation',
            'trained_length': model.trained_length,
            'position': model.position['name'],
        }
        with JsonlWriter(workdir / 'results.jsonl') as results:
            for evaluator in evaluators:
                since = time.monotonic()
                for row in evaluator.run(apply_of(model), params):
                    now = time.monotonic()
                    row = {**common, 'factor': factor(model, row['length']), **row, 'seconds': now - since}
                    since = now
                    results.write({k: float(v) if isinstance(v, np.floating) else v for k, v in row.items()})
                    console.print(f'  {line(row)}', highlight=False, soft_wrap=True)

    return evaluate


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
    where = (
        f'positions {row["bucket_start"]}-{row["bucket_end"]}'
        if 'bucket_end' in row
        else f'length {row["length"]}'
    )
    return f'{row["label"]}: {row["evaluator"]}, {where}: {", ".join(numbers)} ({row["seconds"]:.1f} s)'
