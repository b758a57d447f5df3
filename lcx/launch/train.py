"""``lcx train``: train an experiment, or continue it: the same command on the same workdir goes on where it stopped.

lcx train --config=configs/base.py --workdir=runs/base
lcx train --config=configs/base.py --workdir=runs/yarn --config.init_from=runs/base --config.model.position.name=yarn
lcx train --config=configs/base.py:smoke --workdir=runs/smoke
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from absl import flags as absl_flags

from lcx.config import completed
from lcx.errors import ConfigError, DataError
from lcx.launch import distributed, origin
from lcx.launch import flags as shared

if TYPE_CHECKING:
    from lcx.data.feed import Feed
    from lcx.data.pipeline import BatchIterator
    from lcx.launch.experiment import ExperimentConfig
    from lcx.models import ModelConfig
    from lcx.parallel.placement import Placement
    from lcx.parallel.processes import Processes
    from lcx.parallel.rules import Mesh
    from lcx.types import Tree


def define(flags: absl_flags.FlagValues, argv: Sequence[str]) -> list[str]:
    """Adds the verb's flags."""
    shared.define_workdir(flags, 'Directory of the run: created, or continued if it holds this experiment.')
    return define_experiment(flags, argv)


def define_experiment(flags: absl_flags.FlagValues, argv: Sequence[str]) -> list[str]:
    """Adds ``--config``. What can be overridden of a Hugging Face directory's model are its own fields."""
    given, words = shared.peek(argv, 'config')
    peeked, _ = shared.peek(words, 'config.init_from', 'workdir')
    if given['config'] is None:
        shared.define_config(flags)
        return words
    config = shared.load_config(given['config'])
    init = peeked['config.init_from'] or config.init_from
    model = model_of(init, peeked['workdir'])
    if model is not None:
        config = origin.start_anew(origin.adopted(config, Path(init), model), words)
    shared.define_overrides(flags, config, words, 'Override any field')
    return words


def run(flags: absl_flags.FlagValues, arguments: list[str]) -> None:
    """Checks everything that can be checked without a device, then trains."""
    from lcx.data.feed import open_feed
    from lcx.data.sources import validate
    from lcx.launch.evaluation import make_evaluate
    from lcx.launch.experiment import ExperimentConfig, experiment_config, values_of
    from lcx.launch.start import start
    from lcx.launch.workdir import Workdir, check_config
    from lcx.parallel import processes
    from lcx.train.loop import Experiment, train
    from lcx.train.tune import abstract_params

    shared.no_arguments(arguments)
    shared.required(flags, 'config', 'configs/base.py')
    target = origin.workdir(flags, 'runs/base')
    model = model_of(flags.config.init_from, target)
    values = values_of(flags.config) if model is None else origin.applied(model, flags.config)[0]
    origin.check_tokenizer(Path(values['init_from'] or ''), values)
    config = experiment_config(values)
    validate(config.data, config.eval.split)
    distributed.initialize(config.distributed)
    here = processes.current()
    trained_length = starting_length(config, target)
    models = models_of(config, trained_length)
    shapes = abstract_params(config.train.tuning, models[0])
    with contextlib.ExitStack() as stack:
        workdir = Workdir(target)
        if here.first:
            stack.enter_context(workdir)
            saved = workdir.saved_config()
            if saved is not None:
                check_config(*(completed(ExperimentConfig, v) for v in (saved, values)))
        placement = placement_of(config)
        config = without_host_memory(config)
        models = models_of(config, trained_length)
        check_placement(config, models, placement)
        with here.first_then_others('data'):
            feed = open_feed(config.data)
            evaluate = make_evaluate(config, workdir.path, workdir.path, placement)
        check_same_data(here, feed)
        if here.first:
            workdir.write_config(values)  # stages may have been added
        start(workdir, config.seed)
        if here.first:
            describe(shapes, config.train.tuning.trains, feed, placement.mesh)
        train(
            Experiment(
                config=config.train,
                models=models,
                placement=placement,
                params=functools.partial(initial_params, config, models[0], placement.mesh),
                batches=functools.partial(stage_batches, config, feed, placement),
                evaluate=evaluate,
                evaluate_every=config.eval.every,
                metadata={'data_fingerprint': feed.fingerprint, 'starting_length': trained_length},
            ),
            workdir.path,
        )


