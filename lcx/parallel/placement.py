"""Where batches lie: rows over data and fsdp, tokens over context, in the order that shares the work of attention.

    placement = Placement(mesh, 'zigzag')
    with jax.set_mesh(placement.mesh):
        state, metrics = step(state, placement.put(batch))

On a mesh of one device a batch stays what it is.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import numpy as np

from lcx.parallel import orders, processes
from lcx.parallel.rules import ACTIVATIONS, spec
from lcx.types import PADDING, Array, Batch, Tree


class Placement(NamedTuple):
    """A mesh with the axes of :data:`lcx.parallel.mesh.AXES`, and an order of tokens (:mod:`lcx.parallel.orders`)."""

    mesh: jax.sharding.Mesh
    order: str = 'contiguous'

    @property
    def row_shards(self) -> int:
        return math.prod(self.mesh.shape[axis] for axis in ACTIVATIONS['batch'])

    @property
    def token_shards(self) -> int:
        return math.prod(self.mesh.shape[axis] for axis in ACTIVATIONS['length'])

    def put(self, batch: Batch, mine: np.ndarray | None = None, rows: int = 0) -> Batch:
        """The batch on its devices, tokens and rows filled up with padding to what they share evenly.

        One of several processes may give the rows ``mine`` alone that lie on its devices
        (:func:`lcx.parallel.processes.rows_of_process`), of a batch of that many ``rows``.
        """
        batch = orders.arrange(batch, self.order, self.token_shards)
        missing = -len(batch.tokens) % self.row_shards if mine is None else 0
        if missing:
            batch = Batch(*(np.pad(x, [(0, missing)] + [(0, 0)] * (np.ndim(x) - 1)) for x in batch))
            batch.segments[-missing:] = PADDING
        names = ('batch', 'length')
        places = (jax.NamedSharding(self.mesh, spec(names[: np.ndim(x)], ACTIVATIONS)) for x in batch)
        return Batch(*(processes.put(np.asarray(x), place, mine, rows) for x, place in zip(batch, places)))

    def of_text(self, remap: Callable, length: int) -> Callable:
        """``remap(key, positions 'B T', train)`` of ``length`` tokens in the order of the text, for batches put."""
        pieces = orders.ORDERS[self.order].pieces * self.token_shards
        to = orders.permutation(
            self.order, orders.filled(self.order, length, self.token_shards), self.token_shards
        )

        def run(key: Array, positions: Array, train: bool) -> Array:
            text = orders.restore(positions, self.order, self.token_shards, length)
            return orders.pad(remap(key, text, train), pieces)[:, to]

        return run

    def taken(self, scores: Tree, rows: int, length: int) -> Tree:
        """What was computed for each token of a batch of that size that was put, as NumPy 'B T' in its order."""
        filled = orders.filled(self.order, length, self.token_shards)
        to = np.argsort(orders.permutation(self.order, filled, self.token_shards))
        return jax.tree.map(lambda x: processes.whole(x)[:rows, to][:, :length], scores)
