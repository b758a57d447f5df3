"""The parts of a block that every mixer shares: norm, feed-forward, and projections to heads and back.

Parameters are fp32 and carry logical axis names; one table elsewhere maps the names to a device mesh.
Activations have the model's dtype; norms compute in fp32.
"""

from __future__ import annotations

from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp

from lcx.attention.regions import as_they_are
from lcx.models.cache import Cache
from lcx.models.config import ACTIVATIONS, LayerKind, ModelConfig
from lcx.models.linear import Projection
from lcx.models.norms import NORMS
from lcx.parallel.rules import constrain
from lcx.positions import Position
from lcx.types import Array, Float, Int, Tree

# Names of activation axes. 'length' is the axis that context parallelism cuts.
TOKENS = ('batch', 'length', 'embed')
HEADS = ('batch', 'length', 'heads', 'head_dim')


def residual_init(config: ModelConfig) -> Callable:
    """Initialiser of the matrices that write to the residual stream: variance / (2 L), as in GPT-2."""
    return nn.initializers.variance_scaling(0.5 / config.layers, 'fan_in', 'truncated_normal')


def norm(config: ModelConfig, name: str, axis_name: str = 'embed') -> nn.Module:
    """The model's normalisation, with parameters of its own under ``name``."""
    return NORMS[config.norm](config.norm_eps, axis_name, name=name)


class FeedForward(nn.Module):
    """down(act(gate x) * up x) (arXiv 2002.05202): SwiGLU with silu, GeGLU with gelu; not gated down(act(up x))."""

    config: ModelConfig

    @nn.compact
    def __call__(self, x: Float[Array, 'B T D']) -> Float[Array, 'B T D']:
        config, act = self.config, ACTIVATIONS[self.config.activation]
        d, f, bias = (config.width,), (config.hidden,), 'feed_forward' in config.bias
        up = Projection(d, f, ('embed', 'hidden'), bias=bias, name='up')(x)
        if config.gated:
            gate = Projection(d, f, ('embed', 'hidden'), bias=bias, name='gate')(x)
        x = constrain(act(gate) * up if config.gated else act(up), ('batch', 'length', 'hidden'))
        return Projection(f, d, ('hidden', 'embed'), residual_init(config), bias, name='down')(x)


def position_tables(
    kind: LayerKind,
    position: Position,
    params: Tree,
    positions: Int[Array, 'B T'],
    newest: Int[Array, ' B'] | None = None,
) -> Tree:
    """The tables of a kind of layer; where it has regions, for each those of queries and those of keys.

    ``newest`` is the greatest position of each row, where ``positions`` are but a part of its text.
    """

    def at(positions: Array) -> Tree:
        return tables_at(position, params, positions, newest)

    split = kind.read_regions()
    return tuple((at(r.query(positions)), at(r.key(positions))) for r in split) or at(positions)


def tables_at(
    position: Position, params: Tree, positions: Int[Array, 'B T'], newest: Int[Array, ' B'] | None = None
) -> Tree:
    """The tables of ``positions``, for a text that ends at ``newest`` where the method asks for its length."""
    if position.tables is None:
        return None
    if position.static or newest is None:
        return position.tables(params, positions)
    tables = position.tables(params, jnp.concatenate([positions, newest[:, None]], axis=1))
    return jax.tree.map(lambda x: x[:, :-1], tables)


def keeps_raw(kind: LayerKind, position: Position) -> bool:
    """Whether a cache of such layers holds keys before rotation.

    They are rotated anew where rotations follow the length, or where regions turn one key in several ways, and
    widened when they are read.
    """
    return not position.static or position.widens or len({r.key for r in kind.read_regions()}) > 1


def cached_tables(kind: LayerKind, position: Position, params: Tree, cache: Cache) -> Tree:
    """The tables of :class:`~lcx.models.cache.Memory`."""
    slots = cache.store.positions(cache.state)
    if slots is None or not keeps_raw(kind, position):
        return None
    turns = [r.key for r in kind.read_regions()] or [as_they_are]
    return tuple(tables_at(position, params, turn(slots), cache.newest) for turn in turns)


def queries_keys_values(
    config: ModelConfig, x: Float[Array, 'B T D']
) -> tuple[Float[Array, 'B T N H'], Float[Array, 'B T K H'], Float[Array, 'B T K H']]:
    """The projections of a mixer to heads, as its submodules 'query', 'key' and 'value'; normed where asked for."""

    def heads(count: int, axis: str, name: str) -> Array:
        names, bias = ('embed', axis, 'head_dim'), 'qkv' in config.bias
        y = Projection((config.width,), (count, config.head_dim), names, bias=bias, name=name)(x)
        return constrain(y, ('batch', 'length', axis, 'head_dim'))

    q = heads(config.heads, 'heads', 'query')
    k = heads(config.kv_heads, 'kv_heads', 'key')
    v = heads(config.kv_heads, 'kv_heads', 'value')
    if config.qk_norm:
        q = norm(config, 'query_norm', 'head_dim')(q)
        k = norm(config, 'key_norm', 'head_dim')(k)
    return q, k, v


def from_heads(config: ModelConfig, y: Float[Array, 'B T N H']) -> Float[Array, 'B T D']:
    """The projection of a mixer back to the model's width, as its submodule 'out'."""
    y = constrain(y, HEADS)
    inputs, names = (config.heads, config.head_dim), ('heads', 'head_dim', 'embed')
    bias = 'out' in config.bias
    return Projection(inputs, (config.width,), names, residual_init(config), bias, name='out')(y)
