"""Evaluators: small objects with a name and ``run(apply, params) -> rows``; some are given what writes texts."""

from lcx.eval.api import Apply, Context, EvalConfig, Generate, RulerConfig
from lcx.eval.needle import Needle
from lcx.eval.perplexity import Perplexity
from lcx.eval.ruler import Ruler, make_ruler
from lcx.eval.task import TaskAccuracy, TaskSizes, passkey, trained_task, trained_task_sizes
from lcx.eval.windows import WindowPerplexity

EVALUATORS = {
    'perplexity': Perplexity,
    'window_perplexity': WindowPerplexity,
    'passkey': passkey,
    'needle': Needle,
    'task': trained_task,
    'task_sizes': trained_task_sizes,
    'ruler': make_ruler,
}

__all__ = [
    'EVALUATORS',
    'Apply',
    'Context',
    'EvalConfig',
    'Generate',
    'Needle',
    'Perplexity',
    'Ruler',
    'RulerConfig',
    'TaskAccuracy',
    'TaskSizes',
    'WindowPerplexity',
    'make_ruler',
    'passkey',
    'trained_task',
    'trained_task_sizes',
]
