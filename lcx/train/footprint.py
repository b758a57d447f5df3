"""What training takes of each device of a mesh, by arithmetic and abstract evaluation: nothing is allocated.

Counted, in bytes of one device:

    parameters     fp32, all of them, divided as lcx.parallel.rules has it; they are the master copy
    gradients      of those that train, fp32, divided alike; twice with optimizer.accumulate, the sum and a part
    optimizer      the state of optax for those, divided alike; optimizer.offload leaves it on the host but for the
                   end of each step, which takes all of it
    gathered       mesh.fsdp > 1: the largest that is whole over fsdp at one time, a period of layers or an embedding
                   table, in the dtype of activations
    moved          a pipeline of several rounds: the layers that a stage computes, which others hold
    activations    what the backward pass is handed by the forward pass: the residuals of ``jax.vjp`` of the loss, each
                   once, of the model, rows and tokens as one device has them, so with what model.remat makes again
                   left out; over context as a ring keeps them. Of a pipeline those of all rows of the stage's
                   layers, and as much again for every idle tick; stages without it as if none were ever idle
                   With model.remat=offload the inputs of layers are on the host
    period         model.remat other than none: the residuals of one period of layers without it, made again, of a
                   pipeline for one microbatch
    logits         of one chunk of loss.chunk, fp32, and their gradient

    total = parameters + gradients + optimizer + gathered + moved + activations + max(period, logits)

Not counted: what a kernel needs while it runs, buffers of collectives, batch and program. In float32, activations +
gathered + max(period, logits) were 0.76 to 1.12 of what XLA allocates on CPUs, one and eight of them; the least where a
block of scores is as large as what a layer keeps. In bfloat16 CPUs keep float32 copies, and it was half; accelerators
were not measured.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.extend
import jax.numpy as jnp
import optax
from jax.sharding import PartitionSpec

from lcx.compress import leaves
from lcx.config import Options
from lcx.models import ModelConfig
from lcx.models.config import DTYPES
from lcx.parallel import orders, rules
from lcx.parallel.mesh import share
from lcx.parallel.pipeline import check
from lcx.parallel.rules import Mesh
from lcx.train.config import OptimizerConfig, TrainConfig
from lcx.train.loss import abstract_batch, loss_sums
from lcx.train.optimizer import optimizer
from lcx.train.tune import Tuning, abstract_params, flops, shardings
from lcx.types import Batch, Tree


class Parameter(NamedTuple):
    """A leaf of the parameters on a mesh."""

    name: str
    shape: tuple[int, ...]
    dtype: str
    spec: PartitionSpec
    bytes: int  # of one device
    trains: bool


class Stage(NamedTuple):
    """A training stage on one device: the bytes of the module, and its work."""

    rows: int  # of each gradient step
    tokens: int  # of each row
    activations: int
    period: int
    logits: int
    flops: float  # of a step
    offloaded: int = 0  # of activations, in the memory of the host


class Footprint(NamedTuple):
    """What a run takes of one device; see the module."""

    parameters: tuple[Parameter, ...]
    gradients: int
    optimizer: int
    gathered: int
    moved: int
    stages: tuple[Stage, ...]
    offloaded: int = 0  # of the optimizer, in the memory of the host

    @property
    def held(self) -> int:
        """Bytes of the parameters."""
        return sum(x.bytes for x in self.parameters)

    def total(self, stage: Stage) -> int:
        """Bytes of everything that is counted, in that stage."""
        lasting = self.held + self.gradients + self.optimizer + self.gathered + self.moved
        return lasting + stage.activations + max(stage.period, stage.logits)


def footprint(
    config: TrainConfig, models: tuple[ModelConfig, ...], mesh: Mesh, order: str = 'contiguous'
) -> Footprint:
    """The footprint of a run whose stages train ``models``; ``order`` is that of the tokens over context.

    Raises:
      ConfigError: a size does not divide over the mesh; the message has both numbers and the nearest that do.
    """
    tuning = config.tuning
    shapes = abstract_params(tuning, models[0])
    where = shardings(tuning, models[0], mesh)
    found = parameters(shapes, where, tuning.trains)
    trained = sum(x.bytes for x in found if x.trains)
    moments = optimizer_bytes(config.optimizer, shapes, where, tuning.trains)
    return Footprint(
        found,
        trained * (2 if config.optimizer.accumulate > 1 else 1),
        moments,
        gathered_bytes(found, models[0], mesh),
        moved_bytes(found, config.training(0, models[0]), mesh),
        tuple(stage(config, i, model, mesh, order) for i, model in enumerate(models)),
        moments if config.optimizer.offload else 0,
    )


def parameters(shapes: Tree, where: Tree, trains: Callable[[str], bool]) -> tuple[Parameter, ...]:
    """The leaves of ``shapes`` as they lie ``where``."""
    specs = leaves.named(where)
    return tuple(
        Parameter(name, x.shape, str(x.dtype), specs[name].spec, _bytes(x, specs[name]), trains(name))
        for name, x in leaves.named(shapes).items()
    )


def optimizer_bytes(config: OptimizerConfig, shapes: Tree, where: Tree, trains: Callable[[str], bool]) -> int:
    """Bytes of the state of the optimizer on one device: what is like a parameter lies as that one does."""
    method = optimizer(
        config.name,
        lambda step: config.learning_rate,
        beta1=config.beta1,
        beta2=config.beta2,
        weight_decay=config.weight_decay,
        clip=config.clip,
    )
    trained, places = (leaves.split(tree, trains)[0] for tree in (shapes, where))
    state = jax.eval_shape(method.init, trained)
    sizes = optax.tree_utils.tree_map_params(
        method, _bytes, state, places, transform_non_params=lambda x: x.size * x.dtype.itemsize
    )
    return sum(jax.tree.leaves(sizes))


def gathered_bytes(found: tuple[Parameter, ...], model: ModelConfig, mesh: Mesh) -> int:
    """Bytes that are whole over fsdp at one time: of a period of the layers, or the larger table."""
    if mesh.shape['fsdp'] == 1:
        return 0
    item = jnp.dtype(DTYPES[model.dtype]).itemsize
    whole = {x.name: math.prod(x.shape) * item // rules.divided(_ungathered(x.spec), mesh) for x in found}
    period = sum(size for name, size in whole.items() if name.startswith('layers/'))
    repeats = max(1, model.repeats // mesh.shape['stage'])
    tables = [size for name, size in whole.items() if name in ('embedding', 'output')]
    return max(period // repeats, *tables)


def moved_bytes(found: tuple[Parameter, ...], model: ModelConfig, mesh: Mesh) -> int:
    """Bytes of the layers in the order in which a circular pipeline uses them."""
    schedule = model.read_pipeline()
    if schedule is None or schedule.rounds == 1 or mesh.shape['stage'] == 1:
        return 0
    return sum(x.bytes for x in found if x.name.startswith('layers/'))


def _ungathered(spec: PartitionSpec) -> PartitionSpec:
    return PartitionSpec(*(None if entry == 'fsdp' else entry for entry in spec))


def stage(
    config: TrainConfig, number: int, model: ModelConfig, mesh: Mesh, order: str = 'contiguous'
) -> Stage:
    """One stage of training on one device; ``model`` is that of the stage."""
    here, field = config.stages[number], f'stages[{number}]'
    accumulate, tuning = config.optimizer.accumulate, config.tuning
    rows = rules.share_rows(mesh, f'{field}.batch', here.batch, accumulate) // accumulate
    tokens = orders.filled(order, here.length, mesh.shape['context']) // mesh.shape['context']
    chunk = rows * min(tokens, max(1, config.loss.chunk * accumulate // here.batch))
    model = config.training(number, model)
    local = one_device(model, mesh)
    schedule, at_once = model.read_pipeline(), rows
    if schedule is not None:
        check(schedule, mesh, model.repeats, here.batch // accumulate)
        at_once = rows // schedule.microbatches

    def kept(model: ModelConfig, rows: int) -> tuple[int, int]:
        sums = functools.partial(loss_sums, model, z_loss=config.loss.z_loss, chunk=chunk)
        return residual_bytes(tuning, model, tuning.wrap(sums), rows, tokens)

    def of_period(remat: str, rows: int) -> int:
        one, two = (dataclasses.replace(local, remat=remat, layers=n * len(local.pattern)) for n in (1, 2))
        return kept(two, rows)[0] - kept(one, rows)[0]

    (activations, offloaded), stages = kept(local, rows), mesh.shape['stage']
    if schedule is not None:
        idle = schedule.ticks(stages) - schedule.rounds * schedule.microbatches
        repeats = local.repeats // schedule.rounds  # of a tick
        activations += idle * repeats * of_period(local.remat, at_once)
    period = 0 if local.remat == 'none' else of_period('none', at_once)
    work = flops(tuning, model, here.length) * here.batch * here.length / math.prod(mesh.shape.values())
    return Stage(rows, tokens, activations, period, 2 * 4 * chunk * local.vocab, work, offloaded)


def one_device(model: ModelConfig, mesh: Mesh) -> ModelConfig:
    """The model as one device computes it: its layers, heads, hidden units and part of the vocabulary."""

    def part(name: str, size: int) -> int:
        return share(mesh.shape, rules.FIELDS[name], size, rules.ACTIVATIONS[name])

    return dataclasses.replace(
        model,
        pipeline=Options(),
        vocab=part('vocab', model.vocab),
        heads=part('heads', model.heads),
        kv_heads=part('kv_heads', model.kv_heads),
        hidden=part('hidden', model.hidden),
        layers=part('layers', model.repeats) * len(model.pattern) + model.rest,
    )


def residual_bytes(
    tuning: Tuning, model: ModelConfig, sums: Callable, rows: int, tokens: int
) -> tuple[int, int]:
    """Bytes on the device, and on the host, that the forward pass of the loss ``sums`` keeps for the backward pass.

    Parameters and batch apart.
    """
    trained, frozen = leaves.split(abstract_params(tuning, model), tuning.trains)
    batch = abstract_batch(rows, tokens)

    def backward(trained: Tree, frozen: Tree, batch: Batch) -> Tree:
        def loss(trained: Tree) -> Tree:
            return sums(leaves.join(trained, frozen), batch, jax.random.key(0))

        return jax.vjp(loss, trained, has_aux=True)[1]

    jaxpr = jax.make_jaxpr(backward)(trained, frozen, batch).jaxpr
    given = set(jaxpr.invars)
    kept = {x for x in jaxpr.outvars if not isinstance(x, jax.extend.core.Literal)} - given
    host = [x for x in kept if x.aval.memory_space == jax.memory.Space.Host]
    return tuple(
        sum(x.aval.size * x.aval.dtype.itemsize for x in part) for part in (kept.difference(host), host)
    )


def _bytes(x: jax.ShapeDtypeStruct, where: jax.sharding.NamedSharding) -> int:
    return x.size * x.dtype.itemsize // rules.divided(where.spec, where.mesh)
