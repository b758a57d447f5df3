"""GPT-2: learned positions, LayerNorm, biases, a feed-forward without gate; matrices are [inputs, outputs]."""

from __future__ import annotations

import dataclasses
from typing import Any

from lcx.config import Options
from lcx.convert import family
from lcx.convert.family import Family
from lcx.convert.tensors import row
from lcx.errors import ConfigError
from lcx.models import ModelConfig
from lcx.positions.extension import stretch


@dataclasses.dataclass(frozen=True, kw_only=True)
class Gpt2Fields:
    vocab_size: int
    n_positions: int
    n_embd: int
    n_layer: int
    n_head: int
    n_inner: int | None = None
    activation_function: str = 'gelu_new'
    layer_norm_epsilon: float = 1e-5
    tie_word_embeddings: bool = True


def read(fields: Gpt2Fields) -> dict[str, Any]:
    heads = fields.n_head
    if heads < 1 or fields.n_embd % heads:
        raise ConfigError(f'n_head: {heads!r} does not divide n_embd {fields.n_embd!r}.')
    return {
        'vocab': fields.vocab_size,
        'width': fields.n_embd,
        'hidden': 4 * fields.n_embd if fields.n_inner is None else fields.n_inner,
        'layers': fields.n_layer,
        'heads': heads,
        'kv_heads': heads,
        'head_dim': fields.n_embd // heads,
        'norm_eps': fields.layer_norm_epsilon,
        'tie_embeddings': fields.tie_word_embeddings,
        'trained_length': fields.n_positions,
        'norm': 'layer',
        'gated': False,
        'activation': family.activation(fields.activation_function, 'activation_function'),
        'bias': ('qkv', 'out', 'feed_forward'),
        'position': Options(name='learned'),
    }


def write(config: ModelConfig, length: int | None) -> dict[str, Any]:
    family.write_types(config)
    options = config.position_of(config.depth[0])
    if options['name'] != 'learned':
        raise ConfigError(f'position.name: {options["name"]!r}; GPT-2 has learned positions.')
    given = options.get('factor'), options.get('original_length')
    factor, rows = stretch(
        *given, length=length or config.trained_length, trained_length=config.trained_length
    )
    if factor != 1:
        raise ConfigError(
            f'position.factor: {factor!r}; a table that is read between its rows has no place there.'
        )
    return {
        'vocab_size': config.vocab,
        'n_positions': rows,
        'n_embd': config.width,
        'n_layer': config.layers,
        'n_head': config.heads,
        'n_inner': config.hidden,
        'activation_function': family.named(config, 'gelu_new'),
        'layer_norm_epsilon': config.norm_eps,
        'tie_word_embeddings': config.tie_embeddings,
    }


def _joined(kind: str, axes: str, in_file: str) -> tuple:
    leaves = ((f'mixer/{name}/{kind}', axes) for name in ('query', 'key', 'value'))
    weight = {'kernel': 'weight', 'bias': 'bias'}[kind]
    return row(f'transformer.h.{{}}.attn.c_attn.{weight}', in_file, *leaves)


TABLE = (
    row('transformer.wte.weight', 'V D', ('embedding', 'V D')),
    row('transformer.wpe.weight', 'T D', ('position_full/table', 'T D')),
    row('transformer.ln_f.weight', 'D', ('final_norm/scale', 'D')),
    row('transformer.ln_f.bias', 'D', ('final_norm/bias', 'D')),
    row('lm_head.weight', 'V D', ('output', 'V D')),
    row('transformer.h.{}.ln_1.weight', 'D', ('mixer_norm/scale', 'D')),
    row('transformer.h.{}.ln_1.bias', 'D', ('mixer_norm/bias', 'D')),
    row('transformer.h.{}.ln_2.weight', 'D', ('feed_forward_norm/scale', 'D')),
    row('transformer.h.{}.ln_2.bias', 'D', ('feed_forward_norm/bias', 'D')),
    _joined('kernel', 'D N H', 'D (X N H)'),
    _joined('bias', 'N H', '(X N H)'),
    row('transformer.h.{}.attn.c_proj.weight', '(N H) D', ('mixer/out/kernel', 'N H D')),
    row('transformer.h.{}.attn.c_proj.bias', 'D', ('mixer/out/bias', 'D')),
    row('transformer.h.{}.mlp.c_fc.weight', 'D F', ('feed_forward/up/kernel', 'D F')),
    row('transformer.h.{}.mlp.c_fc.bias', 'F', ('feed_forward/up/bias', 'F')),
    row('transformer.h.{}.mlp.c_proj.weight', 'F D', ('feed_forward/down/kernel', 'F D')),
    row('transformer.h.{}.mlp.c_proj.bias', 'D', ('feed_forward/down/bias', 'D')),
)
NEUTRAL = {
    'scale_attn_weights': (True,),
    'scale_attn_by_inverse_layer_idx': (False,),
    'add_cross_attention': (False,),
}

GPT2 = Family(
    'gpt2', Gpt2Fields, read, write, TABLE,
    ignored=('.attn.bias', '.attn.masked_bias'), neutral=NEUTRAL, prefix='transformer.',
)  # fmt: skip
