"""``lcx data``: prepare a data source once, and describe what is in it.

lcx data --source=austen
lcx data --source=kjv --tokenizer=DIRECTORY/tokenizer.json
lcx data --config=configs/base.py --config.data.source=text --config.data.files="('books/*.txt',)"
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from absl import flags as absl_flags

from lcx.errors import ConfigError
from lcx.launch import flags as shared

if TYPE_CHECKING:
    from ml_collections import ConfigDict


def define(flags: absl_flags.FlagValues, argv: Sequence[str]) -> None:
    """Adds the verb's flags."""
    shared.define_config(flags)
    for name, meaning in (
        ('source', 'Instead of --config: a data.source, the rest as in configs/base.py.'),
        ('tokenizer', 'With --source: a data.tokenizer. Default: bytes.'),
    ):
        absl_flags.DEFINE_string(name, None, meaning, flag_values=flags)


def run(flags: absl_flags.FlagValues, arguments: list[str]) -> None:
    """Prints documents, tokens and the length histogram of every split."""
    from rich.console import Console

    from lcx.data.describe import describe
    from lcx.launch.experiment import experiment_config, values_of

    shared.no_arguments(arguments)
    config = experiment_config(values_of(_chosen(flags)))
    Console().print(describe(config.data))


def _chosen(flags: absl_flags.FlagValues) -> ConfigDict:
    """``--config``, or the base configuration with ``--source`` and ``--tokenizer``."""
    from configs import base

    short = {name: flags[name].value for name in ('source', 'tokenizer') if flags[name].value is not None}
    if short and flags.config is not None:
        name, value = next(iter(short.items()))
        raise ConfigError(f'--{name} goes with no --config; write --config.data.{name}={value}.')
    if 'tokenizer' in short and 'source' not in short:
        raise ConfigError('--tokenizer goes with --source, for example --source=austen.')
    if not short:
        shared.required(flags, 'config', 'configs/base.py')
        return flags.config
    config = base.get_config()
    config.data.update(short)
    return config
