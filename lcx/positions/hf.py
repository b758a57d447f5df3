"""Hugging Face's spelling of the RoPE family: ``rope_parameters`` (transformers 5) and ``rope_scaling`` (4).

    'default' = rope    'linear' = pi    'dynamic' = dynamic_ntk    'yarn' = yarn

NTK-aware scaling has no type of its own there: it is 'default' with the larger ``rope_theta``.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any, NamedTuple

from lcx.config import make
from lcx.errors import ConfigError, unknown
from lcx.positions import POSITIONS, ntk
from lcx.positions.api import Position
from lcx.positions.extension import stretch


class Spelling(NamedTuple):
    """A method's name here, the option that each key means, and the keys it cannot do without."""

    name: str
    keys: Mapping[str, str]
    required: tuple[str, ...]


THETA = {'rope_theta': 'theta'}
FACTOR = {**THETA, 'factor': 'factor'}
YARN = {
    **FACTOR,
    'original_max_position_embeddings': 'original_length',
    'beta_fast': 'beta_fast',
    'beta_slow': 'beta_slow',
    'attention_factor': 'attention_factor',
    'mscale': 'mscale',
    'mscale_all_dim': 'mscale_all_dim',
    'truncate': 'truncate',
}
SPELLINGS = {
    'default': Spelling('rope', THETA, ('rope_theta',)),
    'linear': Spelling('pi', FACTOR, ('rope_theta', 'factor')),
    'dynamic': Spelling('dynamic_ntk', FACTOR, ('rope_theta', 'factor')),
    'yarn': Spelling('yarn', YARN, ('rope_theta', 'original_max_position_embeddings')),
}


def from_hf(rope_parameters: Mapping[str, Any], *, head_dim: int, max_position_embeddings: int) -> Position:
    """The position method of a Hugging Face ``config.json``.

    Transformers 4 keeps ``rope_theta`` beside its ``rope_scaling``; pass both as one mapping,
    ``{**(rope_scaling or {}), 'rope_theta': rope_theta}``. A key at None counts as absent. As there,
    'dynamic' extends ``max_position_embeddings`` tokens, and an absent factor of 'yarn' is
    ``max_position_embeddings / original_max_position_embeddings``.

    Raises:
      ConfigError: the type or a key is unknown, a key that the type needs is missing, or a value is unusable.
    """
    given = {key: value for key, value in rope_parameters.items() if value is not None}
    alias = given.pop('type', 'default')
    kind = given.pop('rope_type', alias)
    if kind not in SPELLINGS:
        raise ConfigError(unknown('rope_type', kind, SPELLINGS))
    name, keys, required = SPELLINGS[kind]
    for key in required:
        if key not in given:
            raise ConfigError(f'{key}: missing; {kind!r} needs it (transformers 4: beside rope_scaling).')
    for key in given:
        if key not in keys:
            raise ConfigError(unknown(f'{key} (of rope_type {kind!r})', key, keys))
    options = {'name': name, **{keys[key]: value for key, value in given.items()}}
    context = {'length': max_position_embeddings, 'trained_length': max_position_embeddings}
    return make(POSITIONS, options, 'rope_parameters', head_dim=head_dim, **context)


def to_hf(options: Mapping[str, Any], *, head_dim: int, length: int, trained_length: int) -> dict[str, Any]:
    """The ``rope_parameters`` of a position method, every default resolved as the method itself does.

    The type 'dynamic' has no key for its original length: ``max_position_embeddings`` must be that length.

    Raises:
      ConfigError: the options cannot be used, or the method has no name in transformers.
    """
    context = {'head_dim': head_dim, 'length': length, 'trained_length': trained_length}
    make(POSITIONS, options, 'position', **context)
    name = options['name']
    entry = inspect.signature(POSITIONS[name]).parameters
    values = {key: value.default for key, value in entry.items()}
    values |= {key: value for key, value in options.items() if value is not None}
    if 'factor' in values:
        values['factor'], values['original_length'] = stretch(
            values['factor'], values['original_length'], length=length, trained_length=trained_length
        )
    if name == 'ntk':
        name, values['theta'] = 'rope', ntk.scaled_theta(head_dim, values['theta'], values['factor'])
    kinds = {spelling.name: kind for kind, spelling in SPELLINGS.items()}
    if name not in kinds:
        raise ConfigError(unknown('name', name, kinds) + ' No other method has a name in transformers.')
    if values['interleaved']:
        raise ConfigError('interleaved: True has no spelling; permute query and key weights to half-split.')
    kind = kinds[name]
    spelled = {key: values[option] for key, option in SPELLINGS[kind].keys.items()}
    return {'rope_type': kind, **{key: value for key, value in spelled.items() if value is not None}}
