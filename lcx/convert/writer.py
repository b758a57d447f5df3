"""A model as a directory that transformers reads: config.json and safetensors, complete or not there at all."""

from __future__ import annotations

import functools
import json
import math
import os
import shutil
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import save_file

from lcx.compress import leaves
from lcx.convert import files, tensors
from lcx.convert.config import architecture_of, to_hf
from lcx.convert.families import FAMILIES
from lcx.convert.family import Family
from lcx.convert.tensors import Part, Stored
from lcx.errors import ConfigError, StorageError, UnsupportedError, unknown
from lcx.models import ModelConfig, init
from lcx.types import Tree

SHARD_BYTES = 5 * 10**9
DTYPES = tuple(files.DTYPES.values())


def save(
    config: ModelConfig,
    params: Tree,
    directory: str | Path,
    *,
    origin: str | Path | None = None,
    dtype: str | None = None,
    length: int | None = None,
    architecture: str | None = None,
    max_shard_bytes: int = SHARD_BYTES,
) -> None:
    """Writes ``directory``: config.json, model.safetensors (or shards and their index).

    It is written beside itself and renamed when complete. The host holds one shard at a time.

    Args:
      origin: the directory that the model came from: its tensors' types are kept, its tokenizer's files copied.
      dtype: of all tensors: float32, bfloat16 or float16; None: as in ``origin``, or as the source says, or float32.
      length, architecture: see :func:`lcx.convert.config.to_hf`.

    Raises:
      ConfigError: the architecture has no place for the model; ``params`` are of another; ``dtype`` is unknown, or
        too small for a number.
      StorageError: the directory exists and is not empty, or cannot be written.
      UnsupportedError: the parameters are spread over several processes.
    """
    directory = Path(directory)
    check_target(directory)
    if dtype is not None and dtype not in DTYPES:
        raise ConfigError(unknown('dtype', dtype, DTYPES))
    if max_shard_bytes < 1:
        raise ConfigError(f'max_shard_bytes: {max_shard_bytes!r} must be greater than 0.')
    fields = to_hf(config, length=length, architecture=architecture)
    params = _by_path(config, params)
    family = FAMILIES[architecture_of(fields)]
    stored = tensors.stored(family.table, config, {path: x.shape for path, x in params.items()})
    kept = {} if dtype is not None or origin is None else files.Tensors(Path(origin)).entries
    dtypes = _dtypes(stored, family, dtype or fields.get('dtype') or fields.get('torch_dtype'), kept)
    if dtype is not None:
        fields = {**{k: v for k, v in fields.items() if k != 'torch_dtype'}, 'dtype': dtype}

    def write(temporary: Path) -> None:
        _write_json(temporary / files.CONFIG, fields)
        _write_tensors(temporary, stored, dtypes, functools.partial(_numbers, params), max_shard_bytes)
        if origin is not None:
            files.copy_tokenizer_files(origin, temporary)

    _at_once(directory, write)


def check_target(directory: Path) -> None:
    """Raises a StorageError unless ``directory`` is empty or not there."""
    if directory.exists() and (not directory.is_dir() or any(directory.iterdir())):
        raise StorageError(f'{directory}: exists and is not empty; choose another place, or remove it.')


def _by_path(config: ModelConfig, params: Tree) -> dict[str, Any]:
    """The parameters by path. Raises ConfigError unless they are the model's, UnsupportedError if they are not here."""
    found = leaves.named(params)
    wanted = leaves.named(jax.eval_shape(functools.partial(init, config), jax.random.key(0)))
    for path in [*wanted, *found]:
        have, want = (tuple(x[path].shape) if path in x else None for x in (found, wanted))
        if have != want:
            raise ConfigError(
                f'{path}: the parameters have shape {have}, but those of the model have {want}.'
            )
        if isinstance(found[path], jax.Array) and not found[path].is_fully_addressable:
            raise UnsupportedError(
                f'{path}: is spread over several processes; save from one that has all of it.'
            )
    return found


def _dtypes(
    stored: list[Stored], family: Family, dtype: str | None, kept: Mapping[str, files.Entry]
) -> dict[str, np.dtype]:
    """The type of every tensor: that of the entry kept, or ``dtype``, or float32."""
    found = {}
    for tensor in stored:
        entry = kept.get(tensor.name) or kept.get(tensor.name.removeprefix(family.prefix))
        name = dtype if entry is None else files.DTYPES.get(entry.code, dtype)
        found[tensor.name] = np.dtype(name if name in DTYPES else 'float32')
    return found


def _numbers(params: Mapping[str, Any], part: Part) -> np.ndarray:
    leaf = params[part.path]
    return np.asarray(leaf if part.row is None else leaf[part.row])


def _write_tensors(
    directory: Path,
    stored: list[Stored],
    dtypes: Mapping[str, np.dtype],
    numbers: Callable[[Part], np.ndarray],
    max_shard_bytes: int,
) -> None:
    """One file, or shards of at most ``max_shard_bytes`` (or of one tensor, if that is larger) and their index."""
    size = {x.name: math.prod(x.shape) * dtypes[x.name].itemsize for x in stored}
    shards: list[list[Stored]] = [[]]
    for tensor in stored:
        if shards[-1] and sum(size[x.name] for x in shards[-1]) + size[tensor.name] > max_shard_bytes:
            shards.append([])
        shards[-1].append(tensor)
    weight_map = {}
    for i, shard in enumerate(shards):
        name = files.SINGLE if len(shards) == 1 else f'model-{i + 1:05d}-of-{len(shards):05d}.safetensors'
        with np.errstate(over='raise'):
            try:
                arrays = {x.name: tensors.write(x, dtypes[x.name], numbers) for x in shard}
            except FloatingPointError as error:
                raise ConfigError('dtype: float16 cannot hold all numbers; bfloat16 can.') from error
        save_file(arrays, directory / name, metadata={'format': 'pt'})
        shutil.copymode(directory / files.CONFIG, directory / name)  # it gives others no right to read
        _sync(directory / name)
        weight_map |= {x.name: name for x in shard}
        del arrays
    if len(shards) > 1:
        metadata = {'total_size': sum(size.values())}
        _write_json(directory / files.INDEX, {'metadata': metadata, 'weight_map': weight_map})


def _write_json(path: Path, values: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(values, indent=2, sort_keys=True) + '\n', encoding='utf-8')
    _sync(path)


def _at_once(directory: Path, write: Callable[[Path], None]) -> None:
    """Makes ``directory`` by ``write(temporary)`` and one rename. Raises StorageError."""
    directory = directory.absolute()
    temporary = directory.with_name(f'.{directory.name}.{uuid.uuid4().hex}')
    try:
        temporary.mkdir(parents=True)
        write(temporary)
        _sync(temporary)
        temporary.rename(directory)  # onto an empty directory, or nothing
        _sync(directory.parent)
    except (OSError, SafetensorError) as error:
        raise StorageError(f'{directory}: cannot be written: {error}.') from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _sync(path: Path) -> None:
    """Makes a file, or the names in a directory, survive a power cut."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
