"""Tasks of EleutherAI's lm-evaluation-harness, run by it in this process: ``eval.run=harness``. Needs ``lcx[eval]``.

``eval.harness.include`` is a directory with YAML files of tasks of one's own; their data may be files
(``dataset_path: json`` with ``dataset_kwargs: {data_files: ...}``), while most of the harness's own tasks fetch theirs.
:mod:`lcx.eval.harness_lm` says how requests are answered.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Collection, Iterator, Mapping
from typing import Any

from lcx.errors import ConfigError
from lcx.eval.api import Context, Reader
from lcx.types import Row, Tree

BOOTSTRAPS = 1000  # resamplings behind the errors of metrics that are no means


class Harness:
    """Yields a row for each task and metric, at the longest of ``eval.lengths``.

    ``value`` is a metric of which more is better, ``cost`` one of which less is, both with the harness's own standard
    error, if it gives one. ``truncated`` of the task's requests were cut to ``length`` tokens and lost ``lost_tokens``.
    ``asked`` is the name in ``eval.harness.tasks``, which may be a group of tasks. ``rows`` are its rows in all.
    """

    name = 'harness'
    writes = True
    scores = True
    expected = {}  # a task's rows are known when it has run

    def __init__(self, context: Context) -> None:
        self.config, self.tokenizer, self.seed = context.config, context.tokenizer, context.seed
        own = self.config.harness
        if self.config.cached:
            raise ConfigError(
                "eval.cached: 'harness' scores texts whole, and writes through config.cache; set it False."
            )
        if not own.tasks:
            raise ConfigError("eval.harness.tasks: () evaluates nothing; 'harness' needs the name of a task.")
        try:
            from lm_eval.tasks import TaskManager
        except ImportError as error:
            raise ConfigError(
                f"eval.run: 'harness' needs lm-eval ({error}): pip install 'lcx[eval]'."
            ) from None
        self.manager = TaskManager(include_path=own.include)
        known = self.manager.all_tasks
        for task in own.tasks:
            if task not in known:
                near = difflib.get_close_matches(task, known, n=1)
                hint = f' Did you mean {near[0]!r}?' if near else ''
                raise ConfigError(
                    f'eval.harness.tasks: no task {task!r} among the {len(known)} of lm-eval and of '
                    f'eval.harness.include ({own.include!r}).{hint}'
                )

    def run(self, reader: Reader, params: Tree, done: Collection[Row] = ()) -> Iterator[Row]:
        """See the class; tasks whose rows are all among ``done`` are left out."""
        from lm_eval import simple_evaluate

        from lcx.eval.harness_lm import HarnessLM

        own, length = self.config.harness, self.config.lengths[-1]
        for asked in own.tasks:
            about = {'asked': asked, 'length': length, 'shots': own.shots, 'limit': own.limit}
            before = [r for r in done if all(r.get(k, self) == v for k, v in about.items())]
            if before and len(before) >= before[-1]['rows']:
                continue
            model = HarnessLM(reader, params, self.tokenizer, length=length, tokens=self.config.tokens)
            found = simple_evaluate(
                model=model,
                tasks=[asked],
                num_fewshot=own.shots,
                limit=own.limit,
                task_manager=self.manager,
                bootstrap_iters=BOOTSTRAPS,
                log_samples=False,
                random_seed=self.seed,
                numpy_random_seed=self.seed,
                fewshot_random_seed=self.seed,
            )
            rows = list(metrics(found))
            cut = {'truncated': model.truncated, 'lost_tokens': model.lost, 'rows': len(rows)}
            for row in rows:
                yield {'evaluator': self.name, **about, **row, **cut}


def metrics(found: Mapping[str, Any]) -> Iterator[Row]:
    """A row for each number in what lm-eval returns: ``evaluator``, ``task``, ``metric``, ``filter``, ``value``, ...

    Of the keys ``'acc,none'`` and ``'acc_stderr,none'`` of a task's results the second is the error of the first.
    """
    for task, results in found['results'].items():
        better = (found.get('higher_is_better') or {}).get(task) or {}
        count = ((found.get('n-samples') or {}).get(task) or {}).get('effective')
        for key, value in results.items():
            metric, comma, by = key.partition(',')
            if not comma or metric.endswith('_stderr') or not is_number(value):
                continue
            column = 'cost' if better.get(metric) is False else 'value'
            row = {'task': task, 'metric': metric, 'filter': by, column: float(value)}
            error = results.get(f'{metric}_stderr,{by}')
            if is_number(error) and math.isfinite(error):
                row[f'{column}_stderr'] = float(error)
            if count is not None:
                row['samples'] = int(count)
            name = '_'.join(['harness', task, metric, *([by] if by != 'none' else [])])
            yield {'evaluator': name.replace('/', '_'), **row}


def is_number(value: Any) -> bool:
    """Whether it is one, and no truth value or word."""
    return isinstance(value, (int, float)) and not isinstance(value, bool)
