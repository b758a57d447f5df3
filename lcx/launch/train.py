"""``lcx train``: train an experiment, or continue it: the same command on the same workdir goes on where it stopped.

lcx train --config=configs/base.py --workdir=runs/base
lcx train --config=configs/base.py --workdir=runs/yarn --config.init_from=runs/base --config.model.position.name=yarn
lcx train --config=configs/base.py:smoke --workdir=runs/smoke
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from absl import flags as absl_flags

from lcx.launch import flags as shared

if TYPE_CHECKING:
    from lcx.launch.experiment import ExperimentConfig
    from lcx.models import ModelConfig
    from lcx.types import Tree


def define(flags: absl_flags.FlagValues, argv: Sequence[str]) -> None:
    """Adds the verb's flags."""
    shared.define_config(flags)
    shared.define_workdir(flags, 'Directory of the run: created, or continued if it holds this experiment.')


def run(flags: absl_flags.FlagValues, arguments: list[str]) -> None:
    """Checks everything that can be checked without a device, then trains."""
    from lcx.data.sources import validate
    from lcx.launch.experiment import experiment_config, stage_models, values_of
    from lcx.launch.start import start
    from lcx.launch.workdir import Workdir, check_config

    shared.no_arguments(arguments)
    shared.required(flags, 'config', 'configs/base.py')
    values = values_of(flags.config)
    config = experiment_config(values)
    validate(config.data)
    models = stage_models(config, starting_model(config))
    with Workdir(shared.required(flags, 'workdir', 'runs/base')) as workdir:
        saved = workdir.saved_config()
        if saved is not None:
            check_config(saved, values)
        start(workdir, values, config.seed)
        train(config, models, workdir.path)


def starting_model(config: ExperimentConfig) -> ModelConfig:
    """The model whose parameters training starts from: ``config.model``, or as ``init_from`` was trained.

    Raises ConfigError where ``init_from`` has other sizes than the config.
    """
    from lcx import config as configuration
    from lcx.errors import ConfigError
    from lcx.models import ModelConfig
    from lcx.train.checkpoint import Checkpoints

    if config.init_from is None:
        return config.model
    directory = Path(config.init_from)
    if not (directory / 'checkpoints').is_dir():
        raise ConfigError(f'init_from: {str(directory)!r} is not a workdir with checkpoints.')
    with Checkpoints(directory / 'checkpoints', keep=None) as checkpoints:
        saved = configuration.build(ModelConfig, checkpoints.extra()['model'], 'init_from')
    sizes = (
        'vocab',
        'width',
        'layers',
        'heads',
        'kv_heads',
        'head_dim',
        'hidden',
        'tie_embeddings',
        'qk_norm',
    )
    for name in sizes:
        have, want = getattr(saved, name), getattr(config.model, name)
        if have != want:
            raise ConfigError(f'model.{name}: {want!r}, but the parameters of init_from have {have!r}.')
    return dataclasses.replace(config.model, trained_length=saved.trained_length)


def train(config: ExperimentConfig, models: tuple[ModelConfig, ...], workdir: Path) -> None:
    """Puts data, model, loop and evaluators together and runs what is left."""
    import jax
    from rich.console import Console

    from lcx.data.pipeline import batches
    from lcx.data.tokens import open_tokens
    from lcx.launch.evaluation import make_evaluate
    from lcx.train.loop import Experiment
    from lcx.train.loop import train as loop

    console = Console(stderr=True)
    tokens = open_tokens(config.data, 'train')

    def stage_batches(stage: int):
        here = config.stages[stage]
        # Stages of one run read in orders of their own.
        seed = (config.seed + 1_000_003 * stage) % 2**32
        return batches(tokens, length=here.length, batch=here.batch, seed=seed, packing=config.data.packing)

    evaluate = make_evaluate(config, workdir, console)
    params = initial_params(config, models[0])
    count = sum(x.size for x in jax.tree.leaves(params))
    console.print(
        f'{count / 1e6:.2f} M parameters, {len(tokens)} documents of {tokens.label} '
        f'({tokens.bytes / 1e6:.1f} MB), {jax.device_count()} x {jax.devices()[0].device_kind}',
        highlight=False,
    )
    loop(
        Experiment(
            config=config.train,
            models=models,
            params=params,
            batches=stage_batches,
            evaluate=evaluate,
            evaluate_every=config.eval.every,
            metadata={'data_fingerprint': tokens.fingerprint},
        ),
        workdir,
    )


def initial_params(config: ExperimentConfig, model: ModelConfig) -> Tree:
    """Parameters from ``init_from``, or drawn from the seed."""
    import jax

    from lcx.models import init
    from lcx.train.checkpoint import Checkpoints

    key = jax.random.key(config.seed)
    if config.init_from is None:
        return jax.jit(lambda key: init(model, key))(key)
    abstract = jax.eval_shape(lambda key: init(model, key), key)
    with Checkpoints(Path(config.init_from) / 'checkpoints', keep=None) as checkpoints:
        return checkpoints.restore(abstract, part='params')[0]
