"""A state on disk that several processes wrote, each the parts that lie on its devices.

    DIRECTORY/part-3.safetensors      pieces of arrays, named 'params/embedding/table@128,0' by where they begin

A piece is what one device holds of an array, written by the process of its first copy, so that no process ever holds
more than its devices do. The SHA-256 of a piece is taken before it is written; whoever reads a piece, on whatever mesh,
reads it whole and compares. What an array lacks is found when the manifest is made: pieces must add up to it.

Orbax is not used here: its saves by several processes talk over the devices, out of turn with the training loop.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

ABOUT = 'pieces'  # the name in the file's header of the text that says what is inside


class Piece(NamedTuple):
    """A part of an array, in the memory of the host."""

    start: tuple[int, ...]
    numbers: np.ndarray


def pieces(numbers: Any, first: bool) -> list[Piece]:
    """What this process writes of an array, by views of device memory or copies of it.

    What every process has alone, and not as a part of one global array, the first one writes.
    """
    if not isinstance(numbers, jax.Array) or numbers.is_fully_addressable:
        return [Piece((0,) * np.ndim(numbers), np.asarray(numbers))] if first else []
    own = (shard for shard in numbers.addressable_shards if shard.replica_id == 0)
    return [Piece(tuple(s.start or 0 for s in shard.index), np.asarray(shard.data)) for shard in own]


def write(directory: Path, index: int, arrays: Mapping[str, Sequence[Piece]]) -> str:
    """Writes the part of process ``index``; returns the text in its header, which says what is inside."""
    tensors = {
        _name(name, p.start): np.asarray(p.numbers, order='C') for name, x in arrays.items() for p in x
    }
    about = {
        name: [{'start': p.start, 'shape': p.numbers.shape, 'sha256': digest(p.numbers)} for p in x]
        for name, x in arrays.items()
        if x
    }
    text = json.dumps(about)
    path = path_of(directory, index)
    directory.mkdir(parents=True, exist_ok=True)
    save_file(tensors, path, metadata={ABOUT: text})
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    return text


def merged(directory: Path, digests: Sequence[str], shapes: Mapping[str, Sequence[int]]) -> dict[str, list]:
    """The pieces of every array, for the manifest.

    Args:
      directory: where the parts are.
      digests: of the text that :func:`write` returned, by process.
      shapes: of the arrays.

    Raises:
      OSError: a part is not there, or not what its process wrote, or the pieces are not the whole of an array.
    """
    found: dict[str, list] = {name: [] for name in shapes}
    for index, expected in enumerate(digests):
        path = path_of(directory, index)
        try:
            with safe_open(path, 'numpy') as file:
                text = file.metadata()[ABOUT]
        except (OSError, SafetensorError) as error:
            raise OSError(
                f'{path}, which process {index} wrote, cannot be read by process 0: {error}. All processes must see '
                'the same workdir'
            ) from None
        if hashlib.sha256(text.encode()).hexdigest() != expected:
            raise OSError(f'{path} is not what process {index} wrote')
        for name, own in json.loads(text).items():
            found[name] += [{'part': index, **piece} for piece in own]
    for name, own in found.items():
        size, all_ = sum(math.prod(piece['shape']) for piece in own), math.prod(shapes[name])
        if size != all_:
            raise OSError(f'{name}: pieces of {size} numbers were written of {all_}')
    return found


class Reader:
    """Reads pieces of the parts in a directory, each verified."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._files: dict[int, Any] = {}

    def array(self, name: str, about: Mapping[str, Any], shape: Sequence[int], where: Any) -> Any:
        """The array, on the devices of this process as ``where`` (a Sharding) says, or whole on the host if None.

        Raises whatever safetensors raises, and ValueError for a piece that is not what was saved.
        """
        pieces, read = about['pieces'], {}

        def part(place: tuple[slice, ...]) -> np.ndarray:
            box = [s.indices(n)[:2] for s, n in zip(place, shape)]
            out = None
            for number, piece in enumerate(pieces):
                common = _overlap(box, piece)
                if common is None:
                    continue
                if number not in read:
                    read[number] = self._piece(name, piece)
                if out is None:
                    out = np.empty([stop - start for start, stop in box], read[number].dtype)
                out[_inside(common, [b[0] for b in box])] = read[number][_inside(common, piece['start'])]
            return out

        if where is None:
            return part(tuple(slice(None) for _ in shape))
        return jax.make_array_from_callback(tuple(shape), where, part)

    def _piece(self, name: str, piece: Mapping[str, Any]) -> np.ndarray:
        index = piece['part']
        if index not in self._files:
            self._files[index] = safe_open(path_of(self._directory, index), 'numpy')
        numbers = self._files[index].get_tensor(_name(name, piece['start']))
        if digest(numbers) != piece['sha256']:
            raise ValueError(f'{name} is not what was saved')
        return numbers


def digest(array: np.ndarray) -> str:
    """SHA-256 of type, shape and bytes: on processors with instructions for it the fastest of hashlib."""
    sha = hashlib.sha256(f'{array.dtype}{list(array.shape)}'.encode())
    sha.update(np.ascontiguousarray(array).reshape(-1).view(np.uint8))
    return sha.hexdigest()


def path_of(directory: Path, index: int) -> Path:
    """The file of process ``index``."""
    return directory / f'part-{index}.safetensors'


def _name(name: str, start: Iterable[int]) -> str:
    return f'{name}@{",".join(map(str, start))}'


Box = list[tuple[int, int]]


def _overlap(box: Box, piece: Mapping[str, Any]) -> Box | None:
    """What a box, first and last + 1 index along each axis, and a piece have in common."""
    ends = zip(box, piece['start'], piece['shape'])
    common = [(max(b[0], start), min(b[1], start + size)) for b, start, size in ends]
    return common if all(start < stop for start, stop in common) else None


def _inside(box: Box, origin: Sequence[int]) -> tuple[slice, ...]:
    return tuple(slice(start - o, stop - o) for (start, stop), o in zip(box, origin))
