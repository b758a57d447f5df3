"""A decoder-only language model: embed, scan over the pattern of layers, norm.

Where the pattern does not divide the layers, its first ones follow the scan once more, as ``rest``.

The forward pass returns hidden states. Logits exist only where somebody asks for them: see
:mod:`lcx.models.scoring` for losses and scores in chunks.
"""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name

from lcx.errors import UnsupportedError
from lcx.models import layers
from lcx.models.cache import Cache, Caches, Memory
from lcx.models.chunks import over_tokens
from lcx.models.config import DTYPES, INPUT, REMAT, ModelConfig
from lcx.parallel.pipeline import pipeline
from lcx.parallel.rules import constrain, gathered
from lcx.positions import Position
from lcx.types import Array, Float, Int, Tree, Where

TABLE = ('vocab', 'embed')  # names of the axes of the embedding, and of the output's table


class Block(nn.Module):
    """Pre-norm residual block: x + mixer(norm x), then x + feed-forward(norm x).

    ``parallel_residual``: x + mixer(norm x) + feed-forward(norm x). ``post_norms`` norm what is added, too.
    """

    config: ModelConfig
    kind: str

    @nn.compact
    def __call__(
        self, x: Float[Array, 'B T D'], where: Where, extras: tuple, memory: Memory | None
    ) -> tuple[Float[Array, 'B T D'], Cache | None]:
        config = self.config
        norm = layers.norm(config, 'mixer_norm')(x)
        mixer = config.read_mixer(self.kind)(config, self.kind, name='mixer')
        mixed, cache = mixer(norm, where, *extras, memory)
        mixed = self._added(mixed, 'mixer')
        seen = x if config.parallel_residual else x + mixed
        norm = layers.norm(config, 'feed_forward_norm')(seen)
        fed = self._feed_forward(layers.FeedForward(config, name='feed_forward'), norm)
        x = (x + mixed if config.parallel_residual else seen) + self._added(fed, 'feed_forward')
        return constrain(x, layers.TOKENS), cache

    def _added(self, x: Float[Array, 'B T D'], part: str) -> Float[Array, 'B T D']:
        return layers.norm(self.config, f'{part}_post_norm')(x) if self.config.post_norms else x

    def _feed_forward(self, module: nn.Module, x: Float[Array, 'B T D']) -> Float[Array, 'B T D']:
        size = self.config.feed_forward_chunk
        return over_tokens(lambda module, x: module(x), module, x, size) if size else module(x)


class Period(nn.Module):
    """The first layers of the pattern, one for each of ``positions``; all of them: the body of the scan over depth."""

    config: ModelConfig
    positions: tuple  # a Position per layer

    @nn.compact
    def __call__(
        self, carry: tuple[Array, tuple[Cache, ...]], where: Where, shared: tuple, layer: Array | None
    ) -> tuple[tuple, None]:
        (x, caches), after = carry, []
        x = checkpoint_name(x, INPUT)
        for i, (kind, position) in enumerate(zip(self.config.pattern, self.positions)):
            *extras, tables = shared[i]
            memory = Memory(caches[i], layer, tables) if caches else None
            x, cache = Block(self.config, kind, name=f'{kind}_{i}')(x, where, (position, *extras), memory)
            after.append(cache)
        return (x, tuple(after) if caches else ()), None


