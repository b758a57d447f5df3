"""The compiled programs that evaluators score and write with: over a mesh, or through a cache."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence

import jax
import numpy as np

from lcx.data.tokenizers import Tokenizer
from lcx.eval import Apply, Generate
from lcx.generate import reading
from lcx.generate.loop import generate
from lcx.generate.policies import make_policy
from lcx.launch.experiment import ExperimentConfig
from lcx.models import ModelConfig, Scores, score
from lcx.parallel.placement import Placement
from lcx.types import Batch, Tree


class Programs:
    """What ``config`` makes of a model; each program is compiled once per length, and kept."""

    def __init__(self, config: ExperimentConfig, tokenizer: Tokenizer, placement: Placement) -> None:
        self.config, self.tokenizer, self.placement = config, tokenizer, placement
        self.apply = functools.cache(self._apply)

    def _apply(self, model: ModelConfig, through_cache: bool) -> Apply:
        """Scores of a batch, over the mesh; or through the cache, which holds the tokens of a row on one device."""
        placement, chunk = self.placement, self.config.loss.chunk

        @functools.partial(jax.jit, static_argnums=2)
        def over_mesh(params: Tree, batch: Batch, length: int) -> Scores:
            remap = model.remap(length)
            batch = self._drawn(batch, remap and placement.of_text(remap, length))
            return score(model, params, batch, chunk=chunk, length=length)

        @functools.partial(jax.jit, static_argnums=2)
        def in_pieces(params: Tree, batch: Batch, after: int) -> Scores:
            length = batch.tokens.shape[1]
            piece = min(self.config.generate.chunk, length)
            policy = make_policy(self.config.cache, reading.room(length, piece, after))
            batch = self._drawn(batch, model.remap(length))
            return reading.score(model, params, batch, policy, chunk=piece, logits=chunk)

        def whole(params: Tree, batch: Batch) -> Scores:
            rows, length = batch.tokens.shape
            with jax.set_mesh(placement.mesh):
                scores = over_mesh(params, placement.put(batch), length)
            return placement.taken(scores, rows, length)

        def cached(params: Tree, batch: Batch) -> Scores:
            return in_pieces(params, batch, tokens_after(batch))

        return cached if through_cache else whole

    def write(self, model: ModelConfig) -> Generate:
        """Continues prompts as ``config.generate`` says, until the document ends."""
        own = self.config.generate
        options = {'sampling': own.sampling, 'chunk': own.chunk, 'seed': self.config.seed}
        options |= {'cache': self.config.cache, 'eos': self.tokenizer.eos}

        def write(params: Tree, prompts: Sequence[np.ndarray], new: int) -> list[np.ndarray]:
            return generate(model, params, prompts, new=new, **options)

        return write

    def _drawn(self, batch: Batch, remap: Callable | None) -> Batch:
        """Some methods draw positions at evaluation too; the same ones every time."""
        if remap is None:
            return batch
        return batch._replace(positions=remap(jax.random.key(self.config.seed), batch.positions, False))


def tokens_after(batch: Batch) -> int:
    """A power of two that holds what follows the prompt in ``batch``: few programs for answers of many lengths."""
    counted = np.flatnonzero(np.any(np.asarray(batch.weights) > 0, axis=0))
    after = batch.tokens.shape[1] - 1 - counted[0] if len(counted) else 0
    return 1 << int(after).bit_length()
