"""What ``lcx search-factors`` puts together: a model whose factors are parameters, its perplexity, its files."""

from __future__ import annotations

import dataclasses
import json
import shlex
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from rich.console import Console

from lcx import config as configuration
from lcx.config import Options, plain
from lcx.data.tokenizers import make_tokenizer
from lcx.data.tokens import Tokens
from lcx.errors import ConfigError, StorageError, unknown
from lcx.eval import Context, Perplexity
from lcx.launch.experiment import ExperimentConfig
from lcx.launch.workdir import check_config
from lcx.models import ModelConfig, Scores, init, score
from lcx.positions import Position, longrope, rope, search
from lcx.train.metrics import JsonlWriter, read_jsonl, write_atomic
from lcx.types import Batch, Tree

METHODS = ('rope', 'longrope')  # whose factors can be searched
LISTS = ('short_factor', 'long_factor')


class SearchedModel(ModelConfig):
    """A model with LongRoPE whose long list is a parameter; ``position`` holds the method's other options."""

    def read_position(self, kind: str, length: int) -> Position:
        """As for any model; layer kinds with a position of their own keep it."""
        if self.position_of(kind) != self.position:
            return super().read_position(kind, length)
        options = {k: v for k, v in self.position.items() if k not in LISTS}
        sizes = {'head_dim': self.head_dim, 'length': length, 'trained_length': self.trained_length}
        return configuration.make({'longrope': longrope.searched}, options, 'position', **sizes)

    @property
    def pairs(self) -> int:
        """How many factors there are."""
        return rope.rotating(self.head_dim, self.position.get('rotary_fraction', 1.0)) // 2

    def known(self, length: int) -> dict[str, search.Factors]:
        """The lists of known methods at ``length`` tokens."""
        theta, original = self.position.get('theta', 10000.0), self.position['original_length']
        return search.known(2 * self.pairs, theta, original, length / original)


def searched_model(trained: ModelConfig, length: int, attention_factor: float | None) -> SearchedModel:
    """The model to search at ``length`` tokens. Raises ConfigError where there is nothing to search."""
    name = trained.position['name']
    if name not in METHODS:
        raise ConfigError(unknown('model.position.name (of the run of --init)', name, METHODS))
    options = {**trained.position.set(), 'name': 'longrope'}
    original = options.setdefault('original_length', trained.trained_length)
    if length <= original:
        raise ConfigError(f'--length: {length} does not exceed the original length, {original} tokens.')
    if attention_factor is not None:
        options['attention_factor'] = attention_factor
    values = {f.name: getattr(trained, f.name) for f in dataclasses.fields(trained)}
    model = SearchedModel(**{**values, 'position': Options(options)})
    return dataclasses.replace(model, position={'short_factor': (1.0,) * model.pairs, **options})


def objective_of(
    config: ExperimentConfig, model: SearchedModel, tokens: Tokens, length: int
) -> Callable[[Tree, search.Factors], float]:
    """``objective(params, factors)``: the perplexity of windows of ``length`` tokens, compiled once for all lists."""
    size = dataclasses.replace(config.eval, lengths=(length,), last=min(config.eval.last, length))
    texts = Perplexity(Context(size, tokens, make_tokenizer(config.data.tokenizer), config.seed))

    @jax.jit
    def apply(params: Tree, batch: Batch) -> Scores:
        return score(model, params, batch, chunk=config.loss.chunk)

    def objective(params: Tree, factors: search.Factors) -> float:
        shapes = jax.eval_shape(lambda key: init(model, key), jax.random.key(0))
        (name,) = set(shapes) - set(params)
        params = {**params, name: {'factors': jnp.array(factors, jnp.float32)}}
        return next(texts.run(apply, params))['ppl']

    return objective


