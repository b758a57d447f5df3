"""The state of training: all that a checkpoint must hold besides the position in the data."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from lcx.compress import leaves
from lcx.types import Array, Batch, Tree

HOST = 'pinned_host'  # the memory of the host that devices read and write by themselves


class TrainState(NamedTuple):
    step: Array  # finished steps, int32
    params: Tree  # fp32; frozen ones too
    opt_state: Tree  # of the parameters that train
    key: Array  # jax.random key; a step folds its number in
    finite: Array  # False after a non-finite step: every later step leaves the state as it is


def shardings(
    abstract: TrainState,
    where: Tree,
    optimizer: optax.GradientTransformation,
    trains: Callable[[str], bool],
    offload: bool = False,
) -> TrainState:
    """Where each array of a state lies: moments as their parameters do, numbers on every device.

    ``where`` has the NamedSharding of each of ``abstract.params``; with ``offload`` moments lie beside it in the host's
    memory, of which :func:`fetched` brings them back.
    """
    everywhere = jax.NamedSharding(jax.tree.leaves(where)[0].mesh, jax.P())
    places, _ = leaves.split(where, trains)
    moments = optax.tree_utils.tree_map_params(
        optimizer,
        lambda _, place: place.with_memory_kind(HOST) if offload else place,
        abstract.opt_state,
        places,
        transform_non_params=lambda _: everywhere,
    )
    return TrainState(everywhere, where, moments, everywhere, everywhere)


def fetched(step: Callable[[TrainState, Batch], tuple]) -> Callable[[TrainState, Batch], tuple]:
    """``step`` of a state whose moments lie in the host's memory; where the new ones go, its ``out_shardings`` say."""

    def run(state: TrainState, batch: Batch) -> tuple:
        return step(state._replace(opt_state=jax.device_put(state.opt_state, jax.memory.Space.Device)), batch)

    return run


def create(
    params: Tree,
    optimizer: optax.GradientTransformation,
    key: Array,
    trains: Callable[[str], bool] = leaves.every,
) -> TrainState:
    """The state before the first step; ``trains`` tells by its name whether a leaf of ``params`` is trained."""
    trained, _ = leaves.split(params, trains)
    return TrainState(jnp.zeros((), jnp.int32), params, optimizer.init(trained), key, jnp.ones((), bool))
