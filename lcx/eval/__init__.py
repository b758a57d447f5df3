"""Evaluators: small objects with a name and ``run(apply, params) -> rows``; some are given what writes texts."""

from lcx.eval.api import (
    Apply,
    Context,
    EvalConfig,
    Generate,
    HarnessConfig,
    LongBenchConfig,
    LongPPLConfig,
    Reader,
    RulerConfig,
    SlidingConfig,
)
from lcx.eval.harness import Harness
from lcx.eval.longbench import LongBench
from lcx.eval.longppl import LongPPL
from lcx.eval.needle import Needle
from lcx.eval.perplexity import Perplexity
from lcx.eval.ruler import Ruler, make_ruler
from lcx.eval.sliding import Documents, document_bits, sliding_perplexity
from lcx.eval.task import TaskAccuracy, TaskSizes, passkey, trained_task, trained_task_sizes
from lcx.eval.windows import WindowPerplexity

EVALUATORS = {
    'perplexity': Perplexity,
    'window_perplexity': WindowPerplexity,
    'sliding_perplexity': sliding_perplexity,
    'document_bits': document_bits,
    'longppl': LongPPL,
    'passkey': passkey,
    'needle': Needle,
    'task': trained_task,
    'task_sizes': trained_task_sizes,
    'ruler': make_ruler,
    'longbench': LongBench,
    'harness': Harness,
}

__all__ = [
    'EVALUATORS',
    'Apply',
    'Context',
    'Documents',
    'EvalConfig',
    'Generate',
    'Harness',
    'HarnessConfig',
    'LongBench',
    'LongBenchConfig',
    'LongPPL',
    'LongPPLConfig',
    'Needle',
    'Perplexity',
    'Reader',
    'Ruler',
    'RulerConfig',
    'SlidingConfig',
    'TaskAccuracy',
    'TaskSizes',
    'WindowPerplexity',
    'document_bits',
    'make_ruler',
    'passkey',
    'sliding_perplexity',
    'trained_task',
    'trained_task_sizes',
]
