"""The training loss: weighted mean cross-entropy, plus z-loss on the softmax normaliser."""

from __future__ import annotations

import jax.numpy as jnp

from lcx.models import ModelConfig, score
from lcx.types import Array, Batch, Tree


def loss_sums(
    config: ModelConfig, params: Tree, batch: Batch, key: Array, *, z_loss: float, chunk: int
) -> tuple[Array, tuple[Array, Array]]:
    """``(objective, (nll, weight))`` summed over the batch's weighted targets, nats.

    objective = sum w * (nll + z_loss * log_norm^2)   (z-loss: PaLM, arXiv 2204.02311)

    Sums, not means: the caller divides by the total weight, so accumulated and packed batches weigh every token
    alike. ``key`` is for position methods that draw the positions they train on.
    """
    remap = config.remap(batch.tokens.shape[1])
    if remap is not None:
        batch = batch._replace(positions=remap(key, batch.positions, True))
    scores = score(config, params, batch, chunk=chunk)
    nll = jnp.sum(scores.nll * batch.weights)
    objective = nll
    if z_loss:
        objective = nll + z_loss * jnp.sum(scores.log_norm**2 * batch.weights)
    return objective, (nll, jnp.sum(batch.weights))
