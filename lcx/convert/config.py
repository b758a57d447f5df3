"""config.json there and back.

The file is kept whole in ``ModelConfig.source``, so that what lcx does not read (token ids, dropout, initialisation)
is written again. Where the model is still the one that the file describes, it comes back as it was; a field is
written anew only where the model has changed. What is written is read again before it counts: a model that would
come back as another one is refused, so that no architecture silently drops what it has no field for.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lcx.config import Options, build, plain
from lcx.convert import files
from lcx.convert.families import FAMILIES
from lcx.convert.family import VERSION_4, Family
from lcx.errors import ConfigError, unknown
from lcx.models import ModelConfig

# Fields of any architecture that change what is computed, and the values that do not.
NEUTRAL = {
    'quantization_config': (None,),
    'compression_config': (None,),
    'rope_interleaved': (None, False),
    'num_experts': (None, 0, 1),
    'num_local_experts': (None, 0, 1),
}
# Work is done for each of these before any tensor is seen; other integers fit 32 bits.
LIMITS = {'num_hidden_layers': 10_000, 'n_layer': 10_000, 'num_attention_heads': 100_000, 'n_head': 100_000}
HEAD_DIM = 65_536  # likewise
# What a model computes; the layers are compared one by one.
COMPUTED = (
    'vocab', 'width', 'layers', 'heads', 'kv_heads', 'head_dim', 'hidden', 'tie_embeddings', 'embedding_scale', 'norm',
    'norm_eps', 'qk_norm', 'post_norms', 'parallel_residual', 'activation', 'gated', 'attention_softcap', 'softcap',
)  # fmt: skip


def read_config(directory: str | Path) -> ModelConfig:
    """The model that the ``config.json`` of a checkpoint describes, of any version of transformers.

    Raises:
      StorageError: the file is missing or malformed.
      ConfigError: the architecture is unknown, or a field, which it names, is missing or not supported.
    """
    directory = Path(directory)
    files.check_directory(directory)
    return from_hf(files.read_json(directory, files.CONFIG), str(directory / files.CONFIG))


def from_hf(values: Mapping[str, Any], path: str = files.CONFIG) -> ModelConfig:
    """The same of the fields themselves; ``path`` is named in errors."""
    try:
        family = FAMILIES[architecture_of(values)]
        for name, allowed in {**NEUTRAL, **family.neutral}.items():
            if name in values and values[name] not in allowed:
                choices = ' or '.join(str(x) for x in allowed)
                raise ConfigError(f'{name}: {values[name]!r} is not supported; only {choices} is.')
        known = {field.name for field in dataclasses.fields(family.fields)}
        fields = build(family.fields, {name: x for name, x in values.items() if name in known})
        for name in known:
            value, limit = getattr(fields, name), LIMITS.get(name, 2**31 - 1)
            if type(value) is int and value > limit:
                raise ConfigError(f'{name}: {value} is more than {limit}, the most that is read.')
        model = family.read(fields)
        if model['head_dim'] > HEAD_DIM:
            raise ConfigError(
                f'head_dim: {model["head_dim"]} is more than {HEAD_DIM}, the most that is read.'
            )
        return ModelConfig(**model, source=Options(values))
    except ConfigError as error:
        raise ConfigError(f'{path}: {error}') from None


def architecture_of(values: Mapping[str, Any]) -> str:
    """The name of the architecture. Raises ConfigError where it is missing or unknown."""
    names = values.get('architectures')
    if not isinstance(names, (list, tuple)) or not names or not isinstance(names[0], str):
        raise ConfigError(
            f'architectures: {names!r} names none; expected a list such as ["LlamaForCausalLM"].'
        )
    if names[0] not in FAMILIES:
        raise ConfigError(unknown('architectures', names[0], FAMILIES))
    return names[0]


def to_hf(
    config: ModelConfig, *, length: int | None = None, architecture: str | None = None
) -> dict[str, Any]:
    """The fields of the ``config.json`` of a model, in the spelling of transformers 5.

    Args:
      length: tokens that the model is for, ``max_position_embeddings``, which extension methods without a factor of
        their own extend to; None: the trained length, or factor times original length if that is more.
      architecture: a name of ``FAMILIES``; None: that of the source, or the first that has a place for the model.

    Raises:
      ConfigError: the architecture has no place for something that the model computes.
    """
    if architecture is None and config.source:
        architecture = architecture_of(config.source)
    if architecture is None:
        return _first_that_fits(config, length)
    if architecture not in FAMILIES:
        raise ConfigError(unknown('architecture', architecture, FAMILIES))
    family = FAMILIES[architecture]
    try:
        fields = plain(family.write(config, length))
        own = {'architectures': [architecture], 'model_type': family.model_type}
        _check(config, from_hf({**fields, **own}, 'written'), family, fields)
    except ConfigError as error:
        raise ConfigError(f'{architecture} cannot be written: {error}') from None
    source = plain(config.source)
    if source.get('architectures', [None])[0] != architecture:
        return {**own, 'dtype': 'float32', **fields}
    return _merged(source, fields, plain(family.write(from_hf(source), None)))


def _merged(source: dict[str, Any], fields: dict[str, Any], before: dict[str, Any]) -> dict[str, Any]:
    """The source with those of ``fields`` that are not what they were ``before``, in version 5."""
    changed = {name: x for name, x in fields.items() if before.get(name) != x}
    if 'rope_parameters' in fields and not source.get('rope_parameters'):
        changed['rope_parameters'] = fields['rope_parameters']
        source = {name: x for name, x in source.items() if name not in VERSION_4}
    if 'rope_parameters' in changed:  # what lies beside them would count more
        source.pop('partial_rotary_factor', None)
        if 'original_max_position_embeddings' not in fields:
            source.pop('original_max_position_embeddings', None)
    return {**source, **changed}


def _first_that_fits(config: ModelConfig, length: int | None) -> dict[str, Any]:
    reasons = []
    for name in FAMILIES:
        try:
            return to_hf(config, length=length, architecture=name)
        except ConfigError as error:
            reasons.append(str(error))
    raise ConfigError('no architecture of transformers has a place for this model:\n' + '\n'.join(reasons))


def _check(config: ModelConfig, back: ModelConfig, family: Family, fields: dict[str, Any]) -> None:
    """Raises a ConfigError naming what ``back``, read from the fields written, computes in another way."""
    for name in COMPUTED:
        have, found = getattr(config, name), getattr(back, name)
        if have != found:
            raise ConfigError(f'{name}: {have!r}, which would be read back as {found!r}.')
    if set(config.bias) != set(back.bias):
        raise ConfigError(f'bias: {config.bias!r}, which would be read back as {back.bias!r}.')
    scales = [x.head_dim**-0.5 if x.attention_scale is None else x.attention_scale for x in (config, back)]
    if scales[0] != scales[1]:
        raise ConfigError(f'attention_scale: {scales[0]!r}, which would be read back as {scales[1]!r}.')
    for ours, theirs in zip(config.depth, back.depth):
        if set(config.kinds[ours].rule) != set(back.kinds[theirs].rule):
            raise ConfigError(
                f'kinds.{ours}.rule: this layer would be read back with {back.kinds[theirs].rule}.'
            )
    wrote, again = (
        x.get('rope_parameters') for x in (fields, plain(family.write(back, back.trained_length)))
    )
    if wrote != again:
        raise ConfigError(f'position: {wrote}, which would be read back as {again}.')
    seen: dict[Options, dict[str, Any]] = {}  # one method of theirs cannot stand for two of ours
    for ours, theirs in zip(config.depth, back.depth):
        mine = config.position_of(ours).set()
        if seen.setdefault(back.position_of(theirs), mine) != mine:
            raise ConfigError(f'kinds.{ours}.position: the architecture has one method for all such layers.')
