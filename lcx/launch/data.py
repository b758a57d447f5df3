"""``lcx data``: prepare a data source once, and describe what is in it.

lcx data --config=configs/base.py
lcx data --config=configs/base.py --config.data.source=text --config.data.files="('books/*.txt',)"
"""

from __future__ import annotations

from collections.abc import Sequence

from absl import flags as absl_flags

from lcx.launch import flags as shared


def define(flags: absl_flags.FlagValues, argv: Sequence[str]) -> None:
    """Adds the verb's flags."""
    shared.define_config(flags)


def run(flags: absl_flags.FlagValues, arguments: list[str]) -> None:
    """Prints documents, tokens and the length histogram of both splits."""
    from rich.console import Console

    from lcx.data.describe import describe
    from lcx.launch.experiment import experiment_config, values_of

    shared.no_arguments(arguments)
    shared.required(flags, 'config', 'configs/base.py')
    config = experiment_config(values_of(flags.config))
    Console().print(describe(config.data))
