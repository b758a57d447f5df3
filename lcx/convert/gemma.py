"""Gemma 2, and the text models of Gemma 3 (Gemma3ForCausalLM).

GeGLU, norms by 1 + w before and after each part of a block, embeddings times sqrt(D), scores of a scale of their own,
layers with a window between those without. Gemma 2 caps scores and logits; Gemma 3 norms q and k instead, and its
layers with a window have a RoPE base of their own.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from lcx.config import Options
from lcx.convert import family, llama
from lcx.convert.family import FULL, SLIDING, Family, Fields
from lcx.convert.tensors import row
from lcx.errors import ConfigError
from lcx.models import ModelConfig


@dataclasses.dataclass(frozen=True, kw_only=True)
class Gemma2Fields(Fields):
    num_key_value_heads: int | None = 4
    head_dim: int | None = 256
    tie_word_embeddings: bool = True
    hidden_activation: str = 'gelu_pytorch_tanh'
    attention_bias: bool = False
    query_pre_attn_scalar: float = 256.0
    sliding_window: int | None = 4096
    layer_types: tuple[str, ...] | None = None
    final_logit_softcapping: float | None = 30.0
    attn_logit_softcapping: float | None = 50.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class Gemma3Fields(Gemma2Fields):
    final_logit_softcapping: float | None = None
    attn_logit_softcapping: float | None = None
    rope_local_base_freq: float | None = None
    sliding_window_pattern: int = 6


def read(fields: Gemma2Fields) -> dict[str, Any]:
    if not fields.query_pre_attn_scalar > 0:
        raise ConfigError(f'query_pre_attn_scalar: {fields.query_pre_attn_scalar!r} must be greater than 0.')
    return {
        **family.sizes(fields),
        'norm': 'rms_plus_one',
        'post_norms': True,
        'activation': family.activation(fields.hidden_activation, 'hidden_activation'),
        'bias': ('qkv', 'out') * fields.attention_bias,
        'embedding_scale': fields.hidden_size**0.5,
        'attention_scale': fields.query_pre_attn_scalar**-0.5,
        'softcap': fields.final_logit_softcapping,
        'attention_softcap': fields.attn_logit_softcapping,
    }


def read_gemma2(fields: Gemma2Fields) -> dict[str, Any]:
    types = family.checked_types(fields.layer_types, fields.num_hidden_layers, lambda layer: layer % 2 == 0)
    return {
        **read(fields),
        **family.layer_kinds(types, fields.sliding_window),
        'position': family.read_position(fields),
    }


def read_gemma3(fields: Gemma3Fields) -> dict[str, Any]:
    every = fields.sliding_window_pattern
    if every < 1:
        raise ConfigError(f'sliding_window_pattern: {every!r} must be greater than 0.')
    types = family.checked_types(
        fields.layer_types, fields.num_hidden_layers, lambda layer: (layer + 1) % every != 0
    )
    given = fields.rope_parameters or Options({FULL: fields.rope_scaling or Options()})
    for name in given:
        if name not in (FULL, SLIDING):
            raise ConfigError(f'rope_parameters.{name}: Gemma 3 has those of {FULL!r} and {SLIDING!r}.')
        if not isinstance(given[name] or {}, Mapping):
            raise ConfigError(f'rope_parameters.{name}: {given[name]!r}; expected named fields.')
    bases = {FULL: fields.rope_theta or 1e6, SLIDING: fields.rope_local_base_freq or 1e4}
    positions = {
        name: family.read_position(fields, given.get(name) or Options(), theta=theta)
        for name, theta in bases.items()
    }
    return {
        **read(fields),
        **family.layer_kinds(types, fields.sliding_window, {SLIDING: positions[SLIDING]}),
        'qk_norm': True,
        'position': positions[FULL],
    }


def write(config: ModelConfig) -> dict[str, Any]:
    types, window = family.write_types(config)
    scale = config.head_dim**-0.5 if config.attention_scale is None else config.attention_scale
    return {
        **family.write_sizes(config),
        'hidden_activation': family.named(config, 'gelu_pytorch_tanh'),
        'attention_bias': 'qkv' in config.bias,
        'query_pre_attn_scalar': round(scale**-2),
        'layer_types': types,
        'sliding_window': window,
        'final_logit_softcapping': config.softcap,
        'attn_logit_softcapping': config.attention_softcap,
    }


def write_gemma2(config: ModelConfig, length: int | None) -> dict[str, Any]:
    rope, limit = family.write_position(config, length, config.depth[0])
    return {**write(config), 'rope_parameters': rope, 'max_position_embeddings': limit}


def write_gemma3(config: ModelConfig, length: int | None) -> dict[str, Any]:
    fields = write(config)
    first = {name: kind for name, kind in reversed(list(zip(fields['layer_types'], config.depth)))}
    ropes = {name: family.write_position(config, length, kind) for name, kind in first.items()}
    return {
        **fields,
        'rope_parameters': {name: rope for name, (rope, _) in ropes.items()},
        'max_position_embeddings': max(limit for _, limit in ropes.values()),
    }


NORMS = (
    row('model.layers.{}.input_layernorm.weight', 'D', ('mixer_norm/scale', 'D')),
    row('model.layers.{}.post_attention_layernorm.weight', 'D', ('mixer_post_norm/scale', 'D')),
    row('model.layers.{}.pre_feedforward_layernorm.weight', 'D', ('feed_forward_norm/scale', 'D')),
    row('model.layers.{}.post_feedforward_layernorm.weight', 'D', ('feed_forward_post_norm/scale', 'D')),
)
TABLE = (*llama.ENDS, *NORMS, *llama.ATTENTION, *llama.FEED_FORWARD)
NEUTRAL = {'use_bidirectional_attention': (None, False)}

GEMMA2 = Family('gemma2', Gemma2Fields, read_gemma2, write_gemma2, TABLE, neutral=NEUTRAL)
GEMMA3 = Family(
    'gemma3_text', Gemma3Fields, read_gemma3, write_gemma3, TABLE,
    neutral={**NEUTRAL, 'attn_logit_softcapping': (None,)},
)  # fmt: skip
