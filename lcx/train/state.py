"""The state of training: all that a checkpoint must hold besides the position in the data."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from lcx.compress import leaves
from lcx.types import Array, Tree


class TrainState(NamedTuple):
    step: Array  # finished steps, int32
    params: Tree  # fp32; frozen ones too
    opt_state: Tree  # of the parameters that train
    key: Array  # jax.random key; a step folds its number in
    finite: Array  # False after a non-finite step: every later step leaves the state as it is


def shardings(
    abstract: TrainState, where: Tree, optimizer: optax.GradientTransformation, trains: Callable[[str], bool]
) -> TrainState:
    """Where each array of a state lies: moments as their parameters do, numbers on every device.

    ``where`` has the NamedSharding of each of ``abstract.params``.
    """
    everywhere = jax.NamedSharding(jax.tree.leaves(where)[0].mesh, jax.P())
    places, _ = leaves.split(where, trains)
    moments = optax.tree_utils.tree_map_params(
        optimizer,
        lambda _, place: place,
        abstract.opt_state,
        places,
        transform_non_params=lambda _: everywhere,
    )
    return TrainState(everywhere, where, moments, everywhere, everywhere)


def create(
    params: Tree,
    optimizer: optax.GradientTransformation,
    key: Array,
    trains: Callable[[str], bool] = leaves.every,
) -> TrainState:
    """The state before the first step; ``trains`` tells by its name whether a leaf of ``params`` is trained."""
    trained, _ = leaves.split(params, trains)
    return TrainState(jnp.zeros((), jnp.int32), params, optimizer.init(trained), key, jnp.ones((), bool))
