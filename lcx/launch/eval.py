"""``lcx eval``: evaluate the newest checkpoint of a run, as it was trained or with other settings.

lcx eval --workdir=runs/base
lcx eval --init=runs/base --workdir=runs/yarn --config.model.position.name=yarn --config.label="YaRN, untuned"

Rows are appended to results.jsonl in --workdir. Overrides with --config.FIELD=VALUE change the configuration that the
run was trained with: model, eval, data and label. A position method without a factor takes the one that each length
needs, length / trained length.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from absl import flags as absl_flags

from lcx.errors import ConfigError
from lcx.launch import flags as shared

if TYPE_CHECKING:
    from ml_collections import ConfigDict

    from lcx.models import ModelConfig
    from lcx.types import Tree


def define(flags: absl_flags.FlagValues, argv: Sequence[str]) -> None:
    """Adds the verb's flags. The fields that can be overridden are those of the run's own configuration."""
    define_run(flags, argv, 'eval')


def define_run(
    flags: absl_flags.FlagValues, argv: Sequence[str], verb: str, by: Sequence[str] = ('init', 'workdir')
) -> None:
    """``--init``, ``--workdir`` and the overrides of a verb that works on a trained run, named ``by`` one of them."""
    first = absl_flags.FlagValues()
    _define_directories(first)
    with contextlib.suppress(absl_flags.Error):  # reported when all flags are parsed
        first(
            [f'lcx {verb}', *(a for a in argv if a.startswith(('--init', '--workdir', '-init', '-workdir')))]
        )
    _define_directories(flags)
    source = next((first[name].value for name in by if first[name].value), None)
    for word in argv:
        if word.lstrip('-').partition('=')[0] == 'config':
            raise ConfigError(
                f'{word}: {verb} takes the configuration of the run itself; give --config.FIELD=VALUE.'
            )
        if source is None and word.lstrip('-').startswith('config.'):
            raise ConfigError(f'{word}: which run? Name it, for example --{by[-1]}=runs/base.')
    if source is not None:
        from ml_collections import config_flags

        config = saved_config(Path(source))
        shared.check_overrides(config, argv)
        config_flags.DEFINE_config_dict(
            'config',
            config,
            "Override any field of the run's configuration with --config.FIELD=VALUE.",
            flag_values=flags,
        )


def _define_directories(flags: absl_flags.FlagValues) -> None:
    shared.define_workdir(flags, 'Directory that results go to; the evaluated run unless --init is given.')
    absl_flags.DEFINE_string(
        'init', None, 'Run whose newest checkpoint is evaluated. Default: --workdir.', flag_values=flags
    )


def run(flags: absl_flags.FlagValues, arguments: list[str]) -> None:
    """Restores the parameters, applies the overrides and writes the results."""
    from lcx.data.sources import validate
    from lcx.launch.evaluation import make_evaluate
    from lcx.launch.experiment import experiment_config, values_of
    from lcx.launch.start import start
    from lcx.launch.workdir import Workdir

    shared.no_arguments(arguments)
    target = Path(shared.required(flags, 'workdir', 'runs/base'))
    source = Path(flags.init or target)
    before, after = values_of(saved_config(source)), values_of(flags.config)
    config = experiment_config(after)
    validate(config.data, config.eval.split)
    model, step = evaluated_model(source, before['model'], after['model'])
    with Workdir(target) as workdir:
        evaluate = make_evaluate(config, target, source)  # reads the data
        if workdir.saved_config() is None:
            workdir.write_config(after)
        start(workdir, config.seed)
        evaluate(load_params(source, model, step), model, step)


def saved_config(source: Path) -> ConfigDict:
    """The configuration that the run in ``source`` was trained with, as a ConfigDict with typed fields."""
    from configs import base

    path = source / 'config.json'
    if not path.is_file():
        raise ConfigError(f'init: {str(source)!r} is not the workdir of a run: it has no config.json.')
    config = base.get_config()
    _fill(config, json.loads(path.read_text()))
    return config


def _fill(config: Any, values: Mapping[str, Any]) -> None:
    """Writes JSON values into a ConfigDict; fields at null keep their type for overrides."""
    from ml_collections import ConfigDict

    def typed(value: Any) -> Any:
        if isinstance(value, Mapping):
            return ConfigDict({k: typed(v) for k, v in value.items()})
        return tuple(typed(v) for v in value) if isinstance(value, list) else value

    for name, value in values.items():
        if isinstance(value, Mapping) and isinstance(config.get(name), ConfigDict):
            _fill(config[name], value)
        elif value is not None:
            with config.ignore_type():
                config[name] = typed(value)


def evaluated_model(source: Path, before: Mapping, after: Mapping) -> tuple[ModelConfig, int]:
    """``(model, step)`` of the newest checkpoint, with the fields of ``config.model`` that differ between the two."""
    from lcx import config as configuration
    from lcx.models import ModelConfig
    from lcx.train.checkpoint import Checkpoints

    with Checkpoints(source / 'checkpoints', keep=None) as checkpoints:
        step = checkpoints.latest()
        values = dict(checkpoints.extra(step)['model'])
    changed = {k: v for k, v in after.items() if v != before.get(k)}
    position = changed.pop('position', None)
    if position is not None:
        changed['position'] = _changed_position(values['position'], before['position'], position)
    return configuration.build(ModelConfig, {**values, **changed}, 'model'), step


def _changed_position(trained: Mapping, before: Mapping, after: Mapping) -> dict[str, Any]:
    """Another method starts from its own defaults; the same method keeps what it was trained with."""
    if after['name'] != before['name']:
        return {k: v for k, v in after.items() if v is not None}
    return {**trained, **{k: v for k, v in after.items() if v != before.get(k)}}


def load_params(source: Path, model: ModelConfig, step: int) -> Tree:
    """The parameters alone, without the optimizer's state, adapters merged into the matrices."""
    from lcx.train.checkpoint import Checkpoints
    from lcx.train.tune import merged_params

    with Checkpoints(source / 'checkpoints', keep=None) as checkpoints:
        return merged_params(checkpoints, model, step)
