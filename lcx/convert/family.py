"""What a family of architectures is, and what the families share: names of activations, kinds of layers, positions."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from lcx.config import Options
from lcx.convert.tensors import Tensor
from lcx.errors import ConfigError, unknown
from lcx.models import LayerKind, ModelConfig
from lcx.positions import POSITIONS, options_from_hf, to_hf

ACTIVATIONS = {
    'silu': 'silu',
    'swish': 'silu',
    'gelu': 'gelu',
    'gelu_new': 'gelu_tanh',
    'gelu_pytorch_tanh': 'gelu_tanh',
    'gelu_fast': 'gelu_tanh',
}
FULL, SLIDING = 'full_attention', 'sliding_attention'
CAUSAL = Options(name='causal')

TRAINING_ONLY = ('pose', 'shape')  # position methods that are their base when training is over


class Family(NamedTuple):
    """How one architecture of transformers is written here."""

    model_type: str
    fields: type  # a dataclass: the fields of config.json that say what is computed, with the defaults of transformers
    read: Callable[[Any], dict[str, Any]]  # these fields -> arguments of ModelConfig
    write: Callable[[ModelConfig, int | None], dict[str, Any]]  # a model, for a length -> such fields
    table: tuple[Tensor, ...]
    ignored: tuple[str, ...] = ('.rotary_emb.inv_freq',)  # ends of names of tensors that are constants
    neutral: Mapping[str, tuple] = Options()  # fields that change the computation: the values that do not
    prefix: str = 'model.'  # of tensors, which files of the bare model lack


@dataclasses.dataclass(frozen=True, kw_only=True)
class Rope:
    """The fields of a config.json that say how a model with rotary positions knows them, of transformers 4 and 5."""

    max_position_embeddings: int
    rope_parameters: Options | None = None
    rope_scaling: Options | None = None
    rope_theta: float | None = None
    partial_rotary_factor: float | None = None
    original_max_position_embeddings: int | None = None


# What version 4 has in places of its own, and version 5 in rope_parameters.
VERSION_4 = (
    'rope_scaling', 'rope_theta', 'rope_local_base_freq', 'rotary_emb_base', 'rotary_pct', 'partial_rotary_factor',
)  # fmt: skip


@dataclasses.dataclass(frozen=True, kw_only=True)
class Fields(Rope):
    """The fields that Llama and its descendants share."""

    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int | None = None
    head_dim: int | None = None
    rms_norm_eps: float = 1e-6
    tie_word_embeddings: bool = False


def sizes(fields: Fields) -> dict[str, Any]:
    """The arguments of ModelConfig in the shared fields."""
    heads = fields.num_attention_heads
    if heads < 1:
        raise ConfigError(f'num_attention_heads: {heads!r} must be greater than 0.')
    return {
        'vocab': fields.vocab_size,
        'width': fields.hidden_size,
        'hidden': fields.intermediate_size,
        'layers': fields.num_hidden_layers,
        'heads': heads,
        'kv_heads': heads if fields.num_key_value_heads is None else fields.num_key_value_heads,
        'head_dim': fields.hidden_size // heads if fields.head_dim is None else fields.head_dim,
        'norm_eps': fields.rms_norm_eps,
        'tie_embeddings': fields.tie_word_embeddings,
        'trained_length': fields.max_position_embeddings,
    }


def write_sizes(config: ModelConfig) -> dict[str, Any]:
    """The inverse."""
    return {
        'vocab_size': config.vocab,
        'hidden_size': config.width,
        'intermediate_size': config.hidden,
        'num_hidden_layers': config.layers,
        'num_attention_heads': config.heads,
        'num_key_value_heads': config.kv_heads,
        'head_dim': config.head_dim,
        'rms_norm_eps': config.norm_eps,
        'tie_word_embeddings': config.tie_embeddings,
    }


def activation(name: str, field: str = 'hidden_act') -> str:
    """The activation that transformers calls ``name``."""
    if name not in ACTIVATIONS:
        raise ConfigError(unknown(field, name, ACTIVATIONS))
    return ACTIVATIONS[name]


def named(config: ModelConfig, *names: str) -> str:
    """What transformers calls the model's activation: the first of ``names`` that means it."""
    every = *names, *ACTIVATIONS
    return next(name for name in every if ACTIVATIONS[name] == config.activation)


def layer_kinds(
    types: Sequence[str], window: int | None, positions: Mapping[str, Options] = Options()
) -> dict[str, Any]:
    """The kinds and the shortest pattern of layers that are 'full_attention' or 'sliding_attention', first to last."""
    local = LayerKind(
        rule=(CAUSAL, Options(name='window', size=window)) if window else (CAUSAL,),
        position=positions.get(SLIDING),
    )
    known = {FULL: ('full', LayerKind(position=positions.get(FULL))), SLIDING: ('local', local)}
    for name in types:
        if name not in known:
            raise ConfigError(unknown('layer_types', name, known))
    if SLIDING in types and not window:
        raise ConfigError(f'sliding_window: {window!r}, but layer_types has {SLIDING!r}.')
    period = next(p for p in range(1, len(types) + 1) if all(x == types[i % p] for i, x in enumerate(types)))
    return {
        'kinds': Options(dict(known[name] for name in types)),
        'pattern': tuple(known[name][0] for name in types[:period]),
    }


