"""Flags that several verbs share."""

from __future__ import annotations

from absl import flags as absl_flags

from lcx.errors import ConfigError


def define_config(flags: absl_flags.FlagValues) -> None:
    """``--config=FILE[:arg]`` with ``--config.FIELD=VALUE`` overrides."""
    from ml_collections import config_flags

    config_flags.DEFINE_config_file(
        'config',
        None,
        'Experiment configuration: FILE.py or FILE.py:smoke. Override any field with --config.FIELD=VALUE.',
        flag_values=flags,
    )


def define_workdir(flags: absl_flags.FlagValues, meaning: str) -> None:
    """``--workdir=DIR``."""
    absl_flags.DEFINE_string('workdir', None, meaning, flag_values=flags)


def required(flags: absl_flags.FlagValues, name: str, example: str) -> str:
    """The flag's value, or a ConfigError that shows how to give it."""
    if not flags[name].value:
        raise ConfigError(f'--{name} is required, for example --{name}={example}')
    return flags[name].value


def no_arguments(arguments: list[str]) -> None:
    """Raises ConfigError for words that are not flags."""
    if arguments:
        raise ConfigError(f'{arguments[0]!r} is not a flag; flags are written --name=value.')