class Decoder(nn.Module):
    """Tokens in, final hidden states out; ``logits`` turns hidden states into logits."""

    config: ModelConfig
    length: int | None = None  # of the whole text, where tokens come in pieces: what extensions follow

    def setup(self) -> None:
        config = self.config
        init = nn.initializers.normal(config.width**-0.5)
        names = nn.with_logical_partitioning(init, TABLE)
        self.embedding = self.param('embedding', names, (config.vocab, config.width), jnp.float32)
        if not config.tie_embeddings:
            self.output = self.param('output', names, (config.vocab, config.width), jnp.float32)

    @nn.compact
    def __call__(
        self,
        tokens: Int[Array, 'B T'],
        positions: Int[Array, 'B T'],
        segments: Int[Array, 'B T'],
        caches: Caches | None = None,
    ) -> Float[Array, 'B T D'] | tuple[Float[Array, 'B T D'], Caches]:
        """Hidden states after the last norm. ``segments`` separates packed documents; PADDING tokens are ignored.

        With ``caches`` these tokens follow those that the caches hold, and the caches after them come back too.
        """
        config, cached = self.config, caches is not None
        where = Where.self_attention(positions, segments, config.heads)
        by_kind = {
            kind: config.read_position(kind, self.length or tokens.shape[1]) for kind in set(config.depth)
        }
        # Kinds whose position options are equal share one method: its parameters, and what it adds to embeddings.
        owners = {config.position_of(kind): kind for kind in sorted(by_kind, reverse=True)}
        own = {kind: self._position_params(kind, by_kind[kind]) for kind in sorted(owners.values())}
        params = {kind: own[owners[config.position_of(kind)]] for kind in by_kind}
        x = gathered(self.embedding, TABLE, DTYPES[config.dtype])[tokens]
        x = x if config.embedding_scale is None else x * config.embedding_scale  # rounded to the dtype of x
        for kind in own:
            if by_kind[kind].embed is not None:
                x = x + by_kind[kind].embed(own[kind], positions).astype(x.dtype)
        x = constrain(x, layers.TOKENS)
        caches = caches.begin(positions, segments) if cached else Caches((), ())
        held = dict(zip(config.depth, caches.layers or caches.rest))  # of one kind, all hold the same tokens
        shared = {}
        for kind, position in by_kind.items():
            cache = held.get(kind)
            newest = None if cache is None else cache.newest
            tables = layers.position_tables(config.kinds[kind], position, params[kind], positions, newest)
            slots = cache and layers.cached_tables(config.kinds[kind], position, params[kind], cache)
            shared[kind] = params[kind], tables, slots
        period = config.pattern[: config.layers]
        methods, shared = tuple(by_kind[kind] for kind in period), tuple(shared[kind] for kind in period)
        repeated, rest = caches
        if config.repeats and config.pipeline and not self.is_initializing():
            if cached:
                raise UnsupportedError(
                    f'pipeline {config.pipeline["name"]!r} fills no caches; it is for training.'
                )
            x = self._piped(methods, x, (positions, segments), shared)
        elif config.repeats:
            index = jnp.arange(config.repeats) if cached else None
            (x, repeated), _ = self._depth(methods)((x, repeated), where, shared, index)
        if config.rest:
            period = self._period(scanned=False)(config, methods[: config.rest], name='rest')
            (x, rest), _ = period((x, rest), where, shared, jnp.int32(0) if cached else None)
        hidden = layers.norm(config, 'final_norm')(x)
        return (hidden, Caches(repeated, rest)) if cached else hidden

    def _position_params(self, kind: str, position: Position) -> Tree:
        if position.own or not jax.tree.leaves(jax.eval_shape(position.init, jax.random.key(0))):
            return {}
        return self.param(f'position_{kind}', position.init)

    def _period(self, *, scanned: bool) -> type[nn.Module]:
        policy = REMAT[self.config.remat]
        # Outside a scan the compiler would merge what is computed again with what was, and keep that.
        return Period if policy is None else nn.remat(Period, policy=policy, prevent_cse=not scanned)

    def _depth(self, positions: tuple) -> nn.Module:
        """The scan over depth: one set of parameters per repeat, stacked on the axis 'layers'."""
        config = self.config
        scan = nn.scan(
            self._period(scanned=True),
            variable_axes={'params': 0},
            split_rngs={'params': True},
            in_axes=(nn.broadcast, nn.broadcast, 0),
            length=config.repeats,
            metadata_params={nn.PARTITION_NAME: 'layers'},
        )
        return scan(config, positions, name='layers')

    def _piped(self, methods: tuple, x: Float[Array, 'B T D'], tokens: tuple, shared: tuple) -> Array:
        """What :meth:`_depth` computes with the same parameters, by the stages of the mesh in context."""
        config = self.config
        params, tables, _ = zip(*shared)

        def body(own: Tree, x: Array, rows: tuple, params: tuple) -> Array:
            (positions, segments), tables = rows
            where = Where.self_attention(positions, segments, config.heads)
            each = tuple((p, t, None) for p, t in zip(params, tables))
            (x, _), _ = Period(config, methods, parent=None).apply(
                {'params': own}, (x, ()), where, each, None
            )
            return x

        stacked, policy = self.variables['params']['layers'], REMAT[config.remat]
        return pipeline(config.read_pipeline(), body, stacked, x, (tokens, tables), params, policy)

    def logits(self, hidden: Float[Array, 'B T D']) -> Float[Array, 'B T V']:
        """Logits in fp32 of the hidden states given."""
        table = self.embedding if self.config.tie_embeddings else self.output
        table = gathered(table, TABLE, hidden.dtype)
        x = jnp.einsum('BTD,VD->BTV', hidden, table, preferred_element_type=jnp.float32)
        x = constrain(x, ('batch', 'length', 'vocab'))
        cap = self.config.softcap
        return x if cap is None else cap * jnp.tanh(x / cap)


def init(config: ModelConfig, key: Array) -> Tree:
    """Fresh parameters as a plain tree of fp32 arrays. Under ``jax.eval_shape`` it costs nothing at any size."""
    return nn.meta.unbox(_init(config, key))


def boxed(config: ModelConfig) -> Tree:
    """Shapes of the parameters, each in a box with the names of its axes. Nothing is allocated."""
    return jax.eval_shape(lambda: _init(config, jax.random.key(0)))


def _init(config: ModelConfig, key: Array) -> Tree:
    tokens = jnp.zeros((1, 2), jnp.int32)
    return Decoder(config).init(key, tokens, tokens, tokens + 1)['params']


def logits(config: ModelConfig, params: Tree, tokens: Int[Array, 'B T']) -> Float[Array, 'B T V']:
    """Logits of whole rows, one document each, in fp32. Holds [B, T, V]: for notebooks and tests."""
    positions = jnp.broadcast_to(jnp.arange(tokens.shape[1]), tokens.shape)
    model = Decoder(config)
    hidden = model.apply({'params': params}, tokens, positions, jnp.ones_like(tokens))
    return model.apply({'params': params}, hidden, method='logits')
