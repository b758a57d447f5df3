"""Hugging Face's spelling of the RoPE family: ``rope_parameters`` (transformers 5) and ``rope_scaling`` (4).

    'default' = rope      'linear' = pi      'dynamic' = dynamic_ntk     'yarn' = yarn
    'llama3' = llama3     'longrope', once 'su', = longrope              'proportional' = p_rope

Two methods have another method's name there: NTK-aware scaling is 'default' with the larger ``rope_theta``, and
NTK-by-parts is 'llama3' with its ramp. The type 'axial' and ``mrope_section``, of images, have no method here.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from lcx.config import make, plain
from lcx.errors import ConfigError, unknown
from lcx.positions import POSITIONS, ntk, rope
from lcx.positions.api import Position
from lcx.positions.extension import stretch


class Spelling(NamedTuple):
    """A method's name here, the option that each key means, and the keys it cannot do without."""

    name: str
    keys: Mapping[str, str]
    required: tuple[str, ...]


BASE = {'rope_theta': 'theta', 'partial_rotary_factor': 'rotary_fraction'}
FACTOR = {**BASE, 'factor': 'factor'}
ORIGINAL = {**FACTOR, 'original_max_position_embeddings': 'original_length'}
LONGROPE = {
    **ORIGINAL,
    'short_factor': 'short_factor',
    'long_factor': 'long_factor',
    'attention_factor': 'attention_factor',
}
LLAMA3 = {
    **ORIGINAL,
    'low_freq_factor': 'low_freq_factor',
    'high_freq_factor': 'high_freq_factor',
}
YARN = {
    **ORIGINAL,
    'beta_fast': 'beta_fast',
    'beta_slow': 'beta_slow',
    'attention_factor': 'attention_factor',
    'mscale': 'mscale',
    'mscale_all_dim': 'mscale_all_dim',
    'truncate': 'truncate',
}
SPELLINGS = {
    'default': Spelling('rope', BASE, ('rope_theta',)),
    'linear': Spelling('pi', FACTOR, ('rope_theta', 'factor')),
    'dynamic': Spelling('dynamic_ntk', FACTOR, ('rope_theta', 'factor')),
    'yarn': Spelling('yarn', YARN, ('rope_theta', 'original_max_position_embeddings')),
    'longrope': Spelling(
        'longrope',
        LONGROPE,
        ('rope_theta', 'original_max_position_embeddings', 'short_factor', 'long_factor'),
    ),
    'llama3': Spelling('llama3', LLAMA3, tuple(key for key in LLAMA3 if key not in BASE) + ('rope_theta',)),
    'proportional': Spelling('p_rope', FACTOR, ('rope_theta', 'partial_rotary_factor')),
}
ALIASES = {'su': 'longrope'}


def from_hf(
    rope_parameters: Mapping[str, Any],
    *,
    head_dim: int,
    max_position_embeddings: int,
    length: int | None = None,
) -> Position:
    """The position method of a Hugging Face ``config.json``; see :func:`options_from_hf`.

    Args:
      length: tokens in use, by which 'longrope' chooses its list; None: ``max_position_embeddings``.

    Raises:
      ConfigError: as ``options_from_hf``, or a value is unusable.
    """
    options = options_from_hf(rope_parameters, max_position_embeddings=max_position_embeddings)
    context = {'length': length or max_position_embeddings, 'trained_length': max_position_embeddings}
    return make(POSITIONS, options, 'rope_parameters', head_dim=head_dim, **context)


