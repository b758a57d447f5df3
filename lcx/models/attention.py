"""The attention mixer: softmax attention with whatever positions, rule, regions and kernel its layer kind names."""

from __future__ import annotations

import flax.linen as nn
import jax

from lcx.attention import regions
from lcx.models.config import ModelConfig
from lcx.models.layers import from_heads, queries_keys_values
from lcx.positions import Position
from lcx.positions.api import sharpened
from lcx.types import Array, Float, Tree, Where


class Attention(nn.Module):
    """Grouped-query self-attention (arXiv 2305.13245) of one layer kind.

    ``position`` and its ``tables`` come from the decoder, which computes them once per forward pass.
    """

    config: ModelConfig
    kind: str

    @nn.compact
    def __call__(
        self, x: Float[Array, 'B T D'], where: Where, position: Position, position_params: Tree, tables: Tree
    ) -> Float[Array, 'B T D']:
        config, kind = self.config, self.config.kinds[self.kind]
        q, k, v = queries_keys_values(config, x)

        def turned(q_pos: Array, k_pos: Array, q_tables: Tree, k_tables: Tree) -> tuple[Array, Array]:
            sharp = sharpened(position, position_params, q, where.q_pos)
            sharp = (
                sharp if position.query is None else position.query(position_params, sharp, q_pos, q_tables)
            )
            return (
                sharp.astype(q.dtype),
                k if position.key is None else position.key(position_params, k, k_pos, k_tables),
            )

        bias = None if position.bias is None else jax.tree_util.Partial(position.bias, position_params)
        rest, split = (v, where, kind.read_rule(), bias), kind.read_regions()
        scores = {'scale': config.attention_scale, 'softcap': config.attention_softcap}
        if split:
            sides = [turned(r.query(where.q_pos), r.key(where.k_pos), *t) for r, t in zip(split, tables)]
            y = regions.attend(kind.read_partial(), split, sides, *rest, **scores)
        else:
            y = kind.read_attention()(*turned(where.q_pos, where.k_pos, tables, tables), *rest, **scores)
        return from_heads(config, y)
