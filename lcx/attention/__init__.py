"""Attention over keys: rules, the dense reference and the implementations that equal it.

from lcx.attention import ATTENTION, both, causal, same_segment
out = ATTENTION['blockwise'](q, k, v, where, both(causal, same_segment))

``dense`` and ``blockwise`` do everything; the others are fused kernels, each of which says what it cannot do.
"""

from lcx.attention import (
    blockwise,
    cope,
    dense,
    dual_chunk,
    jax_nn,
    lm_infinite,
    rerope,
    self_extend,
    splash,
    streaming,
    tokamax,
)
from lcx.attention.masks import (
    Band,
    Bounds,
    Reach,
    Rule,
    both,
    causal,
    distance,
    either,
    everything,
    prefix,
    same_segment,
    sinks,
    window,
)
from lcx.attention.patterns import (
    chunk_distance,
    chunked,
    dilated,
    global_tokens,
    random_blocks,
    shifted_groups,
    strided,
)
from lcx.attention.regions import Region
from lcx.attention.rules import RULES

ATTENTION = {
    'dense': dense.attend,
    'blockwise': blockwise.attend,
    'xla': jax_nn.xla,
    'cudnn': jax_nn.cudnn,
    'tokamax': tokamax.attend,
    'splash': splash.attend,
}

# Those that also give the log-sum-exp, by which attention over parts of the keys merges.
PARTIAL = {'dense': dense.partial, 'blockwise': blockwise.partial}

# And those that give the gradients over parts of the keys, so that a backward pass need not keep them all.
GRADIENTS = {'dense': dense.gradients, 'blockwise': blockwise.gradients}

# Contextual positions take a table besides: attend(q, k, v, where, rule, table).
COPE = {'dense': cope.dense, 'blockwise': cope.blockwise}

REGIONS = {
    'self_extend': self_extend.self_extend,
    'rerope': rerope.rerope,
    'leaky_rerope': rerope.leaky_rerope,
    'dual_chunk': dual_chunk.dual_chunk,
    'lm_infinite': lm_infinite.lm_infinite,
    'streaming': streaming.streaming,
}

# What has positions of its own in the scores, not in the vectors: regions, and the mixer of CoPE.
ABOUT = {
    'self_extend': self_extend.ABOUT,
    'rerope': rerope.ABOUT,
    'leaky_rerope': rerope.LEAKY_ABOUT,
    'dual_chunk': dual_chunk.ABOUT,
    'lm_infinite': lm_infinite.ABOUT,
    'streaming': streaming.ABOUT,
    'cope': cope.ABOUT,
}

__all__ = [
    'ABOUT',
    'ATTENTION',
    'COPE',
    'GRADIENTS',
    'PARTIAL',
    'REGIONS',
    'RULES',
    'Band',
    'Bounds',
    'Reach',
    'Region',
    'Rule',
    'both',
    'causal',
    'chunk_distance',
    'chunked',
    'dilated',
    'distance',
    'either',
    'everything',
    'global_tokens',
    'prefix',
    'random_blocks',
    'same_segment',
    'shifted_groups',
    'sinks',
    'strided',
    'window',
]