def options_from_hf(rope_parameters: Mapping[str, Any], *, max_position_embeddings: int) -> dict[str, Any]:
    """The options of a method here, ``{'name': 'yarn', 'factor': 4.0, ...}``, as ``model.position`` takes them.

    Transformers 4 keeps ``rope_theta``, and some models ``partial_rotary_factor`` and
    ``original_max_position_embeddings``, beside its ``rope_scaling``; pass all as one mapping,
    ``{**(rope_scaling or {}), 'rope_theta': rope_theta}``. A key at None counts as absent. As there, 'dynamic'
    extends ``max_position_embeddings`` tokens, and an absent factor of 'yarn' and 'longrope' is
    ``max_position_embeddings / original_max_position_embeddings``.

    Raises:
      ConfigError: the type or a key is unknown, or a key that the type needs is missing.
    """
    given = {key: value for key, value in rope_parameters.items() if value is not None}
    alias = given.pop('type', 'default')
    kind = given.pop('rope_type', alias)
    kind = ALIASES.get(kind, kind)
    for key, value in given.items():
        if isinstance(value, Mapping):
            raise ConfigError(f'{key}: holds parameters of its own, of a kind of layer; pass these alone.')
    if kind not in SPELLINGS:
        raise ConfigError(unknown('rope_type', kind, SPELLINGS))
    name, keys, required = SPELLINGS[kind]
    for key in required:
        if key not in given:
            raise ConfigError(f'{key}: missing; {kind!r} needs it (transformers 4: beside rope_scaling).')
    for key in given:
        if key not in keys:
            raise ConfigError(unknown(f'{key} (of rope_type {kind!r})', key, keys))
    options = {keys[key]: value for key, value in given.items()}
    original = options.get('original_length')
    if type(original) in (int, float) and original > 0:  # what else it may be, the method itself refuses
        options.setdefault('factor', max(1.0, max_position_embeddings / original))
    return {'name': name, **options}


def to_hf(options: Mapping[str, Any], *, head_dim: int, length: int, trained_length: int) -> dict[str, Any]:
    """The ``rope_parameters`` of a position method, every default resolved as the method itself does.

    The type 'dynamic' has no key for its original length: ``max_position_embeddings`` must be that length.

    Raises:
      ConfigError: the options cannot be used, or the method has no name in transformers.
    """
    name = options['name']
    kinds = {spelling.name: kind for kind, spelling in SPELLINGS.items()}
    if name not in kinds and name not in SAME_AS:
        choices = sorted({*kinds, *SAME_AS})
        raise ConfigError(unknown('name', name, choices) + ' No other method has a name in transformers.')
    make(POSITIONS, options, 'position', head_dim=head_dim, length=length, trained_length=trained_length)
    entry = inspect.signature(POSITIONS[name]).parameters
    values = {key: value.default for key, value in entry.items()}
    values |= {key: value for key, value in options.items() if value is not None}
    if values['interleaved']:
        raise ConfigError('interleaved: True has no spelling; permute query and key weights to half-split.')
    if 'original_length' in values:
        values['factor'], values['original_length'] = stretch(
            values['factor'], values['original_length'], length=length, trained_length=trained_length
        )
    if name in SAME_AS:
        name, changed = SAME_AS[name]
        values |= changed(head_dim, values)
    kind = kinds[name]
    spelling = SPELLINGS[kind]
    spelled = {key: plain(values[option]) for key, option in spelling.keys.items()}
    if spelled['partial_rotary_factor'] == 1 and 'partial_rotary_factor' not in spelling.required:
        del spelled['partial_rotary_factor']
    return {'rope_type': kind, **{key: value for key, value in spelled.items() if value is not None}}


def _larger_base(head_dim: int, values: Mapping[str, Any]) -> dict[str, Any]:
    dim = rope.rotating(head_dim, values['rotary_fraction'])
    return {'theta': ntk.scaled_theta(dim, values['theta'], values['factor'])}


def _llama3_ramp(head_dim: int, values: Mapping[str, Any]) -> dict[str, Any]:
    del head_dim
    return {'low_freq_factor': values['beta_slow'], 'high_freq_factor': values['beta_fast']}


# Methods without a name of their own: that of which method, with which options changed.
SAME_AS: dict[str, tuple[str, Callable]] = {
    'ntk': ('rope', _larger_base),
    'ntk_by_parts': ('llama3', _llama3_ramp),
}
