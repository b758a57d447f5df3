"""What a model is: frozen, hashable, complete. Everything a module reads is a field here."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp

from lcx import config
from lcx.attention import ATTENTION, PARTIAL, REGIONS, Region, masks, rules
from lcx.attention.api import Attend, bound
from lcx.config import Options
from lcx.errors import ConfigError, unknown
from lcx.models.linear import OUTPUT
from lcx.models.norms import NORMS
from lcx.parallel import sequence
from lcx.parallel.rules import in_context
from lcx.parallel.schedules import SCHEDULES, Schedule
from lcx.positions import POSITIONS, Position
from lcx.positions.extension import pinned

DTYPES = {'float32': jnp.float32, 'bfloat16': jnp.bfloat16}

INPUT = (
    'period_input'  # what rematerialisation policies call the hidden states before the layers of a pattern
)

# What the backward pass keeps of a layer's forward pass; None keeps everything. 'offload' keeps what 'full' does, the
# inputs of layers, but in the host's memory: they leave while the next layers compute, and come back one by one.
REMAT = {
    'none': None,
    'dots': jax.checkpoint_policies.save_only_these_names(OUTPUT),
    'full': jax.checkpoint_policies.nothing_saveable,
    'offload': jax.checkpoint_policies.save_and_offload_only_these_names(
        names_which_can_be_saved=[],
        names_which_can_be_offloaded=[INPUT],
        offload_src='device',
        offload_dst='pinned_host',
    ),
}

ACTIVATIONS = {
    'silu': jax.nn.silu,
    'gelu': functools.partial(jax.nn.gelu, approximate=False),
    'gelu_tanh': functools.partial(jax.nn.gelu, approximate=True),  # GPT-2's and Gemma's
}

BIASES = ('qkv', 'out', 'feed_forward')  # which projections may have one


@dataclasses.dataclass(frozen=True)
class LayerKind:
    """One kind of layer: how it mixes tokens, who may read whom, and how it knows positions."""

    mixer: Options = Options(name='attention')  # a name of lcx.models.mixers.MIXERS, and options of its own
    attention: Options = Options(name='blockwise')  # the implementation, and options of its own
    rule: tuple[Options, ...] = (Options(name='causal'),)  # all of these
    position: Options | None = None  # None: the model's
    regions: Options | None = None  # positions of their own for near and far keys
    sequence: Options = Options(name='ring')  # the strategy where the tokens lie on many devices

    def __post_init__(self) -> None:
        config.freeze_fields(self)
        sequence.check(self.sequence)
        self.read_attention()
        self.read_rule()
        if self.read_regions():
            self.read_partial()

    def read_attention(self) -> Attend:
        """The attention implementation with its options bound; on a mesh, over what its devices hold."""
        if in_context() is not None:
            return sequence.shard(self.sequence, self.attention)
        return bound(ATTENTION, self.attention)

    def read_partial(self) -> Callable:
        """The same implementation, giving the log-sum-exp too."""
        name = self.attention['name']
        if name not in PARTIAL:
            raise ConfigError(
                f'attention.name: {name!r} gives no log-sum-exp, by which regions merge. '
                f'Choices with regions: {", ".join(sorted(PARTIAL))}.'
            )
        if in_context() is not None:
            return sequence.shard(self.sequence, self.attention, lse=True)
        return bound(PARTIAL, self.attention)

    def read_regions(self) -> tuple[Region, ...]:
        """The regions of the scores; of none: the scores are one matrix, with the positions that tokens have."""
        given = Options(self.regions).set()
        return config.make(REGIONS, given, 'regions') if given else ()

    def reach(self) -> masks.Reach:
        """How far back these layers read."""
        rule, split = self.read_rule(), self.read_regions()
        return masks.either(*(masks.both(rule, r.rule) for r in split)).reach if split else rule.reach

    def read_rule(self) -> masks.Rule:
        """Pairs that all the named rules allow and that lie in one document."""
        given = [rules.from_options(r, f'rule[{i}]') for i, r in enumerate(self.rule)]
        return masks.both(*given, masks.same_segment)


@dataclasses.dataclass(frozen=True)
class ModelConfig:
    """A decoder. Sizes carry the letter of the notation page in the comment."""

    vocab: int  # V
    width: int  # D
    layers: int  # L
    heads: int  # N
    kv_heads: int  # K
    head_dim: int  # H
    hidden: int  # F
    tie_embeddings: bool = True
    embedding_scale: float | None = None  # token embeddings times this; the output's table is not scaled
    norm: str = 'rms'
    norm_eps: float = 1e-5
    qk_norm: bool = False
    post_norms: bool = False  # of what mixer and feed-forward add to the residual stream
    parallel_residual: bool = False  # mixer and feed-forward read the same
    bias: tuple[str, ...] = ()  # the projections that have one
    activation: str = 'silu'
    gated: bool = True  # whether the feed-forward has a gate
    attention_scale: float | None = None  # of scores; None: H**-0.5
    attention_softcap: float | None = None  # scores become cap * tanh(x / cap)
    softcap: float | None = None  # likewise the logits of the output
    dtype: str = 'float32'
    remat: str = 'none'
    feed_forward_chunk: int = 0  # tokens of each row; 0: all at once
    pattern: tuple[str, ...] = ('full',)
    kinds: Mapping[str, LayerKind] = Options({'full': LayerKind()})
    position: Options = Options(name='rope')
    trained_length: int = 2048  # the length the parameters know: what extension methods extend
    pipeline: Options = Options()  # a name of SCHEDULES and its options; none: layers are scanned
    source: Options = Options()  # config.json of the checkpoint it came from: lcx.convert gives it back

    def __post_init__(self) -> None:
        config.freeze_fields(self)
        config.positive(
            self, 'vocab', 'width', 'layers', 'heads', 'kv_heads', 'head_dim', 'hidden', 'norm_eps', 'softcap',
            'trained_length', 'embedding_scale', 'attention_scale', 'attention_softcap',
        )  # fmt: skip
        named = {'dtype': DTYPES, 'remat': REMAT, 'norm': NORMS, 'activation': ACTIVATIONS}
        for field, choices in named.items():
            if getattr(self, field) not in choices:
                raise ConfigError(unknown(field, getattr(self, field), choices))
        for place in self.bias:
            if place not in BIASES:
                raise ConfigError(unknown('bias', place, BIASES))
        if self.feed_forward_chunk < 0:
            raise ConfigError(
                f'feed_forward_chunk: {self.feed_forward_chunk} must be at least 0 (all tokens at once).'
            )
        if self.heads % self.kv_heads:
            fits = [k for k in range(1, self.heads + 1) if self.heads % k == 0]
            near = min(fits, key=lambda k: abs(k - self.kv_heads))
            raise ConfigError(
                f'kv_heads: {self.kv_heads} does not divide heads={self.heads}; the nearest that does is {near}.'
            )
        self.read_pipeline()
        if not self.pattern:
            raise ConfigError('pattern: () names no layer kind.')
        for kind in self.pattern:
            if kind not in self.kinds:
                raise ConfigError(unknown('pattern', kind, self.kinds))
        for name, kind in self.kinds.items():
            self.read_mixer(name)
            position = self.read_position(name, self.trained_length)
            if kind.read_regions() and not position.static:
                raise ConfigError(
                    f'kinds.{name}.regions: {kind.regions["name"]!r} gives tokens other positions, from which its '
                    'position method would take the length in use; choose one that takes it from no data.'
                )
        self._check_whole()

    def _check_whole(self) -> None:
        """Raises a ConfigError where a method draws positions between the tokens and a rule counts whole ones."""
        used = sorted(set(self.pattern))
        drawn = [kind for kind in used if not self.read_position(kind, self.trained_length).whole]
        counting = [kind for kind in used if self.kinds[kind].read_rule().whole]
        if drawn and counting:
            raise ConfigError(
                f'kinds.{counting[0]}.rule: counts whole positions, but {self.position_of(drawn[0])["name"]!r} draws '
                "them between the tokens; leave out 'dilated' and 'strided', or draw whole ones ('randomized')."
            )

    def read_mixer(self, kind: str) -> Callable:
        """``(config, kind, name=...) -> module`` of the mixer of a layer kind."""
        from lcx.models.mixers import MIXERS  # the registry's modules read this one

        path, own = f'kinds.{kind}', self.kinds[kind]
        try:
            context = {'position': self.position_of(kind), 'softcap': self.attention_softcap}
            return config.make(MIXERS, own.mixer, 'mixer', kind=own, **context)
        except ConfigError as error:
            raise ConfigError(f'{path}.{error}') from None

    def read_pipeline(self) -> Schedule | None:
        """How microbatches pass through stages of repeats; None: there are no stages."""
        return config.make(SCHEDULES, self.pipeline, 'pipeline') if self.pipeline else None

    def position_of(self, kind: str) -> Options:
        """The position options of a layer kind: its own, or the model's."""
        own = self.kinds[kind].position
        return self.position if own is None else own

    def read_position(self, kind: str, length: int) -> Position:
        """The position method of a layer kind when ``length`` tokens are in use."""
        own = self.kinds[kind].position
        return config.make(
            POSITIONS,
            self.position_of(kind),
            'position' if own is None else f'kinds.{kind}.position',
            head_dim=self.head_dim,
            length=length,
            trained_length=self.trained_length,
            heads=self.heads,
            width=self.width,
        )

    def remap(self, length: int) -> Callable | None:
        """The function that draws training positions, if the position method of some layer kind has one."""
        found = [self.read_position(kind, length).remap for kind in sorted(set(self.depth))]
        return next((f for f in found if f is not None), None)

    def trained_at(self, length: int) -> ModelConfig:
        """This model once it trains at ``length``: extension methods keep the factor they are trained with.

        Options that default to the length in use are written down (``factor``, ``original_length``), so that a
        model tuned with YaRN at 4 x its old length is evaluated with factor 4 at every length.
        """

        def pin(options: Options) -> Options:
            entry = POSITIONS[options['name']]
            return Options(pinned(entry, options, length=length, trained_length=self.trained_length))

        kinds = {
            name: kind if kind.position is None else dataclasses.replace(kind, position=pin(kind.position))
            for name, kind in self.kinds.items()
        }
        return dataclasses.replace(
            self, position=pin(self.position), kinds=Options(kinds), trained_length=length
        )

    @property
    def depth(self) -> tuple[str, ...]:
        """The kind of every layer, first to last."""
        return tuple(self.pattern[i % len(self.pattern)] for i in range(self.layers))

    @property
    def repeats(self) -> int:
        """How often the whole pattern repeats: the length of the scan over layers."""
        return self.layers // len(self.pattern)

    @property
    def rest(self) -> int:
        """How many layers follow the scan: the first of the pattern once more."""
        return self.layers % len(self.pattern)

    def flops(self, length: int) -> float:
        """Floating-point operations per token of a training step (forward + backward) at ``length``.

        6 per matrix parameter plus attention, 6 * L * N * H * T for causal scores and values (half of the
        square; windows are not discounted). The embedding lookup is free, the output matrix is not.
        """
        projections = self.width * self.head_dim * (2 * self.heads + 2 * self.kv_heads)
        per_layer = projections + (3 if self.gated else 2) * self.width * self.hidden
        attention = 6 * self.layers * self.heads * self.head_dim * length
        return 6.0 * (self.layers * per_layer + self.width * self.vocab) + attention
