"""Log-probabilities of target tokens, with logits that exist for one chunk of tokens at a time.

``[B, T, V]`` is never held: a scan over chunks of tokens makes the logits, reduces them to a few numbers per
token and forgets them; the backward pass makes them again. At V = 128k and T = 64k that is 0.5 GB instead of 32.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from lcx.models.chunks import over_tokens
from lcx.models.config import ModelConfig
from lcx.models.decoder import Decoder
from lcx.types import Array, Batch, Float, Int, Tree


class Scores(NamedTuple):
    """What is known of each target token."""

    nll: Float[Array, 'B T']  # -log p(target), nats
    log_norm: Float[Array, 'B T']  # log of the softmax denominator
    hit: Float[Array, 'B T']  # 1 where the target was more probable than every other token


def score(
    config: ModelConfig, params: Tree, batch: Batch, *, chunk: int, length: int | None = None
) -> Scores:
    """Scores of every target of ``batch``; at most about ``chunk`` tokens have logits at one time.

    ``length`` is the tokens of a row where padding was added to them: what extensions follow.
    """

    def run(model: Decoder) -> Scores:
        hidden = model(batch.tokens, batch.positions, batch.segments)
        return of_targets(model, hidden, batch.targets, chunk)

    return Decoder(config, length).apply({'params': params}, method=run)


def of_targets(
    model: Decoder, hidden: Float[Array, 'B T D'], targets: Int[Array, 'B T'], chunk: int
) -> Scores:
    """Scores of ``targets``, one for each hidden state; at most about ``chunk`` tokens have logits at one time."""
    return over_tokens(_scores, model, (hidden, targets), max(1, chunk // targets.shape[0]))


def _scores(model: Decoder, chunk: tuple[Array, Array]) -> Scores:
    hidden, targets = chunk
    logits = model.logits(hidden)
    log_norm = jax.nn.logsumexp(logits, axis=-1)
    # A comparison instead of a gather: its gradient is dense and cheap, and it shards over the vocabulary.
    at_target = targets[..., None] == jnp.arange(logits.shape[-1])
    of_target = jnp.sum(jnp.where(at_target, logits, 0), axis=-1)
    hit = jnp.sum(logits >= of_target[..., None], axis=-1) == 1  # the target alone: a tie is no answer
    return Scores(log_norm - of_target, log_norm, hit.astype(jnp.float32))
