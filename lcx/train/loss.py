"""The training loss: weighted mean cross-entropy, plus z-loss on the softmax normaliser."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from lcx.models import ModelConfig, score
from lcx.parallel.placement import Placement
from lcx.types import Array, Batch, Tree


def abstract_batch(rows: int, tokens: int) -> Batch:
    """Shapes and types of a batch."""
    ints, floats = (jax.ShapeDtypeStruct((rows, tokens), kind) for kind in (jnp.int32, jnp.float32))
    return Batch(ints, ints, floats, ints, ints, jax.ShapeDtypeStruct((rows,), jnp.int32))


def loss_sums(
    config: ModelConfig,
    params: Tree,
    batch: Batch,
    key: Array,
    *,
    z_loss: float,
    chunk: int,
    length: int | None = None,
    placement: Placement | None = None,
) -> tuple[Array, tuple[Array, Array]]:
    """``(objective, (nll, weight))`` summed over the batch's weighted targets, nats.

    objective = sum w * (nll + z_loss * log_norm^2)   (z-loss: PaLM, arXiv 2204.02311)

    Sums, not means: the caller divides by the total weight, so accumulated and packed batches weigh every token
    alike. ``key`` is for position methods that draw the positions they train on. A batch that was put on devices by
    ``placement`` had ``length`` tokens in a row, in the order of the text.
    """
    length = length or batch.tokens.shape[1]
    remap = config.remap(length)
    if remap is not None:
        remap = remap if placement is None else placement.of_text(remap, length)
        batch = batch._replace(positions=remap(key, batch.positions, True))
    scores = score(config, params, batch, chunk=chunk, length=length)
    nll = jnp.sum(scores.nll * batch.weights)
    objective = nll
    if z_loss:
        objective = nll + z_loss * jnp.sum(scores.log_norm**2 * batch.weights)
    return objective, (nll, jnp.sum(batch.weights))
