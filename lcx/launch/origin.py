"""Where parameters come from: the workdir of a run, or a Hugging Face directory.

Both are evaluated, tuned and exported by the same commands. A run brings its whole configuration; a directory brings
its model and its tokenizer, and what to do with them is in a ``--config`` file.
"""

from __future__ import annotations

import contextlib
import inspect
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from absl import flags as absl_flags

from lcx.errors import ConfigError
from lcx.launch import flags as shared

if TYPE_CHECKING:
    from ml_collections import ConfigDict

    from lcx.models import ModelConfig
    from lcx.types import Tree

LIKE_ROPE = ('theta', 'rotary_fraction', 'interleaved')  # options that a model's weights were trained with


class Origin(NamedTuple):
    """Parameters, and the model that they were trained in."""

    path: Path
    model: ModelConfig
    step: int  # finished steps of the run; 0 of a directory
    params: Callable[[ModelConfig], Tree]  # for that model, or one of the same parameters


def find(path: Path, field: str = 'init') -> Origin:
    """The newest checkpoint of a run, or what a Hugging Face directory holds; ``field`` names it in errors.

    Raises:
      ConfigError: ``path`` is neither, or its model is none that is known here.
      StorageError: files are missing or broken.
    """
    if is_converted(path):
        from lcx import convert

        return Origin(path, convert.read_config(path), 0, lambda model: convert.load(path)[1])
    from lcx import config as configuration
    from lcx.models import ModelConfig
    from lcx.train.checkpoint import Checkpoints

    if not (path / 'checkpoints').is_dir():
        raise ConfigError(
            f'{field}: {str(path)!r} is neither a workdir with checkpoints nor a Hugging Face directory.'
        )
    with Checkpoints(path / 'checkpoints', keep=None) as checkpoints:
        step = checkpoints.latest()
        model = configuration.build(ModelConfig, checkpoints.extra(step)['model'], field)

    def params(model: ModelConfig) -> Tree:
        from lcx.train.tune import merged_params

        with Checkpoints(path / 'checkpoints', keep=None) as checkpoints:
            return merged_params(checkpoints, model, step)

    return Origin(path, model, step, params)


def is_converted(path: Path) -> bool:
    """Whether ``path`` is a Hugging Face directory: its config.json names architectures."""
    with contextlib.suppress(OSError, ValueError):
        return 'architectures' in json.loads((path / 'config.json').read_text(encoding='utf-8'))
    return False


def define(flags: absl_flags.FlagValues, argv: Sequence[str], verb: str, by: Mapping[str, str]) -> list[str]:
    """The flags ``by`` (name -> meaning), and the overrides of the origin that the first of them given names.

    Returns the words that are left to parse: a ``--config=FILE``, which only a Hugging Face directory takes, is read
    here.
    """
    first = absl_flags.FlagValues()
    for values in (first, flags):
        for name, meaning in by.items():
            absl_flags.DEFINE_string(name, None, meaning, flag_values=values)
    with contextlib.suppress(absl_flags.Error):  # reported when all flags are parsed
        first([f'lcx {verb}', *(a for a in argv if a.lstrip('-').partition('=')[0] in by)])
    field, source = next(((name, first[name].value) for name in by if first[name].value), (None, None))
    files = [word for word in argv if _is_config_file(word)]
    if source is None:
        for word in argv:
            if word.lstrip('-').startswith('config.') or word in files:
                raise ConfigError(f'{word}: which run? Name it, for example --{[*by][-1]}=runs/base.')
        return list(argv)
    if files and not is_converted(Path(source)):
        raise ConfigError(
            f'{files[-1]}: {verb} takes the configuration of the run itself; give --config.FIELD=VALUE.'
        )
    from ml_collections import config_flags

    config = configuration_of(Path(source), argv, field)
    shared.check_overrides(config, argv)
    words = [word for word in argv if word not in files]
    config_flags.DEFINE_config_dict(
        'config',
        config,
        "Override any field of the run's configuration with --config.FIELD=VALUE.",
        flag_values=flags,
        sys_argv=words,
    )
    return words


