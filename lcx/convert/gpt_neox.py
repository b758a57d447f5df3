"""GPT-NeoX and Pythia: LayerNorm, biases, a feed-forward without gate, blocks in parallel, a part of each head rotates.

q, k and v of each head lie together in one matrix.
"""

from __future__ import annotations

import dataclasses
from typing import Any

from lcx.convert import family
from lcx.convert.family import Family, Rope
from lcx.convert.tensors import row
from lcx.errors import ConfigError
from lcx.models import ModelConfig


@dataclasses.dataclass(frozen=True, kw_only=True)
class NeoxFields(Rope):
    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    layer_norm_eps: float = 1e-5
    tie_word_embeddings: bool = False
    hidden_act: str = 'gelu'
    use_parallel_residual: bool = True
    attention_bias: bool = True
    rotary_pct: float | None = None  # names of transformers 4
    rotary_emb_base: float | None = None


def read(fields: NeoxFields) -> dict[str, Any]:
    heads = fields.num_attention_heads
    if heads < 1 or fields.hidden_size % heads:
        raise ConfigError(
            f'num_attention_heads: {heads!r} does not divide hidden_size {fields.hidden_size!r}.'
        )
    fraction = 0.25 if fields.rotary_pct is None else fields.rotary_pct
    return {
        'vocab': fields.vocab_size,
        'width': fields.hidden_size,
        'hidden': fields.intermediate_size,
        'layers': fields.num_hidden_layers,
        'heads': heads,
        'kv_heads': heads,
        'head_dim': fields.hidden_size // heads,
        'norm_eps': fields.layer_norm_eps,
        'tie_embeddings': fields.tie_word_embeddings,
        'trained_length': fields.max_position_embeddings,
        'norm': 'layer',
        'gated': False,
        'activation': family.activation(fields.hidden_act),
        'parallel_residual': fields.use_parallel_residual,
        'bias': ('qkv', 'out') * fields.attention_bias + ('feed_forward',),
        'position': family.read_position(fields, theta=fields.rotary_emb_base or 10000.0, fraction=fraction),
    }


def write(config: ModelConfig, length: int | None) -> dict[str, Any]:
    family.write_types(config)
    rope, limit = family.write_position(config, length, config.depth[0], partial=True)
    rope.setdefault('partial_rotary_factor', 1.0)  # absent means a quarter here
    return {
        'vocab_size': config.vocab,
        'hidden_size': config.width,
        'intermediate_size': config.hidden,
        'num_hidden_layers': config.layers,
        'num_attention_heads': config.heads,
        'layer_norm_eps': config.norm_eps,
        'tie_word_embeddings': config.tie_embeddings,
        'hidden_act': family.named(config),
        'use_parallel_residual': config.parallel_residual,
        'attention_bias': 'qkv' in config.bias,
        'rope_parameters': rope,
        'max_position_embeddings': limit,
    }


def _joined(kind: str, axes: str, in_file: str) -> tuple:
    leaves = ((f'mixer/{name}/{kind}', axes) for name in ('query', 'key', 'value'))
    weight = {'kernel': 'weight', 'bias': 'bias'}[kind]
    return row(f'gpt_neox.layers.{{}}.attention.query_key_value.{weight}', in_file, *leaves)


TABLE = (
    row('gpt_neox.embed_in.weight', 'V D', ('embedding', 'V D')),
    row('gpt_neox.final_layer_norm.weight', 'D', ('final_norm/scale', 'D')),
    row('gpt_neox.final_layer_norm.bias', 'D', ('final_norm/bias', 'D')),
    row('embed_out.weight', 'V D', ('output', 'V D')),
    row('gpt_neox.layers.{}.input_layernorm.weight', 'D', ('mixer_norm/scale', 'D')),
    row('gpt_neox.layers.{}.input_layernorm.bias', 'D', ('mixer_norm/bias', 'D')),
    row('gpt_neox.layers.{}.post_attention_layernorm.weight', 'D', ('feed_forward_norm/scale', 'D')),
    row('gpt_neox.layers.{}.post_attention_layernorm.bias', 'D', ('feed_forward_norm/bias', 'D')),
    _joined('kernel', 'D N H', '(N X H) D'),
    _joined('bias', 'N H', '(N X H)'),
    row('gpt_neox.layers.{}.attention.dense.weight', 'D (N H)', ('mixer/out/kernel', 'N H D')),
    row('gpt_neox.layers.{}.attention.dense.bias', 'D', ('mixer/out/bias', 'D')),
    row('gpt_neox.layers.{}.mlp.dense_h_to_4h.weight', 'F D', ('feed_forward/up/kernel', 'D F')),
    row('gpt_neox.layers.{}.mlp.dense_h_to_4h.bias', 'F', ('feed_forward/up/bias', 'F')),
    row('gpt_neox.layers.{}.mlp.dense_4h_to_h.weight', 'D F', ('feed_forward/down/kernel', 'F D')),
    row('gpt_neox.layers.{}.mlp.dense_4h_to_h.bias', 'D', ('feed_forward/down/bias', 'D')),
)

GPT_NEOX = Family(
    'gpt_neox', NeoxFields, read, write, TABLE,
    ignored=('.attention.bias', '.attention.masked_bias', '.rotary_emb.inv_freq'), prefix='gpt_neox.',
)  # fmt: skip