def checked_types(
    types: tuple[str, ...] | None, layers: int, default: Callable[[int], bool]
) -> tuple[str, ...]:
    """The type of every layer: ``types``, or sliding where ``default(layer)``."""
    if layers < 1:
        raise ConfigError(f'num_hidden_layers: {layers!r} must be greater than 0.')
    if types is None:
        return tuple(SLIDING if default(i) else FULL for i in range(layers))
    if len(types) != layers:
        raise ConfigError(f'layer_types: names {len(types)} layers, but num_hidden_layers is {layers}.')
    return types


def write_types(config: ModelConfig) -> tuple[list[str], int | None]:
    """The type of every layer, and the window of those that slide.

    Raises:
      ConfigError: a layer mixes tokens in another way, or windows differ.
    """
    types, windows = [], set()
    for name in config.depth:
        kind = config.kinds[name]
        if kind.mixer.set() != {'name': 'attention'}:
            raise ConfigError(f'kinds.{name}.mixer: {kind.mixer["name"]!r} has no place in transformers.')
        if kind.read_regions():
            raise ConfigError(f'kinds.{name}.regions: {kind.regions["name"]!r} has no place in transformers.')
        rest = [rule for rule in kind.rule if rule != CAUSAL]
        if CAUSAL not in kind.rule or len(rest) > 1 or any(rule['name'] != 'window' for rule in rest):
            raise ConfigError(
                f'kinds.{name}.rule: only causal, and causal with a window, have a place there.'
            )
        windows |= {rule['size'] for rule in rest}
        types.append(SLIDING if rest else FULL)
    if len(windows) > 1:
        raise ConfigError(
            f'rule: windows of {sorted(windows)} tokens; the architecture has one for all layers.'
        )
    return types, next(iter(windows), None)


def one_window(config: ModelConfig) -> int | None:
    """The window of all layers, of an architecture whose layers are alike."""
    types, window = write_types(config)
    if len(set(types)) > 1:
        raise ConfigError('pattern: only some layers have a window; the architecture has one for all layers.')
    return window


def read_position(
    fields: Rope,
    given: Mapping[str, Any] | None = None,
    *,
    theta: float = 10000.0,
    fraction: float | None = None,
) -> Options:
    """The position options in a config.json, or those of a kind of layer, ``given``.

    ``theta`` is the base without ``rope_theta``, ``fraction`` the share that rotates without
    ``partial_rotary_factor``; None: the architecture rotates whole heads.
    """
    if given is None:
        given = fields.rope_parameters or fields.rope_scaling or {}
        theta = fields.rope_theta or theta
        share = fields.partial_rotary_factor
    else:
        share = None
    given = {'rope_theta': theta, **{key: value for key, value in given.items() if value is not None}}
    kind = given.get('rope_type', given.get('type', 'default'))
    if fraction is not None:
        given.setdefault('partial_rotary_factor', fraction if share is None else share)
    elif kind != 'proportional' and (given.get('partial_rotary_factor') or share or 1) != 1:
        raise ConfigError(
            f'partial_rotary_factor: {given.get("partial_rotary_factor") or share!r}; the architecture rotates whole '
            'heads.'
        )
    if kind in ('llama3', 'yarn', 'longrope', 'su'):
        known = given.get('original_max_position_embeddings', fields.max_position_embeddings)
        given['original_max_position_embeddings'] = fields.original_max_position_embeddings or known
    return Options(options_from_hf(given, max_position_embeddings=fields.max_position_embeddings))


def write_position(
    config: ModelConfig, length: int | None, kind: str, *, partial: bool = False
) -> tuple[dict[str, Any], int]:
    """``rope_parameters`` of a kind of layer, and the ``max_position_embeddings`` that go with it.

    That is ``length``; at None the trained length, or factor times original length, if that is more. Methods that
    draw positions in training are what they are after it.

    Raises:
      ConfigError: the method has no name there, or the architecture rotates whole heads (``partial`` False).
    """
    options, reach = config.position_of(kind), length or config.trained_length
    while options['name'] in TRAINING_ONLY:
        reach = reach if length else max(reach, options.get('target_length') or 0)
        default = inspect.signature(POSITIONS[options['name']]).parameters['base'].default
        options = options.get('base') or default
    spelled = to_hf(options, head_dim=config.head_dim, length=reach, trained_length=config.trained_length)
    if 'partial_rotary_factor' in spelled and not partial and spelled['rope_type'] != 'proportional':
        raise ConfigError(
            f'position.rotary_fraction: {spelled["partial_rotary_factor"]!r}; it rotates whole heads.'
        )
    if spelled['rope_type'] == 'dynamic':  # which has no key for the length that it extends
        return spelled, options.get('original_length') or config.trained_length
    extended = spelled.get('factor', 1) * spelled.get('original_max_position_embeddings', 0)
    return spelled, reach if length else max(reach, round(extended))
