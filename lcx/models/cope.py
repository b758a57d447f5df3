"""The CoPE mixer: attention whose positions count the tokens that matter (:mod:`lcx.attention.cope`)."""

from __future__ import annotations

import functools
from collections.abc import Callable

import flax.linen as nn
import jax.numpy as jnp

from lcx.attention import COPE
from lcx.attention.api import bound
from lcx.attention.cached import Keys
from lcx.config import Options
from lcx.errors import ConfigError
from lcx.models.cache import Cache, Entry, Memory
from lcx.models.config import LayerKind, ModelConfig
from lcx.models.layers import from_heads, queries_keys_values
from lcx.types import Array, Float, Where


class ContextualPositions(nn.Module):
    """CoPE attention (arXiv 2405.18719) with a table of ``positions`` vectors of its own in every layer."""

    config: ModelConfig
    kind: str
    positions: int  # P: keys further away than P - 1 counted tokens look alike

    @nn.compact
    def __call__(
        self,
        x: Float[Array, 'B T D'],
        where: Where,
        position: object,
        position_params: object,
        tables: object,
        memory: Memory | None,
    ) -> tuple[Float[Array, 'B T D'], Cache | None]:
        del position, position_params, tables  # it counts positions itself
        config, kind = self.config, self.config.kinds[self.kind]
        # As in the paper's listing the table starts at zero: attention without positions.
        start = nn.with_logical_partitioning(nn.initializers.zeros, ('positions', 'head_dim'))
        table = self.param('table', start, (self.positions, config.head_dim), jnp.float32)
        (q, k, v), attend, cache = queries_keys_values(config, x), _implementation(kind), None
        if memory is not None:
            cache, held = remembered(memory, Entry(k, v, where.q_pos, where.q_seg))
            k, v, where = (
                held.k.swapaxes(1, 2),
                held.v.swapaxes(1, 2),
                where._replace(k_pos=held.pos, k_seg=held.seg),
            )
        y = attend(q, k, v, where, kind.read_rule(), table, scale=config.attention_scale)
        return from_heads(config, y), cache


def remembered(memory: Memory, new: Entry) -> tuple[Cache, Keys]:
    """The cache with new tokens, and all that this layer holds then.

    Raises:
      ConfigError: heads keep tokens of their own, among which counting has no order in common; the cache asks what
        tokens receive.
    """
    cache = memory.cache.write(memory.layer, new)
    held = cache.store.blocks(cache.state, memory.layer)
    keys = held.read(jnp.int32(0), held.slots)
    if keys.pos.ndim == 3:
        raise ConfigError(
            "cache: heads that keep tokens of their own cannot be counted by 'cope'; use 'full'."
        )
    return cache.settle(memory.layer, new, _unknown), keys


def _unknown(weigh: Callable, last: int | None) -> Array:
    raise ConfigError("cache: 'cope' does not tell what tokens receive; use 'full'.")


def cope(*, kind: LayerKind, position: Options, softcap: float | None, positions: int = 64) -> Callable:
    """The mixer for :data:`lcx.models.mixers.MIXERS`; 64 positions are the paper's for language modelling.

    Raises:
      ConfigError: ``positions`` is below 1; the kind has another position method, regions, or a kernel without CoPE;
        scores have a softcap.
    """
    if positions < 1:
        raise ConfigError(f'positions: {positions!r} must be at least 1.')
    if position['name'] != 'none':
        raise ConfigError(
            f"name: 'cope' counts positions itself, beside position {position['name']!r}; set that to 'none'."
        )
    if kind.read_regions():
        raise ConfigError(
            f"name: 'cope' has no positions for regions {kind.regions['name']!r} to move; set that to None."
        )
    if kind.attention['name'] not in COPE:
        raise ConfigError(
            f"name: 'cope' has no attention {kind.attention['name']!r}; its choices are {', '.join(sorted(COPE))}."
        )
    if softcap is not None:
        raise ConfigError(
            f"name: 'cope' has no softcap of scores; attention_softcap is {softcap!r}, not None."
        )
    _implementation(kind)
    return functools.partial(ContextualPositions, positions=positions)


def _implementation(kind: LayerKind) -> Callable:
    return bound(COPE, kind.attention, beyond=('table',))
