"""Phi-3 and Phi-4-mini (Phi3ForCausalLM): Llama with q, k, v joined in one matrix, gate and up in another; LongRoPE."""

from __future__ import annotations

import dataclasses
from typing import Any

from lcx.convert import family, llama
from lcx.convert.family import FULL, SLIDING, Family, Fields
from lcx.convert.tensors import row
from lcx.errors import ConfigError
from lcx.models import ModelConfig


@dataclasses.dataclass(frozen=True, kw_only=True)
class Phi3Fields(Fields):
    original_max_position_embeddings: int | None = 4096
    rms_norm_eps: float = 1e-5
    hidden_act: str = 'silu'
    sliding_window: int | None = None


def read(fields: Phi3Fields) -> dict[str, Any]:
    position = family.read_position(fields, fraction=1.0)
    _check(position['name'])
    return {
        **family.sizes(fields),
        **family.layer_kinds([SLIDING if fields.sliding_window else FULL], fields.sliding_window),
        'activation': family.activation(fields.hidden_act),
        'position': position,
    }


def write(config: ModelConfig, length: int | None) -> dict[str, Any]:
    rope, limit = family.write_position(config, length, config.depth[0], partial=True)
    _check({'default': 'rope'}.get(rope['rope_type'], rope['rope_type']))
    return {
        **family.write_sizes(config),
        'hidden_act': family.named(config),
        'sliding_window': family.one_window(config),
        'rope_parameters': rope,
        'original_max_position_embeddings': rope.get('original_max_position_embeddings', limit),
        'max_position_embeddings': limit,
    }


def _check(name: str) -> None:
    if name not in ('rope', 'longrope'):
        raise ConfigError(f'position: {name!r}; Phi-3 knows rope and longrope alone.')


TABLE = (
    *llama.ENDS,
    *llama.NORMS,
    row(
        'model.layers.{}.self_attn.qkv_proj.weight', '(X H) D',
        ('mixer/query/kernel', 'D X H'), ('mixer/key/kernel', 'D X H'), ('mixer/value/kernel', 'D X H'),
    ),
    llama.OUT,
    row(
        'model.layers.{}.mlp.gate_up_proj.weight', '(X F) D',
        ('feed_forward/gate/kernel', 'D F'), ('feed_forward/up/kernel', 'D F'),
    ),
    llama.DOWN,
)  # fmt: skip

NEUTRAL = {
    name: (None, False) for name in ('attention_bias', 'mlp_bias', 'lm_head_bias')
}  # of Phi-4-mini's own code

PHI3 = Family('phi3', Phi3Fields, read, write, TABLE, neutral=NEUTRAL)