class Search:
    """A search in a workdir, from the newest generation that is saved there.

    Raises:
      ConfigError: the workdir holds another search.
      StorageError: its file cannot be read or written.
    """

    def __init__(self, workdir: Path, identity: Mapping[str, Any], model: SearchedModel, label: str) -> None:
        self.workdir, self.model, self.label = workdir, model, label
        self.identity = {**identity, 'position': plain(model.position)}
        self.known = model.known(identity['length'])
        self.after, self.of_known = None, {}
        path = workdir / 'search.json'
        if path.exists():
            try:
                saved = json.loads(path.read_text(encoding='utf-8'))
                number, lists, scores = (saved[k] for k in ('generation', 'lists', 'ppl'))
                self.after = search.Generation(number, tuple(map(tuple, lists)), tuple(scores))
                self.of_known, before = saved['known'], saved['search']
            except (OSError, ValueError, KeyError, TypeError) as error:
                raise StorageError(f'{path}: cannot be read: {error!r}. Delete it to search anew.') from error
            check_config(before, self.identity)

    def run(self, objective: Callable[[search.Factors], float], iterations: int) -> None:
        """Generations up to ``iterations``: a row and a state for each, and the files of the best at the end."""
        identity, console, path = self.identity, Console(stderr=True), self.workdir / 'results.jsonl'
        self._drop_later_rows(path)
        generations = search.search(
            objective,
            list(self.known.values()),
            factor=identity['length'] / self.model.position['original_length'],
            population=identity['population'],
            iterations=iterations,
            seed=identity['seed'],
            after=self.after,
        )
        since = time.monotonic()
        with JsonlWriter(path) as results:
            for self.after in generations:
                if self.after.number == 0:
                    scores = dict(zip(self.after.individuals, self.after.scores))
                    self.of_known = {name: scores[factors] for name, factors in self.known.items()}
                    words = ', '.join(f'{name} {ppl:.4f}' for name, ppl in self.of_known.items())
                    console.print(f'perplexity at {identity["length"]} tokens: {words}', highlight=False)
                now = time.monotonic()
                row = self._row(now - since)
                since = now
                results.write(row)
                self._save()
                console.print(
                    f'generation {self.after.number}/{iterations}: best {row["best_ppl"]:.4f}, '
                    f'mean {row["mean_ppl"]:.4f} ({row["seconds"]:.1f} s)',
                    highlight=False,
                )
        self._write_best(console)

    def _drop_later_rows(self, path: Path) -> None:
        """Of generations after the saved one: an attempt got that far and was stopped before it saved them."""
        if path.exists():
            last = -1 if self.after is None else self.after.number
            rows = [row for row in read_jsonl(path) if row.get('generation', 0) <= last]
            write_atomic(path, ''.join(json.dumps(row) + '\n' for row in rows))

    def _row(self, seconds: float) -> dict[str, Any]:
        return {
            'label': self.label or 'longrope',
            'run': self.workdir.name,
            'evaluator': 'search_factors',
            'seed': self.identity['seed'],
            'step': self.identity['step'],
            'split': 'train',
            'trained_length': self.model.trained_length,
            'length': self.identity['length'],
            'generation': self.after.number,
            'best_ppl': self.after.scores[0],
            'mean_ppl': sum(self.after.scores) / len(self.after.scores),
            'seconds': seconds,
        }

    def _save(self) -> None:
        saved = {
            'search': self.identity,
            'known': self.of_known,
            'generation': self.after.number,
            'ppl': self.after.scores,
            'lists': self.after.individuals,
        }
        write_atomic(self.workdir / 'search.json', json.dumps(saved) + '\n')

    def _write_best(self, console: Console) -> None:
        """factors.json, and the flags that use it."""
        position = {'name': 'longrope', **self.model.position.set(), 'long_factor': self.after.individuals[0]}
        flags = [f'--config.model.position.{field}={value}' for field, value in position.items()]
        best = {
            'length': self.identity['length'],
            'ppl': self.after.scores[0],
            'known_ppl': self.of_known,
            'position': plain(position),
            'flags': flags,
        }
        write_atomic(self.workdir / 'factors.json', json.dumps(best, indent=2) + '\n')
        console.print(f'{self.workdir / "factors.json"}: perplexity {best["ppl"]:.4f}', highlight=False)
        console.print(
            'lcx eval ' + shlex.join(['--init=RUN', '--workdir=DIR', *flags]), highlight=False, soft_wrap=True
        )
