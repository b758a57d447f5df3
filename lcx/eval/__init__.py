"""Evaluators: small objects with a name and ``run(apply, params) -> rows``."""

from lcx.eval.api import Apply, Context, EvalConfig
from lcx.eval.needle import Needle
from lcx.eval.perplexity import Perplexity
from lcx.eval.ruler import Ruler, make_ruler
from lcx.eval.task import TaskAccuracy, passkey, trained_task
from lcx.eval.windows import WindowPerplexity

EVALUATORS = {
    'perplexity': Perplexity,
    'window_perplexity': WindowPerplexity,
    'passkey': passkey,
    'needle': Needle,
    'task': trained_task,
}

__all__ = [
    'EVALUATORS',
    'Apply',
    'Context',
    'EvalConfig',
    'Needle',
    'Perplexity',
    'Ruler',
    'TaskAccuracy',
    'WindowPerplexity',
    'make_ruler',
    'passkey',
    'trained_task',
]
