"""Which tensor of a file holds which of our parameters, and how its axes are ours in another order.

A row of a family's table, in the letters of the notation page:

    row('model.layers.{}.self_attn.q_proj.weight', '(N H) D', ('mixer/query/kernel', 'D N H'))

says that the matrix of the file, N * H by D, is the kernel 'D N H' of every layer. A tensor may join several of ours:
X is the axis along which they are joined, and those that lack it take one step of it.

    row('...query_key_value.weight', '(N X H) D', ('mixer/query/kernel', 'D N H'), ('mixer/key/kernel', 'D N H'), ...)

Sizes come from our parameters alone, so that a table says nothing twice.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from lcx.errors import ConfigError
from lcx.models import ModelConfig

Box = dict[str, tuple[int, int]]  # first and last + 1 index of each letter

PIECE = 32 * 2**20  # elements of a tensor that are read at one time


class Tensor(NamedTuple):
    """A row of a family's table, made by :func:`row`; see the module docstring."""

    name: str  # in the file; {} stands for the number of the layer
    axes: str  # in the file
    leaves: tuple[tuple[str, str], ...]  # our parameters: path below the block (or the tree), axes


class Part(NamedTuple):
    """One of our parameters, or one layer of it, inside a tensor of the file."""

    path: str  # of the leaf in our tree: 'layers/full_0/mixer/query/kernel'
    row: int | None  # of the leaf's first axis, where layers are stacked
    letters: tuple[str, ...]  # of the leaf, without the stack
    box: Box  # where it lies in the file's tensor


class Stored(NamedTuple):
    """A tensor of the file, with the sizes of a model."""

    name: str
    groups: tuple[tuple[str, ...], ...]  # the letters of each axis
    sizes: Mapping[str, int]
    parts: tuple[Part, ...]

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(math.prod(self.sizes[letter] for letter in group) for group in self.groups)

    @property
    def letters(self) -> tuple[str, ...]:
        return tuple(letter for group in self.groups for letter in group)


def row(name: str, axes: str, *leaves: tuple[str, str]) -> Tensor:
    """A row of a table: ``leaves`` are pairs of a parameter's path and its axes."""
    return Tensor(name, axes, leaves)


def stored(
    table: Sequence[Tensor], config: ModelConfig, shapes: Mapping[str, tuple[int, ...]]
) -> list[Stored]:
    """The tensors of a model whose parameters have these ``shapes``, by path, in the order of the file.

    A row none of whose parameters the model has is left out (biases, say).

    Raises:
      ConfigError: the table has no place for a parameter.
    """
    found, placed = [], set()
    per_layer = [t for t in table if '{}' in t.name]
    first = [t for t in table if '{}' not in t.name]
    for tensor, layer in [(t, None) for t in first] + [
        (t, i) for i in range(config.layers) for t in per_layer
    ]:
        name, prefix, at = tensor.name, '', None
        if layer is not None:
            name, (prefix, at) = tensor.name.format(layer), _place(config, layer)
        parts, sizes, joined = [], {}, 0
        for path, axes in tensor.leaves:
            if prefix + path not in shapes:
                continue
            letters, shape = tuple(axes.split()), shapes[prefix + path]
            own = dict(zip(letters, shape if at is None else shape[1:], strict=True))
            box = {letter: (0, size) for letter, size in own.items()}
            box['X'] = (joined, joined + own.pop('X', 1))
            joined = box['X'][1]
            sizes |= own
            parts.append(Part(prefix + path, at, letters, box))
        if parts:
            found.append(Stored(name, _groups(tensor.axes), {**sizes, 'X': joined}, tuple(parts)))
            placed |= {part.path for part in parts}
    for path in shapes:
        if path not in placed:
            raise ConfigError(f'{path}: the architecture has no tensor for this parameter.')
    return found


def _place(config: ModelConfig, layer: int) -> tuple[str, int | None]:
    """Where the parameters of a layer are: the path of its block, and the row if they are stacked."""
    period, i = divmod(layer, len(config.pattern))
    scanned = period < config.repeats
    return f'{"layers" if scanned else "rest"}/{config.pattern[i]}_{i}/', period if scanned else None


def _groups(axes: str) -> tuple[tuple[str, ...], ...]:
    return tuple(tuple(group.strip('()').split()) for group in re.findall(r'\([^)]*\)|\S+', axes))


def read(
    fetch: Callable[[str, tuple[slice, ...]], np.ndarray],
    tensor: Stored,
    part: Part,
    out: np.ndarray,
    box: Box,
) -> None:
    """Fills ``out`` with the ``box`` of a part, by pieces; ``fetch(name, slices)`` reads the file.

    ``box`` is that of the leaf's own letters, and ``out`` has its shape.
    """
    within = {x: (part.box[x][0] + a, part.box[x][0] + b) for x, (a, b) in box.items()}
    within.setdefault('X', part.box['X'])
    view = _in_order(out, part.letters, tensor.letters)
    for piece in _pieces({letter: within[letter] for letter in tensor.letters}):
        slices, shape, inner = [], [], []
        for group in tensor.groups:
            for each, more in zip((slices, shape, inner), _span(group, tensor.sizes, piece)):
                each.extend(more)
        target = tuple(slice(a - within[x][0], b - within[x][0]) for x, (a, b) in piece.items())
        view[target] = fetch(tensor.name, tuple(slices)).reshape(shape)[tuple(inner)]


def write(tensor: Stored, dtype: np.dtype, leaf: Callable[[Part], np.ndarray]) -> np.ndarray:
    """The whole tensor of the file, from ``leaf(part)``, the parameter's numbers without the stack."""
    out = np.empty(tensor.shape, dtype)
    view = out.reshape([tensor.sizes[letter] for letter in tensor.letters])
    for part in tensor.parts:
        where = tuple(slice(*part.box[letter]) for letter in tensor.letters)
        view[where] = _in_order(leaf(part), part.letters, tensor.letters)
    return out


def _in_order(x: np.ndarray, letters: tuple[str, ...], order: tuple[str, ...]) -> np.ndarray:
    """A view with the axes in another order; letters that ``x`` lacks have size 1."""
    missing = tuple(letter for letter in order if letter not in letters)
    have = letters + missing
    return x.reshape(*x.shape, *(1 for _ in missing)).transpose([have.index(letter) for letter in order])


def _pieces(box: Box) -> Iterator[Box]:
    """The box cut into halves, along its first axes, until no piece is larger than PIECE elements."""
    letter = next((x for x, (a, b) in box.items() if b - a > 1), None)
    if letter is None or math.prod(b - a for a, b in box.values()) <= PIECE:
        yield box
        return
    first, last = box[letter]
    middle = (first + last) // 2
    yield from _pieces({**box, letter: (first, middle)})
    yield from _pieces({**box, letter: (middle, last)})


def _span(group: tuple[str, ...], sizes: Mapping[str, int], box: Box) -> tuple[list, list, list]:
    """One axis of the file: the interval to read, its shape in letters, and what of that the box is.

    The interval is exact up to the first letter of which the box takes several; of the letters after it, all is read.
    """
    start, shape, inner = 0, [], []
    for i, letter in enumerate(group):
        first, last = box[letter]
        after = math.prod(sizes[x] for x in group[i + 1 :])
        start += first * after
        shape.append(last - first)
        inner.append(slice(None))
        if last - first > 1 or i == len(group) - 1:
            rest = group[i + 1 :]
            whole = [sizes[x] for x in rest]
            return (
                [slice(start, start + (last - first) * after)],
                shape + whole,
                inner + [slice(*box[x]) for x in rest],
            )
    raise AssertionError('an axis of the file has at least one letter')
