"""``lcx eval``: evaluate a run or a converted model, as it was trained or with other settings.

lcx eval --workdir=runs/base
lcx eval --init=runs/base --workdir=runs/yarn --config.model.position.name=yarn --config.label="YaRN, untuned"
lcx eval --init=models/smollm2 --config=configs/smollm2.py --workdir=runs/ntk --config.model.position.name=ntk

Rows are appended to results.jsonl in --workdir. Overrides with --config.FIELD=VALUE change the configuration that the
run was trained with: model, eval, data and label. A Hugging Face directory has no such configuration: --config names
one, of which the model is the directory's. A position method without a factor takes the one that each length needs,
length / trained length.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from absl import flags as absl_flags

from lcx.launch import flags as shared
from lcx.launch import origin


def define(flags: absl_flags.FlagValues, argv: Sequence[str]) -> list[str]:
    """Adds the verb's flags. The fields that can be overridden are those of the run's own configuration."""
    return origin.define(
        flags,
        argv,
        'eval',
        {
            'init': 'Run, by its newest checkpoint, or Hugging Face directory that is evaluated. Default: --workdir.',
            'workdir': 'Directory that results go to; the evaluated run unless --init is given.',
        },
    )


def run(flags: absl_flags.FlagValues, arguments: list[str]) -> None:
    """Restores the parameters, applies the overrides and writes the results."""
    from lcx.data.sources import validate
    from lcx.launch.evaluation import make_evaluate
    from lcx.launch.experiment import experiment_config
    from lcx.launch.start import start
    from lcx.launch.train import placement_of
    from lcx.launch.workdir import Workdir

    shared.no_arguments(arguments)
    target = origin.workdir(flags, 'runs/base')
    source = origin.find(Path(flags.init or target))
    values, model = origin.applied(source.model, flags.config)
    origin.check_tokenizer(source.path, values)
    config = experiment_config(values)
    validate(config.data, config.eval.split)
    with Workdir(target) as workdir:
        placement = placement_of(config)
        evaluate = make_evaluate(config, target, source.path, placement)  # reads the data
        if workdir.saved_config() is None:
            workdir.write_config(values)
        start(workdir, config.seed)
        rows = evaluate(source.params(model, placement.mesh), model, source.step)
    path = target / 'results.jsonl'
    print(f'wrote {path}' if rows else f'nothing to do: {path} has all rows')
    if config.eval.report:
        from lcx.launch.report import report  # matplotlib takes a second to load

        report([str(target)], out=None)