def configuration_of(source: Path, argv: Sequence[str], field: str = 'init') -> ConfigDict:
    """The configuration that the run in ``source`` was trained with, as a ConfigDict with typed fields.

    Of a Hugging Face directory: that of the file which ``argv`` names with ``--config=FILE`` (default: configs/base.py)
    with the directory's model, in which what the file changes of configs/base.py is changed, and its tokenizer, unless
    the file names another. Overrides in ``argv`` are not applied. ``field`` names the directory in errors.
    """
    from configs import base

    if is_converted(source):
        files = [word.partition('=')[2] for word in argv if _is_config_file(word)]
        return adopt(shared.load_config(files[-1]) if files else base.get_config(), source)
    path = source / 'config.json'
    if not path.is_file():
        raise ConfigError(
            f'{field}: {str(source)!r} is neither the workdir of a run nor a Hugging Face directory: no config.json.'
        )
    config = base.get_config()
    fill(config, json.loads(path.read_text()))
    return config


def _is_config_file(word: str) -> bool:
    return word.lstrip('-').partition('=')[0] == 'config'


def adopt(config: ConfigDict, source: Path) -> ConfigDict:
    """``config`` for the model of a Hugging Face directory; see :func:`configuration_of`."""
    from configs import base
    from lcx import convert
    from lcx.config import plain
    from lcx.launch.experiment import values_of

    model = convert.read_config(source)
    plain_base, given = (values_of(c)['model'] for c in (base.get_config(), config))
    config.model = base.get_config().model
    fill(config.model, {k: v for k, v in plain(model).items() if k != 'source'})  # its keys may have points
    own = {k: v for k, v in given.items() if v != plain_base[k] and k != 'preset'}
    if 'position' in own:
        own['position'] = changed_position(plain(model.position), plain_base['position'], own['position'])
        config.model.position = base.position()
    fill(config.model, own)
    if config.data.tokenizer == 'bytes' and any(
        (source / name).is_file() for name in ('tokenizer.json', 'tokenizer.model')
    ):
        config.data.tokenizer = str(source)
    return config


def fill(config: Any, values: Mapping[str, Any]) -> None:
    """Writes JSON values into a ConfigDict; fields at null keep their type for overrides."""
    from ml_collections import ConfigDict

    def typed(value: Any) -> Any:
        if isinstance(value, Mapping):
            return ConfigDict({k: typed(v) for k, v in value.items()})
        return tuple(typed(v) for v in value) if isinstance(value, list) else value

    for name, value in values.items():
        if isinstance(value, Mapping) and isinstance(config.get(name), ConfigDict):
            fill(config[name], value)
        elif value is not None:
            with config.ignore_type():
                config[name] = typed(value)


def changed_model(trained: ModelConfig, before: Mapping, after: Mapping) -> ModelConfig:
    """``trained`` with the fields of ``config.model`` that differ between the two."""
    from lcx import config as configuration
    from lcx.models import ModelConfig

    values = configuration.plain(trained)
    changed = {k: v for k, v in after.items() if v != before.get(k) and k != 'preset'}
    position = changed.pop('position', None)
    if position is not None:
        changed['position'] = changed_position(values['position'], before['position'], position)
    return configuration.build(ModelConfig, {**values, **changed}, 'model')


def changed_position(trained: Mapping, before: Mapping, after: Mapping) -> dict[str, Any]:
    """The options of ``trained`` with what differs between the two configurations.

    The method that was trained keeps what it was trained with. Another one starts from its own defaults, but for the
    rotation that the weights know (:data:`LIKE_ROPE`, where both methods mean the same by it) and what is asked of it.
    """
    from lcx.positions import POSITIONS

    asked = {k: v for k, v in after.items() if v is not None and v != before.get(k)}
    if after['name'] == before['name']:
        return {**trained, **asked}
    if after['name'] not in POSITIONS:
        return dict(after)  # the model's configuration says what is wrong
    old, new = (inspect.signature(POSITIONS[x['name']]).parameters for x in (trained, after))
    kept = {
        k: trained[k]
        for k in LIKE_ROPE
        if trained.get(k) is not None and k in old and k in new and old[k].default == new[k].default
    }
    configured = {k: v for k, v in after.items() if v is not None and k in new}
    return {'name': after['name'], **kept, **configured, **asked}
