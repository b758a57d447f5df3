"""In which order tokens lie on devices, so that a causal rule gives all of them the same work.

Attention knows tokens by their positions, so an order is a permutation of a batch before the model and nothing else.
Twelve tokens over three devices:

    contiguous    0  1  2  3   |   4  5  6  7   |   8  9 10 11     as in the text: the last device has the most work
    zigzag        0  1 10 11   |   2  3  8  9   |   4  5  6  7     2 n pieces, device i has pieces i and 2 n - 1 - i
    striped       0  3  6  9   |   1  4  7 10   |   2  5  8 11     in turn (arXiv 2311.09431)

Both are even for causal attention also step by step of a ring. Zigzag keeps neighbours together, so that blocks can be
skipped: half of them. With m blocks on a device striped makes (m + 1)/2m of them, and all for windows, but evenly.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

from lcx.attention import blocks
from lcx.attention.masks import Rule
from lcx.errors import ConfigError, unknown
from lcx.types import Array, Batch, Int, Where


class Order(NamedTuple):
    """``place(indices 'T', devices)`` gives the indices in their new order; each device holds ``pieces``."""

    pieces: int
    place: Callable[[np.ndarray, int], np.ndarray]


def _zigzag(indices: np.ndarray, devices: int) -> np.ndarray:
    pieces = indices.reshape(2 * devices, -1)
    return np.stack([pieces[:devices], pieces[::-1][:devices]], axis=1).reshape(-1)


ORDERS = {
    'contiguous': Order(1, lambda indices, devices: indices),
    'zigzag': Order(2, _zigzag),
    'striped': Order(1, lambda indices, devices: indices.reshape(-1, devices).T.reshape(-1)),
}


def permutation(order: str, length: int, devices: int) -> Int[np.ndarray, ' T']:
    """Which token lies at each place: ``x[:, permutation]`` is in the new order, ``argsort`` of it undoes that.

    Raises:
      ConfigError: the order is unknown, or ``length`` is not a multiple of its pieces.
    """
    if order not in ORDERS:
        raise ConfigError(unknown('order', order, ORDERS))
    pieces = ORDERS[order].pieces * devices
    if length % pieces:
        raise ConfigError(
            f'length: {length} tokens are no multiple of the {pieces} pieces of {order!r} on {devices} devices. '
            f'Nearest: {nearest(length, pieces)}.'
        )
    return ORDERS[order].place(np.arange(length), devices)


def nearest(length: int, multiple: int) -> str:
    """The multiples around ``length``, for messages."""
    below = length // multiple * multiple
    return ' or '.join(str(x) for x in (below, below + multiple) if x)


def filled(order: str, length: int, devices: int) -> int:
    """Tokens of a row once padding has made its pieces even."""
    return length + -length % (ORDERS[order].pieces * devices)


def arrange(batch: Batch, order: str, devices: int) -> Batch:
    """The batch in that order, filled up with padding (segment PADDING, weight 0) to what the devices share evenly."""
    pieces = ORDERS[order].pieces * devices if order in ORDERS else 1
    padded = [pad(x, pieces) for x in batch[:-1]]
    to = permutation(order, padded[0].shape[1], devices)
    return Batch(*(x[:, to] for x in padded), batch.ids)


def pad(x: Array, multiple: int) -> Array:
    """Axis 1 of a NumPy or JAX array filled up with zeros to a multiple."""
    add = [(0, 0), (0, -x.shape[1] % multiple)] + [(0, 0)] * (x.ndim - 2)
    return np.pad(x, add) if isinstance(x, np.ndarray) else jnp.pad(x, add)


def restore(x: Array, order: str, devices: int, length: int) -> Array:
    """Undoes :func:`arrange` for anything by token, 'B T ...', and leaves out the padding behind ``length``."""
    return x[:, np.argsort(permutation(order, x.shape[1], devices))][:, :length]


def work(rule: Rule, where: Where, devices: int, block: int) -> Int[np.ndarray, ' devices']:
    """Blocks of scores that each device makes in one row of its queries: how evenly an order shares the work.

    ``where`` is that of all tokens in their order, ``block`` divides a device's share of them.
    """
    queries, keys = blocks.sides(where, block, block)
    need, _ = blocks.judge(rule, queries, keys)
    return np.asarray(need).reshape(devices, -1).sum(axis=1)
