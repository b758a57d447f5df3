"""What of a model trains: all of it, chosen leaves, or low-rank adapters beside frozen matrices.

The state of a run holds every parameter, and the optimizer's state those that train alone. Adapters stand among the
parameters, each beside its kernel: who reads such a checkpoint as if it were a plain model gets an error and not the
base by mistake. ``merged_params`` reads every checkpoint as a plain model.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax

from lcx import config
from lcx.compress import LoraConfig, leaves
from lcx.compress import lora as adapters
from lcx.models import ModelConfig, boxed, init
from lcx.parallel import rules
from lcx.train.checkpoint import Checkpoints
from lcx.types import Array, Tree

QUERY_AND_VALUE = ('mixer/query', 'mixer/value')  # what the paper of LoRA adapts


class Tuning(NamedTuple):
    """What trains, by the names of leaves, and what it takes besides."""

    prepare: Callable[[ModelConfig, Tree, Array], Tree]  # (model, its parameters, key) -> those of the state
    trains: Callable[[str], bool]
    wrap: Callable[[Callable], Callable]  # a loss of the model's parameters -> one of the state's
    merged: Callable[[Tree], Tree]  # the state's parameters -> the model's, with all that was learned


def full() -> Tuning:
    """Every parameter."""
    return Tuning(lambda model, params, key: params, leaves.every, lambda loss: loss, lambda params: params)


def chosen(*, train: tuple[str, ...]) -> Tuning:
    """The leaves whose names match ``train``; the others stay as they are."""

    def prepare(model: ModelConfig, params: Tree, key: Array) -> Tree:
        del model, key
        leaves.check(train, leaves.named(params), 'tune.train')
        return params

    return full()._replace(prepare=prepare, trains=lambda name: leaves.matches(train, name))


def lora(
    *,
    rank: int = 8,
    alpha: float = 16.0,
    targets: tuple[str, ...] = QUERY_AND_VALUE,
    rank_stabilised: bool = False,
    train: tuple[str, ...] = (),
) -> Tuning:
    """LoRA on the linear maps that ``targets`` match, and the leaves that ``train`` match.

    LongLoRA (arXiv 2309.12307) trains the embedding and the norms too, without which LoRA does not reach full tuning
    at longer contexts: ``train=('embedding', '*norm*')``.
    """
    settings, others = LoraConfig(rank, alpha, targets, rank_stabilised), chosen(train=train)

    def prepare(model: ModelConfig, params: Tree, key: Array) -> Tree:
        return leaves.join(others.prepare(model, params, key), adapters.init(settings, model, params, key))

    def merged(params: Tree) -> Tree:
        added, base = leaves.split(params, adapters.is_adapter)
        return adapters.merge(base, added, settings)

    return Tuning(
        prepare,
        lambda name: adapters.is_adapter(name) or others.trains(name),
        lambda loss: adapters.adapted(settings, loss),
        merged,
    )


TUNINGS = {'full': full, 'chosen': chosen, 'lora': lora}


def abstract_params(tuning: Tuning, model: ModelConfig) -> Tree:
    """Shapes of the parameters in the state of a run. Raises ConfigError where a pattern matches nothing."""

    def prepared() -> Tree:
        key = jax.random.key(0)
        return tuning.prepare(model, init(model, key), key)

    return jax.eval_shape(prepared)


def shardings(tuning: Tuning, model: ModelConfig, mesh: rules.Mesh) -> Tree:
    """Where the parameters of the state of a run lie, adapters beside their kernels. Raises ConfigError."""
    return rules.shardings(adapters.boxed(boxed(model), abstract_params(tuning, model)), mesh)


def merged_params(
    checkpoints: Checkpoints, model: ModelConfig, step: int | None = None, mesh: rules.Mesh | None = None
) -> Tree:
    """The parameters of a run's checkpoint (default: the newest) as ``model`` takes them, adapters merged in.

    ``mesh`` is where they go; None: one device.

    Raises:
        StorageError: there is no such checkpoint, or none is intact.
        ConfigError: ``model`` is not the one that was trained.
    """
    tuning = config.make(TUNINGS, checkpoints.extra(step).get('tune', {'name': 'full'}), 'tune')
    abstract = abstract_params(tuning, model)
    if mesh is not None:
        abstract = rules.placed(abstract, shardings(tuning, model, mesh))
    params, _, _ = checkpoints.restore(abstract, step, part='params')
    return tuning.merged(params)


def flops(tuning: Tuning, model: ModelConfig, length: int) -> float:
    """Floating-point operations per token of a training step: a frozen matrix has no gradient of its own.

    Of the 6 per matrix parameter in :meth:`ModelConfig.flops` that is 2; adapters cost 6.
    """
    table = 'embedding' if model.tie_embeddings else 'output'
    total = model.flops(length)
    for name, x in leaves.named(abstract_params(tuning, model)).items():
        if adapters.is_adapter(name):
            total += 6 * x.size
        elif not tuning.trains(name) and (name == table or name.endswith('/kernel')):
            total -= 2 * x.size
    return total
