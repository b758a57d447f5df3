"""``lcx plan``: what training takes of each device, by arithmetic: nothing is allocated, and no device has to be there.

lcx plan --config=configs/base.py
lcx plan --config=configs/base.py --config.model.preset=llama_8b --devices=64 --config.mesh.fsdp=-1
lcx plan --config=configs/base.py --cache_tokens=8192 --cache_rows=4       # and the keys and values of texts

Every parameter with its part on a device, then the sums; lcx/train/footprint.py says what they count.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from absl import flags as absl_flags

from lcx.errors import ConfigError
from lcx.launch import flags as shared

if TYPE_CHECKING:
    from jax.sharding import PartitionSpec

    from lcx.launch.experiment import ExperimentConfig
    from lcx.models import ModelConfig
    from lcx.parallel.rules import Mesh
    from lcx.train.footprint import Footprint
    from lcx.viz.tables import Table

UNITS = 'B', 'kB', 'MB', 'GB', 'TB'  # powers of 1000
PREFIXES = '', 'k', 'M', 'G', 'T', 'P', 'E'


def define(flags: absl_flags.FlagValues, argv: Sequence[str]) -> list[str]:
    """Adds the verb's flags."""
    from lcx.launch import train

    for name, meaning in (
        (
            'devices',
            'Devices of the mesh, whether or not they are there. Default: the product of config.mesh, -1 being 1.',
        ),
        ('cache_tokens', 'Counts the cache of a text of so many tokens too, as config.cache keeps it.'),
        (
            'cache_rows',
            'With --cache_tokens: texts at a time. Default: a text for each device of data and fsdp.',
        ),
    ):
        absl_flags.DEFINE_integer(name, None, meaning, flag_values=flags)
    return train.define_experiment(flags, argv)


def run(flags: absl_flags.FlagValues, arguments: list[str]) -> None:
    """Prints the tables."""
    from lcx.launch import origin
    from lcx.launch.experiment import experiment_config, stage_models, values_of
    from lcx.launch.train import model_of
    from lcx.parallel import mesh as meshes
    from lcx.train.footprint import footprint
    from lcx.viz.tables import to_markdown

    shared.no_arguments(arguments)
    shared.required(flags, 'config', 'configs/base.py')
    model = model_of(flags.config.init_from, None)
    values = values_of(flags.config) if model is None else origin.applied(model, flags.config)[0]
    origin.check_tokenizer(Path(values['init_from'] or ''), values)
    config = experiment_config(values)
    mesh = meshes.abstract(config.mesh, devices(flags.devices, config))
    models = stage_models(config, starting_model(config))
    found = footprint(config.train, models, mesh, config.mesh.order)
    cached = cache_bytes(config, models[-1], mesh, flags.cache_tokens, flags.cache_rows)
    print('\n'.join(map(to_markdown, (parameters(found, mesh), sums(config, found, cached, mesh)))), end='')


def devices(given: int | None, config: ExperimentConfig) -> int:
    """How many devices there are. Raises ConfigError for none."""
    if given is not None and given < 1:
        raise ConfigError(f'--devices: {given} must be at least 1. Nearest: 1.')
    return given or abs(math.prod(config.mesh.given.values()))


def starting_model(config: ExperimentConfig) -> ModelConfig:
    """The model at the length that its parameters know. Raises ConfigError where ``init_from`` is none."""
    from lcx.launch import origin

    if config.init_from is None:
        return config.model
    known = origin.find(Path(config.init_from), 'init_from').model.trained_length
    return dataclasses.replace(config.model, trained_length=known)


def cache_bytes(
    config: ExperimentConfig, model: ModelConfig, mesh: Mesh, tokens: int | None, rows: int | None
) -> int | None:
    """Bytes on one device of the cache of ``rows`` texts of ``tokens`` tokens; None if nobody asks.

    Rows lie over data and fsdp, key heads over tensor, layers over stage; context divides nothing of it.

    Raises:
      ConfigError: a number is below 1, rows do not divide, or ``rows`` are given alone.
    """
    import jax

    from lcx.generate.policies import Room, held_bytes, make_policy
    from lcx.parallel import rules
    from lcx.train.footprint import one_device

    if tokens is None and rows is not None:
        raise ConfigError(f'--cache_rows: {rows} goes with --cache_tokens, for example --cache_tokens=8192.')
    for name, value in (('tokens', tokens), ('rows', rows)):
        if value is not None and value < 1:
            raise ConfigError(f'--cache_{name}: {value} must be at least 1. Nearest: 1.')
    if tokens is None:
        return None
    own = 1 if rows is None else rules.share_rows(mesh, '--cache_rows', rows)
    policy = make_policy(config.cache, Room(prompt=tokens, new=0, chunk=min(config.generate.chunk, tokens)))
    local = policy.model(one_device(model, mesh))
    return held_bytes(jax.eval_shape(lambda: policy.caches(local, own)))


