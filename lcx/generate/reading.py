"""A text read through a cache, a chunk at a time: the memory is that of the cache and of one chunk."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from lcx.generate.policies import Policy, Room
from lcx.models import ModelConfig, Scores
from lcx.models.decoder import Decoder
from lcx.models.scoring import of_targets
from lcx.types import Array, Batch, Tree


def room(length: int, chunk: int, after: int = 0) -> Room:
    """What :func:`score` asks of a cache for rows of ``length``: the text and its padding, wherever its prompt ends.

    ``after`` is how many of the tokens follow the prompt: policies that compress it keep room for those.
    """
    return Room(prompt=-(-(length + chunk - 1) // chunk) * chunk, new=after, chunk=chunk)


def score(
    model: ModelConfig, params: Tree, batch: Batch, policy: Policy, *, chunk: int, logits: int
) -> Scores:
    """Scores of every target, as a model that reads ``chunk`` tokens at a time through a cache gives them.

    The prompt ends with the token before the first target that has weight in any row: then the policy compresses, and
    what follows reads what is kept. Rows are shifted to the right, so that a chunk ends there. ``logits`` is how many
    tokens have logits at one time; ``policy`` was made for :func:`room`.
    """
    model = policy.model(model)
    rows, length = batch.tokens.shape
    # The inputs of the prompt; where nothing happens at its end, it does not matter where that is.
    prompt = length if policy.compress is None else _prompt(batch)
    shift = -prompt % chunk
    size = room(length, chunk).prompt

    def placed(x: Array) -> Array:
        return jax.lax.dynamic_update_slice_in_dim(jnp.zeros((rows, size), x.dtype), x, shift, axis=1)

    texts = tuple(placed(x) for x in (batch.tokens, batch.positions, batch.segments, batch.targets))
    decoder = Decoder(model, length=length)

    def step(i: Array, carry: tuple) -> tuple:
        caches, scores = carry
        tokens, positions, segments, targets = (
            jax.lax.dynamic_slice_in_dim(x, i * chunk, chunk, axis=1) for x in texts
        )
        hidden, caches = decoder.apply({'params': params}, tokens, positions, segments, caches)
        part = decoder.apply({'params': params}, hidden, targets, logits, method=of_targets)
        put = lambda x, y: jax.lax.dynamic_update_slice_in_dim(x, y, i * chunk, axis=1)  # noqa: E731
        return caches, jax.tree.map(put, scores, part)

    nothing = Scores(*(jnp.zeros((rows, size)) for _ in Scores._fields))
    caches = policy.caches(model, rows).until(jnp.max(batch.positions, axis=1))
    ends = (prompt + shift) // chunk
    caches, scores = jax.lax.fori_loop(0, ends, step, (caches, nothing))
    if policy.compress is not None:
        rest = -(-(length + shift) // chunk)
        _, scores = jax.lax.fori_loop(ends, rest, step, (policy.compressed(caches), scores))
    return jax.tree.map(lambda x: jax.lax.dynamic_slice_in_dim(x, shift, length, axis=1), scores)


def _prompt(batch: Batch) -> Array:
    """How many inputs come up to the first target with weight, that target's own among them."""
    length = batch.tokens.shape[1]
    return jnp.min(jnp.where(jnp.any(batch.weights > 0, axis=0), jnp.arange(length), length - 1)) + 1
