"""Devices in a line, and what they send each other, inside ``jax.shard_map``.

Several mesh axes are one line, the first the outermost. A line may also be part of one: 8 devices are 4 lines of 2
neighbours (``stride`` 1) and at the same time 2 lines of every second device (``stride`` 2).
"""

from __future__ import annotations

import math
from typing import NamedTuple

import jax

from lcx.types import Array, Tree


class Line(NamedTuple):
    """The devices ``start, start + stride, ...`` of mesh axes, ``size`` of them; the others form further lines."""

    axes: tuple[str, ...]
    sizes: tuple[int, ...]  # devices along each of the axes
    size: int
    stride: int = 1

    @classmethod
    def of(cls, axes: tuple[str, ...], sizes: tuple[int, ...]) -> Line:
        """All devices of the axes."""
        return cls(axes, sizes, math.prod(sizes))

    def split(self, inner: int) -> tuple[Line, Line]:
        """Lines of every ``inner``-th device, and lines of ``inner`` neighbours; ``inner`` divides the size."""
        return self._replace(size=self.size // inner, stride=inner), self._replace(size=inner)

    def groups(self) -> list[list[int]]:
        """The devices of every line, by their number along the axes."""
        total, reach = math.prod(self.sizes), self.size * self.stride
        return [
            list(range(start + offset, start + offset + reach, self.stride))
            for start in range(0, total, reach)
            for offset in range(self.stride)
        ]

    def index(self) -> Array:
        """This device's place in its line."""
        return jax.lax.axis_index(self.axes) // self.stride % self.size

    def shift(self, tree: Tree, around: bool = True) -> Tree:
        """What the device before has; the first has the last one's, or zeros unless ``around``."""
        hops = [
            pair
            for group in self.groups()
            for pair in zip(group if around else group[:-1], (*group[1:], group[0]))
        ]
        return jax.tree.map(lambda x: jax.lax.ppermute(x, self.axes, hops), tree)

    def gather(self, tree: Tree, axis: int = 1) -> Tree:
        """The shards of all devices of the line, one after the other along ``axis``."""
        options = {'axis': axis, 'tiled': True, 'axis_index_groups': self._groups()}
        return jax.tree.map(lambda x: jax.lax.all_gather(x, self.axes, **options), tree)

    def exchange(self, tree: Tree, split: int, join: int) -> Tree:
        """Each device keeps its part of axis ``split`` from all of them, in their order along axis ``join``."""
        options = {'tiled': True, 'axis_index_groups': self._groups()}
        return jax.tree.map(lambda x: jax.lax.all_to_all(x, self.axes, split, join, **options), tree)

    def _groups(self) -> list[list[int]] | None:
        """None says all devices, in the form that every backend knows."""
        return None if self.size == math.prod(self.sizes) else self.groups()