def parameters(found: Footprint, mesh: Mesh) -> Table:
    """A row for each parameter."""
    rows = [
        (x.name, ' x '.join(map(str, x.shape)), x.dtype, divided_by(x.spec, mesh), f'{x.bytes:,}')
        for x in found.parameters
    ]
    if not all(x.trains for x in found.parameters):
        rows = [
            (f'{name} (frozen)' * (not x.trains) or name, *rest)
            for x, (name, *rest) in zip(found.parameters, rows)
        ]
    sizes = ' x '.join(f'{name} {size}' for name, size in mesh.shape.items())
    caption = f'Axes of the mesh that divide each axis, - none. Devices: {sizes}.'
    return _table(
        'parameters', ('parameter', 'shape', 'dtype', 'divided by', 'bytes per device'), rows, caption
    )


def divided_by(spec: PartitionSpec, mesh: Mesh) -> str:
    """The axes of the mesh that are longer than 1, '-' for none: 'stage, fsdp, -'."""
    return ', '.join(entry if entry and mesh.shape[entry] > 1 else '-' for entry in spec) or '-'


def sums(config: ExperimentConfig, found: Footprint, cached: int | None, mesh: Mesh) -> Table:
    """Bytes of one device, and its work, in every stage."""
    head = [f'stages[{i}]: {s.length} x {s.batch}' for i, s in enumerate(config.stages)]
    count = sum(math.prod(x.shape) for x in found.parameters) / 1e6
    lasting = (
        (f'parameters ({count:,.2f} M)', found.held),
        ('gradients', found.gradients),
        ('optimizer state', found.optimizer),
        ('parameters gathered over fsdp', found.gathered),
        *([('layers moved over stage', found.moved)] if found.moved else []),
    )
    rows = [(name, *(_short(size, UNITS) for _ in found.stages)) for name, size in lasting]
    each = (
        (f'activations kept (remat {config.model.remat})', lambda s: _short(s.activations, UNITS)),
        ('a period of layers made again †', lambda s: _short(s.period, UNITS)),
        ('logits of a chunk †', lambda s: _short(s.logits, UNITS)),
        ('total per device', lambda s: _short(found.total(s), UNITS)),
        ('tokens per device and step', lambda s: f'{s.rows * config.optimizer.accumulate * s.tokens:,}'),
        ('FLOPs per device and step', lambda s: _short(s.flops, PREFIXES)),
    )
    rows += [(name, *map(text, found.stages)) for name, text in each]
    if found.offloaded or any(s.offloaded for s in found.stages):
        on_host = (_short(found.offloaded + s.offloaded, UNITS) for s in found.stages)
        rows.append(('offloaded, in the memory of the host', *on_host))
    if cached is not None:
        rows.append(
            (
                f'cache ({config.cache["name"]}), not in training',
                *(_short(cached, UNITS) for _ in found.stages),
            )
        )
    tokens = ', '.join(f'{s.length * s.batch:,}' for s in config.stages)
    caption = (
        f'Of one device. † the larger of the two counts in the total. Tokens of a step on all devices: {tokens}. '
        'Not counted: what kernels and collectives need while they run.'
    )
    return _table('sums', ('per device', *head), rows, caption)


def _table(name: str, head: Sequence[str], rows: Sequence[Sequence[str]], caption: str) -> Table:
    from lcx.viz.tables import Cell, Table

    return Table(name, tuple(head), tuple(tuple(Cell(text) for text in row) for row in rows), caption)


def _short(value: float, units: Sequence[str]) -> str:
    """'1.24 GB': three digits or more, in the largest unit that leaves 1 before the point."""
    power = min(len(units) - 1, int(math.log(value, 1000) + 1e-9)) if value >= 1 else 0
    digits = f'{value / 1000**power:.{0 if power == 0 else 2}f}'
    return f'{digits} {units[power]}'.rstrip()
