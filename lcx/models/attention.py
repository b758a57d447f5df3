"""The attention mixer: softmax attention with whatever positions, rule, regions and kernel its layer kind names."""

from __future__ import annotations

from collections.abc import Callable

import flax.linen as nn
import jax

from lcx.attention import cached, masks, regions
from lcx.models.cache import Cache, Entry, Memory
from lcx.models.config import ModelConfig
from lcx.models.layers import from_heads, keeps_raw, queries_keys_values, tables_at
from lcx.positions import Position
from lcx.positions.api import sharpened
from lcx.types import Array, Float, Int, Tree, Where

PLAIN = regions.Region(masks.everything, regions.as_they_are, regions.as_they_are)


class Attention(nn.Module):
    """Grouped-query self-attention (arXiv 2305.13245) of one layer kind.

    ``position`` and its ``tables`` come from the decoder, which computes them once per forward pass.
    """

    config: ModelConfig
    kind: str

    @nn.compact
    def __call__(
        self,
        x: Float[Array, 'B T D'],
        where: Where,
        position: Position,
        position_params: Tree,
        tables: Tree,
        memory: Memory | None,
    ) -> tuple[Float[Array, 'B T D'], Cache | None]:
        config, kind = self.config, self.config.kinds[self.kind]
        q, k, v = queries_keys_values(config, x)
        if position.own:
            position_params = self.param('position', _boxed(position.init))
        sharp = sharpened(position, position_params, q, where.q_pos)

        def query(pos: Array, tables: Tree) -> Array:
            y = sharp if position.query is None else position.query(position_params, sharp, pos, tables)
            return y.astype(q.dtype)

        def key(k: Array, pos: Array, tables: Tree) -> Array:
            return k if position.key is None else position.key(position_params, k, pos, tables)

        bias = None if position.bias is None else jax.tree_util.Partial(position.bias, position_params)
        split, rule, cache = kind.read_regions(), kind.read_rule(), None
        scale = config.head_dim**-0.5 if config.attention_scale is None else config.attention_scale
        rest = {'bias': bias, 'scale': scale, 'softcap': config.attention_softcap}
        if memory is not None:
            paired = tuple(zip(split, tables)) if split else ((PLAIN, (tables, tables)),)
            raw = keeps_raw(kind, position)
            if not raw:
                (region, (_, k_tables)), *_ = paired  # all turn keys alike
                k = key(k, region.key(where.k_pos), k_tables)

            def turned(region: regions.Region) -> Callable | None:
                """What turns keys when they are read, those of a block with its tables, or without."""

                def turn(k: Array, pos: Int[Array, 'B S'], tables: Tree) -> Array:
                    pos, newest = region.key(pos), memory.cache.newest
                    own = tables_at(position, position_params, pos, newest) if tables is None else tables
                    return key(k, pos, own)

                return turn if raw else None

            slots = memory.tables or (None,) * len(paired)
            sides = tuple(
                cached.Side(masks.both(rule, r.rule), query(r.query(where.q_pos), q_tables), turned(r), own)
                for (r, (q_tables, _)), own in zip(paired, slots)
            )
            asked = cached.Query(sides, where.q_pos, where.q_seg, where.heads, **rest)
            y, cache = remembered(memory, Entry(k, v, where.q_pos, where.q_seg), asked)
        elif split:
            sides = [
                (query(r.query(where.q_pos), q_tables), key(k, r.key(where.k_pos), k_tables))
                for r, (q_tables, k_tables) in zip(split, tables)
            ]
            y = regions.attend(kind.read_partial(), split, sides, v, where, rule, **rest)
        else:
            sides = query(where.q_pos, tables), key(k, where.k_pos, tables)
            y = kind.read_attention()(*sides, v, where, rule, **rest)
        return from_heads(config, y), cache


def _boxed(init: Callable) -> Callable:
    """``init``, every array of which is whole on every device."""
    return lambda key: jax.tree.map(lambda x: nn.LogicallyPartitioned(x, (None,) * x.ndim), init(key))


def remembered(memory: Memory, new: Entry, query: cached.Query) -> tuple[Float[Array, 'B T N H'], Cache]:
    """Writes the new tokens, attends to all that this layer holds then, and drops what is not kept."""
    cache = memory.cache.write(memory.layer, new)
    blocks = cache.store.blocks(cache.state, memory.layer)
    y, lse = cached.attend(query, blocks)
    return y, cache.settle(memory.layer, new, cached.Received(query, lse, blocks))
