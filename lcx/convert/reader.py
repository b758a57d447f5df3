"""Parameters from a checkpoint, straight to where they shall be.

One parameter at a time, largest first, each device's part of it alone: at most that part is held on the host beside
what is placed already, and one piece of a tensor of the file. So the host's peak is little more than the parameters
themselves where they stay on the host, and the largest shard where they do not.
"""

from __future__ import annotations

import difflib
import functools
import math
from collections.abc import Iterable, Mapping
from pathlib import Path

import jax
import numpy as np

from lcx.compress import leaves
from lcx.convert import files, tensors
from lcx.convert.config import architecture_of, read_config
from lcx.convert.families import FAMILIES
from lcx.convert.family import Family
from lcx.convert.files import Tensors
from lcx.convert.tensors import Part, Stored
from lcx.errors import ConfigError, DataError, unknown
from lcx.models import ModelConfig, init
from lcx.models.config import DTYPES
from lcx.types import Tree

OUTPUTS = (
    'lm_head.weight',
    'embed_out.weight',
)  # the output matrix, which some files hold although it is tied


def load(
    directory: str | Path, *, dtype: str = 'float32', shardings: Tree | None = None
) -> tuple[ModelConfig, Tree]:
    """The model of a Hugging Face directory, and its parameters.

    Args:
      directory: holds config.json, and model.safetensors or its index and shards.
      dtype: of the parameters, whatever the file has: float32 or bfloat16.
      shardings: a tree like the parameters of ``jax.sharding.Sharding``, or one for all; None: the first local device.

    Raises:
      ConfigError: as :func:`read_config`, or ``dtype`` is unknown.
      StorageError: a file is missing, broken, outside the directory, or a pickle.
      DataError: a tensor is missing, not expected, or of another shape than config.json says.
    """
    if dtype not in DTYPES:
        raise ConfigError(unknown('dtype', dtype, DTYPES))
    config = read_config(directory)
    found = Tensors(Path(directory))
    family = FAMILIES[architecture_of(config.source)]
    abstract = jax.eval_shape(functools.partial(init, config), jax.random.key(0))
    shapes = {path: x.shape for path, x in leaves.named(abstract).items()}
    expected = tensors.stored(family.table, config, shapes)
    names = check(found, expected, family, tied=config.tie_embeddings)
    holders: dict[str, list[tuple[Stored, Part]]] = {path: [] for path in shapes}
    for tensor in expected:
        for part in tensor.parts:
            holders[part.path].append((tensor._replace(name=names[tensor.name]), part))
    where, params = _shardings(shardings, shapes), {}
    for path in sorted(shapes, key=lambda path: -math.prod(shapes[path])):
        fill = functools.partial(_shard, found, holders[path], shapes[path], np.dtype(DTYPES[dtype]))
        # Waiting frees the host's copy before the next parameter has one.
        params[path] = jax.make_array_from_callback(shapes[path], where[path], fill).block_until_ready()
    return config, leaves.nested({path: params[path] for path in shapes})


def _shardings(given: Tree | None, paths: Iterable[str]) -> dict[str, jax.sharding.Sharding]:
    if given is None:
        given = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    if isinstance(given, jax.sharding.Sharding):
        return dict.fromkeys(paths, given)
    return leaves.named(given)


def _shard(
    found: Tensors,
    holders: list[tuple[Stored, Part]],
    shape: tuple[int, ...],
    dtype: np.dtype,
    index: tuple[slice, ...],
) -> np.ndarray:
    """The part ``index`` of a parameter, read from the tensors that hold it."""
    bounds = [axis.indices(size)[:2] for axis, size in zip(index, shape)]
    out = np.empty([last - first for first, last in bounds], dtype)
    for tensor, part in holders:
        if part.row is None:
            target, inner = out, bounds
        elif bounds[0][0] <= part.row < bounds[0][1]:
            target, inner = out[part.row - bounds[0][0]], bounds[1:]
        else:
            continue
        tensors.read(found.read, tensor, part, target, dict(zip(part.letters, inner)))
    return out


def check(found: Tensors, expected: list[Stored], family: Family, *, tied: bool) -> Mapping[str, str]:
    """The name in the file of every expected tensor: files of a bare model leave out the family's prefix.

    Raises:
      DataError: a tensor is missing, not expected, of another shape or quantised; the output is tied, and differs.
    """
    bare = not any(name.startswith(family.prefix) for name in found.entries)
    names = {x.name: x.name.removeprefix(family.prefix) if bare else x.name for x in expected}
    for tensor in expected:
        name = names[tensor.name]
        if name not in found.entries:
            near = difflib.get_close_matches(name, list(found.entries)[:1000], n=1, cutoff=0.8)
            hint = f' There is {near[0]}.' if near else ''
            raise DataError(f'{found.directory}: tensor {name} is missing.{hint}')
        if found.entries[name].shape != tensor.shape:
            raise DataError(
                f'{found.directory}: tensor {name} has shape {list(found.entries[name].shape)}; config.json says '
                f'{list(tensor.shape)}.'
            )
        if found.entries[name].code not in files.DTYPES:
            raise DataError(
                f'{found.directory}: tensor {name} holds {found.entries[name].code}; what is read is '
                f'{", ".join(files.DTYPES)}. A quantised model must be dequantised first.'
            )
    for name in found.entries:
        if name in names.values() or name.endswith(family.ignored):
            continue
        if tied and name in OUTPUTS:
            _check_tied(found, names[expected[0].name], name)  # the embedding is the first of every table
            continue
        raise DataError(f'{found.directory}: tensor {name} is not expected of this config.json.')
    return names


def _check_tied(found: Tensors, embedding: str, output: str) -> None:
    """Raises DataError unless both hold the same; transformers would not tie them then."""
    (count, width), other = (found.entries[name].shape for name in (embedding, output))
    step = 1 + tensors.PIECE // max(1, width)
    same = other == (count, width) and all(
        np.array_equal(*(found.read(name, (slice(i, min(i + step, count)),)) for name in (embedding, output)))
        for i in range(0, count, step)
    )
    if not same:
        raise DataError(
            f'{found.directory}: tensor {output} differs from {embedding}, but tie_word_embeddings is true.'
        )