def models_of(config: ExperimentConfig, trained_length: int) -> tuple[ModelConfig, ...]:
    """The model of every stage; the parameters at hand know ``trained_length``."""
    from lcx.launch.experiment import stage_models

    return stage_models(config, dataclasses.replace(config.model, trained_length=trained_length))


def check_same_data(here: Processes, feed: Feed) -> None:
    """Raises DataError unless all processes read the same data."""
    prints = here.everyone('fingerprint', feed.fingerprint)
    for index, found in enumerate(prints):
        if found != prints[0]:
            raise DataError(
                f'process {index} reads other data than process 0, or a copy whose files have other times: give a '
                'data.directory that all processes share.'
            )


def placement_of(config: ExperimentConfig) -> Placement:
    """The mesh of the devices, which are touched here for the first time.

    Raises:
      ConfigError: the sizes do not multiply to their number, or a layer's sequence strategy cannot do the order of
        tokens; the message has the nearest that can.
    """
    import jax

    from lcx.parallel import mesh, sequence
    from lcx.parallel.placement import Placement

    placement = Placement(mesh.make(config.mesh, jax.devices()), config.mesh.order)
    if placement.token_shards > 1:
        for name in config.model.pattern:
            sequence.check_order(config.mesh.order, config.model.kinds[name].sequence['name'])
    return placement


def without_host_memory(config: ExperimentConfig) -> ExperimentConfig:
    """``config`` as it is where devices reach the host's memory; else with nothing offloaded, which is said."""
    import jax
    from absl import logging

    from lcx.train.state import HOST

    if HOST in {memory.kind for memory in jax.local_devices()[0].addressable_memories()}:
        return config
    if config.model.remat == 'offload':
        logging.warning("model.remat: this backend has no %s memory; 'full' keeps the same on devices.", HOST)
        config = dataclasses.replace(config, model=dataclasses.replace(config.model, remat='full'))
    if config.optimizer.offload:
        logging.warning('optimizer.offload: this backend has no %s memory; the state stays on devices.', HOST)
        config = dataclasses.replace(config, optimizer=dataclasses.replace(config.optimizer, offload=False))
    return config


