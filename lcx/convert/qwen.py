"""Qwen2 and Qwen2.5 (Qwen2ForCausalLM): Llama with biases of q, k and v; and Qwen3, which norms q and k instead.

Either may have a window in the layers from ``max_window_layers`` on, where ``use_sliding_window``.
"""

from __future__ import annotations

import dataclasses
from typing import Any

from lcx.convert import family, llama
from lcx.convert.family import SLIDING, Family, Fields
from lcx.models import ModelConfig


@dataclasses.dataclass(frozen=True, kw_only=True)
class Qwen2Fields(Fields):
    hidden_act: str = 'silu'
    use_sliding_window: bool = False
    sliding_window: int | None = 4096
    max_window_layers: int = 28
    layer_types: tuple[str, ...] | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Qwen3Fields(Qwen2Fields):
    head_dim: int | None = 128
    attention_bias: bool = False


def read(fields: Qwen2Fields) -> dict[str, Any]:
    window = fields.sliding_window if fields.use_sliding_window else None
    types = family.checked_types(
        fields.layer_types,
        fields.num_hidden_layers,
        lambda layer: window is not None and layer >= fields.max_window_layers,
    )
    return {
        **family.sizes(fields),
        **family.layer_kinds(types, window),
        'activation': family.activation(fields.hidden_act),
        'position': family.read_position(fields),
    }


def read_qwen2(fields: Qwen2Fields) -> dict[str, Any]:
    return {**read(fields), 'bias': ('qkv',)}


def read_qwen3(fields: Qwen3Fields) -> dict[str, Any]:
    return {**read(fields), 'bias': ('qkv', 'out') * fields.attention_bias, 'qk_norm': True}


def write_qwen2(config: ModelConfig, length: int | None) -> dict[str, Any]:
    types, window = family.write_types(config)
    rope, limit = family.write_position(config, length, config.depth[0])
    return {
        **family.write_sizes(config),
        'hidden_act': family.named(config),
        'use_sliding_window': SLIDING in types,
        'sliding_window': window,
        'layer_types': types,
        'rope_parameters': rope,
        'max_position_embeddings': limit,
    }


def write_qwen3(config: ModelConfig, length: int | None) -> dict[str, Any]:
    return {**write_qwen2(config, length), 'attention_bias': 'qkv' in config.bias}


QWEN2 = Family('qwen2', Qwen2Fields, read_qwen2, write_qwen2, llama.TABLE)
QWEN3 = Family('qwen3', Qwen3Fields, read_qwen3, write_qwen3, llama.TABLE)
