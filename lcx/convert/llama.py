"""Llama 1 to 3 and SmolLM2 (LlamaForCausalLM), and Mistral: Llama with a window.

RMSNorm, SwiGLU, grouped heads; biases only where the config says so. Both rotate by halves, as we do.
"""

from __future__ import annotations

import dataclasses
from typing import Any

from lcx.convert import family
from lcx.convert.family import FULL, SLIDING, Family, Fields
from lcx.convert.tensors import Tensor, row
from lcx.models import ModelConfig


@dataclasses.dataclass(frozen=True, kw_only=True)
class LlamaFields(Fields):
    hidden_act: str = 'silu'
    attention_bias: bool = False
    mlp_bias: bool = False


@dataclasses.dataclass(frozen=True, kw_only=True)
class MistralFields(Fields):
    num_key_value_heads: int | None = 8
    hidden_act: str = 'silu'
    sliding_window: int | None = 4096


def read_llama(fields: LlamaFields) -> dict[str, Any]:
    bias = ('qkv', 'out') * fields.attention_bias + ('feed_forward',) * fields.mlp_bias
    return {
        **family.sizes(fields),
        'activation': family.activation(fields.hidden_act),
        'bias': bias,
        'position': family.read_position(fields),
    }


def write_llama(config: ModelConfig, length: int | None) -> dict[str, Any]:
    family.write_types(config)
    rope, limit = family.write_position(config, length, config.depth[0])
    return {
        **family.write_sizes(config),
        'hidden_act': family.named(config),
        'attention_bias': 'qkv' in config.bias,
        'mlp_bias': 'feed_forward' in config.bias,
        'rope_parameters': rope,
        'max_position_embeddings': limit,
    }


def read_mistral(fields: MistralFields) -> dict[str, Any]:
    return {
        **family.sizes(fields),
        **family.layer_kinds([SLIDING if fields.sliding_window else FULL], fields.sliding_window),
        'activation': family.activation(fields.hidden_act),
        'position': family.read_position(fields),
    }


def write_mistral(config: ModelConfig, length: int | None) -> dict[str, Any]:
    rope, limit = family.write_position(config, length, config.depth[0])
    return {
        **family.write_sizes(config),
        'hidden_act': family.named(config),
        'sliding_window': family.one_window(config),
        'rope_parameters': rope,
        'max_position_embeddings': limit,
    }


ENDS = (
    row('model.embed_tokens.weight', 'V D', ('embedding', 'V D')),
    row('model.norm.weight', 'D', ('final_norm/scale', 'D')),
    row('lm_head.weight', 'V D', ('output', 'V D')),
)
NORMS = (
    row('model.layers.{}.input_layernorm.weight', 'D', ('mixer_norm/scale', 'D')),
    row('model.layers.{}.post_attention_layernorm.weight', 'D', ('feed_forward_norm/scale', 'D')),
)
OUT = row('model.layers.{}.self_attn.o_proj.weight', 'D (N H)', ('mixer/out/kernel', 'N H D'))
DOWN = row('model.layers.{}.mlp.down_proj.weight', 'D F', ('feed_forward/down/kernel', 'F D'))
ATTENTION = (
    row('model.layers.{}.self_attn.q_proj.weight', '(N H) D', ('mixer/query/kernel', 'D N H')),
    row('model.layers.{}.self_attn.k_proj.weight', '(K H) D', ('mixer/key/kernel', 'D K H')),
    row('model.layers.{}.self_attn.v_proj.weight', '(K H) D', ('mixer/value/kernel', 'D K H')),
    OUT,
    row('model.layers.{}.self_attn.q_proj.bias', '(N H)', ('mixer/query/bias', 'N H')),
    row('model.layers.{}.self_attn.k_proj.bias', '(K H)', ('mixer/key/bias', 'K H')),
    row('model.layers.{}.self_attn.v_proj.bias', '(K H)', ('mixer/value/bias', 'K H')),
    row('model.layers.{}.self_attn.o_proj.bias', 'D', ('mixer/out/bias', 'D')),
    row('model.layers.{}.self_attn.q_norm.weight', 'H', ('mixer/query_norm/scale', 'H')),
    row('model.layers.{}.self_attn.k_norm.weight', 'H', ('mixer/key_norm/scale', 'H')),
)
FEED_FORWARD = (
    row('model.layers.{}.mlp.gate_proj.weight', 'F D', ('feed_forward/gate/kernel', 'D F')),
    row('model.layers.{}.mlp.up_proj.weight', 'F D', ('feed_forward/up/kernel', 'D F')),
    DOWN,
    row('model.layers.{}.mlp.gate_proj.bias', 'F', ('feed_forward/gate/bias', 'F')),
    row('model.layers.{}.mlp.up_proj.bias', 'F', ('feed_forward/up/bias', 'F')),
    row('model.layers.{}.mlp.down_proj.bias', 'D', ('feed_forward/down/bias', 'D')),
)
TABLE: tuple[Tensor, ...] = (*ENDS, *NORMS, *ATTENTION, *FEED_FORWARD)

LLAMA = Family('llama', LlamaFields, read_llama, write_llama, TABLE, neutral={'pretraining_tp': (None, 1)})
MISTRAL = Family(
    'mistral', MistralFields, read_mistral, write_mistral, TABLE, neutral={'layer_types': (None,)}
)
