"""The state of training: all that a checkpoint must hold besides the position in the data."""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp
import optax

from lcx.types import Array, Tree


class TrainState(NamedTuple):
    step: Array  # finished steps, int32
    params: Tree  # fp32
    opt_state: Tree
    key: Array  # jax.random key; a step folds its number in
    finite: Array  # False after a non-finite step: every later step leaves the state as it is


def create(params: Tree, optimizer: optax.GradientTransformation, key: Array) -> TrainState:
    """The state before the first step."""
    return TrainState(jnp.zeros((), jnp.int32), params, optimizer.init(params), key, jnp.ones((), bool))