def check_placement(config: ExperimentConfig, models: Sequence[ModelConfig], placement: Placement) -> None:
    """Raises ConfigError, before anything is read or written, where stages cannot be trained over these devices.

    Rows or parameters that do not divide, rules that a sequence strategy cannot follow: each stage is traced, which
    takes a second, and nothing is compiled.
    """
    import jax

    from lcx.parallel import orders, rules
    from lcx.train import tune
    from lcx.train.loss import abstract_batch, loss_sums

    if placement.mesh.size == 1:
        return
    tuning, key = config.train.tuning, jax.eval_shape(lambda: jax.random.key(0))
    for i, (stage, model) in enumerate(zip(config.stages, models)):
        training = config.train.training(i, model)
        rules.share_rows(placement.mesh, f'stages[{i}].batch', stage.batch, config.optimizer.accumulate)
        tune.shardings(tuning, model, placement.mesh)
        options = {'z_loss': 0.0, 'chunk': config.loss.chunk, 'length': stage.length, 'placement': placement}
        sums = tuning.wrap(functools.partial(loss_sums, training, **options))
        tokens = orders.filled(placement.order, stage.length, placement.token_shards)
        batch = abstract_batch(stage.batch // config.optimizer.accumulate, tokens)
        params = tune.abstract_params(tuning, model)
        with jax.set_mesh(placement.mesh):
            jax.eval_shape(sums, params, batch, key)


def model_of(init: str | None, workdir: str | None) -> ModelConfig | None:
    """The model of the Hugging Face directory that a run starts from, if it does: its config then has no model.

    A run that goes on remembers it, and does without the directory.
    """
    from lcx import convert
    from lcx.launch.workdir import Workdir

    if init is None:
        return None
    if origin.is_converted(Path(init)):
        return convert.read_config(Path(init))
    saved = (Workdir(workdir).saved_config() if workdir else None) or {}
    source = saved.get('model', {}).get('source')
    return convert.from_hf(source) if source and saved.get('init_from') == init else None


# What must be equal in a model and the one that its parameters come from.
SAME = (
    'vocab', 'width', 'layers', 'heads', 'kv_heads', 'head_dim', 'hidden', 'tie_embeddings', 'embedding_scale', 'norm',
    'qk_norm', 'post_norms', 'parallel_residual', 'bias', 'activation', 'gated', 'attention_scale', 'attention_softcap',
)  # fmt: skip


def starting_length(config: ExperimentConfig, workdir: Path) -> int:
    """The length that the parameters know before the first step: what extension methods extend.

    A run that goes on remembers it, and needs ``init_from`` no more. Raises ConfigError where ``init_from`` is neither
    a run nor a Hugging Face directory, or has another model, or a rotation that is not asked for.
    """
    from lcx.positions.extension import ROTATION, keep_rotation
    from lcx.train.checkpoint import Checkpoints

    with Checkpoints(workdir / 'checkpoints', keep=None) as own:
        if own.latest() is not None:
            return own.extra()['starting_length']
    if config.init_from is None:
        return config.model.trained_length
    saved = origin.find(Path(config.init_from), 'init_from').model
    for name in SAME:
        have, want = getattr(saved, name), getattr(config.model, name)
        if have != want:
            raise ConfigError(f'model.{name}: {want!r}, but the parameters of init_from have {have!r}.')
    path, have, kept = (
        'model.position',
        config.model.position,
        keep_rotation(config.model.position, saved.position),
    )
    while kept.get('base') is not None:
        path, have, kept = f'{path}.base', have.get('base') or {}, kept['base']
    for name in ROTATION:
        if have.get(name) != kept.get(name):
            raise ConfigError(
                f'{path}.{name}: the parameters of init_from were trained with {kept[name]}; give that, or another.'
            )
    return saved.trained_length


def stage_batches(config: ExperimentConfig, feed: Feed, placement: Placement, stage: int) -> BatchIterator:
    """The batches of a stage, this process's rows of them. Stages of one run read in orders of their own."""
    from lcx.train.loop import rows_here

    here = config.stages[stage]
    seed = (config.seed + 1_000_003 * stage) % 2**32
    mine = rows_here(placement, here.batch)
    return feed.batches(length=here.length, batch=here.batch, seed=seed, mine=mine)


def initial_params(config: ExperimentConfig, model: ModelConfig, mesh: Mesh, where: Tree) -> Tree:
    """Parameters from ``init_from``, or drawn from the seed, as they lie ``where`` on ``mesh``."""
    import jax

    from lcx.models import init

    if config.init_from is None:
        return jax.jit(lambda key: init(model, key), out_shardings=where)(jax.random.key(config.seed))
    return origin.find(Path(config.init_from), 'init_from').params(model, mesh)


def describe(shapes: Tree, trains: Callable[[str], bool], feed: Feed, mesh: Mesh) -> None:
    """One line on what is about to run."""
    import jax
    from rich.console import Console

    from lcx.compress import leaves

    def millions(tree: Tree) -> str:
        return f'{sum(x.size for x in jax.tree.leaves(tree)) / 1e6:.2f} M'

    trained, frozen = leaves.split(shapes, trains)
    of_them = f' ({millions(trained)} of them train)' if frozen else ''
    axes = ' x '.join(f'{name} {size}' for name, size in mesh.shape.items() if size > 1)
    devices = f'{mesh.size} x {jax.devices()[0].device_kind}' + (f' ({axes})' if axes else '')
    Console(stderr=True).print(
        f'{millions(shapes)} parameters{of_them}, {feed.words}, {devices}', highlight=False
    )
