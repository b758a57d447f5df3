"""Evaluators: small objects with a name and ``run(apply, params) -> rows``."""

from lcx.eval.api import Apply, Context, EvalConfig
from lcx.eval.passkey import PasskeyRetrieval
from lcx.eval.perplexity import Perplexity

EVALUATORS = {'perplexity': Perplexity, 'passkey': PasskeyRetrieval}

__all__ = ['EVALUATORS', 'Apply', 'Context', 'EvalConfig', 'PasskeyRetrieval', 'Perplexity']
