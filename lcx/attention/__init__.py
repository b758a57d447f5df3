"""Attention over keys: rules, the dense reference and the implementations that equal it.

from lcx.attention import ATTENTION, both, causal, same_segment
out = ATTENTION['blockwise'](q, k, v, where, both(causal, same_segment))
"""

from lcx.attention import blockwise, dense
from lcx.attention.masks import (
    RULES,
    Bounds,
    Rule,
    both,
    causal,
    either,
    everything,
    prefix,
    same_segment,
    sinks,
    window,
)

ATTENTION = {'dense': dense.attend, 'blockwise': blockwise.attend}

__all__ = [
    'ATTENTION',
    'RULES',
    'Bounds',
    'Rule',
    'both',
    'causal',
    'either',
    'everything',
    'prefix',
    'same_segment',
    'sinks',
    'window',
]
