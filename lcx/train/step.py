"""One step of training as a pure function: ``(state, batch) -> (state, metrics)``."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax

from lcx.compress import leaves
from lcx.train.state import TrainState
from lcx.types import Array, Batch, Tree

LossSums = Callable[[Tree, Batch, Array], tuple[Array, tuple[Array, Array]]]


def train_step(
    state: TrainState,
    batch: Batch,
    *,
    loss_sums: LossSums,
    optimizer: optax.GradientTransformation,
    accumulate: int,
    trains: Callable[[str], bool] = leaves.every,
) -> tuple[TrainState, dict[str, Array]]:
    """Gradient, clip, update. ``metrics`` are scalars on the device: loss (nats per token), grad_norm, tokens, finite.

    If loss or gradient is not finite, or an earlier step's was not, the state stays exactly as it is but for
    ``finite``, so that the caller may look later without harm: parameters never see a bad update. Leaves that
    ``trains`` does not name have no gradient, no update and no copy: they are passed through.
    """
    key = jax.random.fold_in(state.key, state.step)
    trained, frozen = leaves.split(state.params, trains)

    def sums(trained: Tree, batch: Batch, key: Array) -> tuple[Array, tuple[Array, Array]]:
        return loss_sums(leaves.join(trained, frozen), batch, key)

    grads, nll, weight = gradients(trained, batch, key, sums, accumulate)
    norm = optax.tree.norm(grads)
    good = jnp.isfinite(nll) & jnp.isfinite(norm) & state.finite
    updates, opt_state = optimizer.update(grads, state.opt_state, trained)
    stepped = (state.step + 1, optax.apply_updates(trained, updates), opt_state)
    before = (state.step, trained, state.opt_state)
    step, trained, opt_state = jax.tree.map(lambda new, old: jnp.where(good, new, old), stepped, before)
    metrics = {'loss': nll / jnp.maximum(weight, 1), 'grad_norm': norm, 'tokens': weight, 'finite': good}
    return TrainState(step, leaves.join(trained, frozen), opt_state, state.key, good), metrics


def gradients(
    params: Tree, batch: Batch, key: Array, loss_sums: LossSums, accumulate: int
) -> tuple[Tree, Array, Array]:
    """Gradient of the mean loss, summed nll and total weight; the batch is taken in ``accumulate`` equal parts.

    A part is every ``accumulate``-th row: of rows that lie on many devices, each then works on its own.
    """

    def part(carry: tuple, xs: tuple[Batch, Array]) -> tuple[tuple, None]:
        (_, (nll, weight)), grads = jax.value_and_grad(loss_sums, has_aux=True)(params, *xs)
        return jax.tree.map(jnp.add, carry, (grads, nll, weight)), None

    zero = (jax.tree.map(jnp.zeros_like, params), jnp.zeros(()), jnp.zeros(()))
    if accumulate == 1:
        (grads, nll, weight), _ = part(zero, (batch, key))
    else:
        parts = jax.tree.map(lambda x: x.reshape(-1, accumulate, *x.shape[1:]).swapaxes(0, 1), batch)
        (grads, nll, weight), _ = jax.lax.scan(part, zero, (parts, jax.random.split(key, accumulate)))
    return jax.tree.map(lambda g: g / jnp.maximum(weight, 1), grads), nll, weight
