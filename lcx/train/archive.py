"""One state on disk, proved intact when it is read.

    DIRECTORY/manifest.json   its own digest; shape, type and SHA-256 of every array; the caller's JSON
    DIRECTORY/params/, ...    one Orbax item for each field of the state, so that one can be read alone

Orbax writes and reads the arrays, and only this module knows it. What it leaves open is settled here: it
restores flipped bytes without an error, so every array is checked against a digest that was taken before it
was written; it casts silently, so types and shapes are compared first. Arrays pass through the memory of the
host, whole and once: the writer digests the copy that it writes, the reader what it is about to place.

Several processes write parts instead (:mod:`lcx.train.parts`), and the manifest has the SHA-256 of every piece. Both
kinds are read by any number of processes, onto any mesh.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from orbax.checkpoint import v1 as ocp

from lcx.errors import ConfigError
from lcx.parallel import processes
from lcx.train import parts
from lcx.train.parts import digest
from lcx.types import Tree

MANIFEST = 'manifest.json'
COMMIT = 'commit_success.txt'  # the last file that Orbax writes; here the last but the manifest


class Corrupt(Exception):
    """The directory does not hold what was saved; the text says what is wrong."""


class Leaf(NamedTuple):
    """An array of a state, by its numbers: those of random keys are their key data."""

    shape: tuple[int, ...]  # as the model sees it
    dtype: str  # likewise: 'float32', 'key<fry>'
    key_impl: str | None  # random keys: 'threefry2x32'
    numbers: Any  # a jax or numpy array, or a list of pieces of it


def leaves_of(state: Tree) -> dict[str, Leaf]:
    """The arrays of a state by their path, 'params/decoder/embedding/table'."""
    return {name: _leaf(x) for name, x in _named(state).items()}


def to_host(leaves: Mapping[str, Leaf]) -> dict[str, Leaf]:
    """The same in memory that nothing else writes to: the originals may be donated afterwards.

    One of several processes gets the pieces that it is to write.
    """
    for leaf in leaves.values():
        if isinstance(leaf.numbers, jax.Array) and leaf.numbers.is_fully_addressable:
            leaf.numbers.copy_to_host_async()
    here = processes.current()
    if here.count == 1:
        return {name: leaf._replace(numbers=_host_copy(leaf.numbers)) for name, leaf in leaves.items()}
    pieces = {name: parts.pieces(leaf.numbers, here.first) for name, leaf in leaves.items()}
    return {
        name: leaf._replace(numbers=[p._replace(numbers=_host_copy(p.numbers)) for p in pieces[name]])
        for name, leaf in leaves.items()
    }


def write(directory: Path, leaves: Mapping[str, Leaf], extra: Mapping[str, Any]) -> None:
    """Makes ``directory`` from ``leaves`` on the host; one left by an interrupted call is not committed."""
    # Orbax refuses arrays without elements; the manifest says all there is to know about them.
    arrays = {name: leaf.numbers for name, leaf in leaves.items() if leaf.numbers.size}
    with _orbax():
        ocp.save_checkpointables(directory, _nested(arrays))
    own = {name: {'sha256': digest(leaf.numbers)} for name, leaf in leaves.items()}
    _write_manifest(directory, leaves, own, extra)


def write_part(directory: Path, leaves: Mapping[str, Leaf]) -> str:
    """Writes the pieces of one of several processes; returns what the first one needs to know of them."""
    arrays = {name: leaf.numbers for name, leaf in leaves.items()}
    text = parts.write(directory, processes.current().index, arrays)
    return hashlib.sha256(text.encode()).hexdigest()


def finish(
    directory: Path, leaves: Mapping[str, Leaf], extra: Mapping[str, Any], told: Sequence[str]
) -> None:
    """Commits ``directory`` when all parts are there; ``told`` is what :func:`write_part` returned, by process.

    Raises OSError unless the pieces make up every array.
    """
    shapes = {name: [*leaf.shape, *_trailing(leaf.key_impl)] for name, leaf in leaves.items()}
    found = parts.merged(directory, told, shapes)
    (directory / COMMIT).touch()
    _write_manifest(directory, leaves, {name: {'pieces': own} for name, own in found.items()}, extra)


def is_committed(directory: Path) -> bool:
    """Whether the last file of a save is there: a quick look that proves nothing about the others."""
    return (directory / MANIFEST).is_file() and (directory / COMMIT).is_file()


def read_extra(directory: Path) -> dict[str, Any]:
    """The JSON that was saved with the state. Raises Corrupt."""
    return _read_manifest(directory)['extra']


def read(directory: Path, abstract: Tree, part: str | None) -> tuple[Tree, dict[str, Any]]:
    """The verified state, or only its field ``part``, on the shardings of ``abstract``, and the extra.

    Raises:
        Corrupt: anything is not what was saved.
        ConfigError: a leaf is missing, unknown, or of another shape or type than in ``abstract``.
    """
    manifest = _read_manifest(directory)
    saved = {n: x for n, x in manifest['leaves'].items() if part is None or n.split('/')[0] == part}
    wanted = _named(abstract, () if part is None else (part,))
    _compare(directory, saved, wanted)
    try:
        in_parts = any('pieces' in about for about in saved.values())
        arrays = (_read_parts if in_parts else _read_whole)(directory, saved, wanted)
    except Corrupt:
        raise
    except (
        Exception
    ) as error:  # Orbax, TensorStore and safetensors raise many kinds, and none means "corrupt"
        raise Corrupt(f'cannot be read: {first_line(error)}') from error
    impls = [saved[name]['key_impl'] for name in wanted]
    placed = [jax.random.wrap_key_data(x, impl=impl) if impl else x for x, impl in zip(arrays, impls)]
    return jax.tree.unflatten(jax.tree.structure(abstract), placed), manifest['extra']


def _read_whole(directory: Path, saved: Mapping[str, dict], wanted: Mapping[str, Any]) -> list[Any]:
    """Arrays that Orbax wrote, verified and placed; every process reads all of them."""
    items = {name.split('/')[0]: None for name, x in saved.items() if 0 not in x['shape']}
    with _orbax():
        arrays = _named(ocp.load_checkpointables(directory, items)) if items else {}
    placed = []
    for name, target in wanted.items():
        empty = 0 in saved[name]['shape']
        array = np.zeros(target.shape, target.dtype) if empty else arrays.pop(name, None)
        if array is None or digest(array) != saved[name]['sha256']:
            raise Corrupt(f'{name} is not what was saved')
        placed.append(_place(array, getattr(target, 'sharding', None)))
    return placed


def _read_parts(directory: Path, saved: Mapping[str, dict], wanted: Mapping[str, Any]) -> list[Any]:
    """Arrays that several processes wrote, verified and placed; each reads the pieces of which it needs a part."""
    reader, placed = parts.Reader(directory), []
    for name, target in wanted.items():
        about, where = saved[name], getattr(target, 'sharding', None)
        if 0 in about['shape']:
            placed.append(_place(np.zeros(target.shape, target.dtype), where))
            continue
        shape = [*about['shape'], *_trailing(about['key_impl'])]
        array = reader.array(name, about, shape, where)
        placed.append(array if where is not None else jax.device_put(array))
    return placed


def _place(array: np.ndarray, where: Any) -> jax.Array:
    """The whole array where it is to lie, of which this process may have but a part."""
    if where is None or where.is_fully_addressable:
        return jax.device_put(array, where)
    return processes.put(array, where)


def _trailing(key_impl: str | None) -> tuple[int, ...]:
    """The axes that key data have behind those of the keys."""
    if key_impl is None:
        return ()
    return jax.eval_shape(lambda: jax.random.key_data(jax.random.key(0, impl=key_impl))).shape


def sync(directory: Path) -> None:
    """Makes the names in a directory survive a power cut."""
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def first_line(error: Exception) -> str:
    """An error in one line: TensorStore's go on for pages."""
    return f'{type(error).__name__}: {str(error).strip()}'.splitlines()[0][:300]


def _write_manifest(
    directory: Path, leaves: Mapping[str, Leaf], own: Mapping[str, dict], extra: Mapping[str, Any]
) -> None:
    described = {
        name: {'shape': x.shape, 'dtype': x.dtype, 'key_impl': x.key_impl, **own[name]}
        for name, x in leaves.items()
    }
    text = json.dumps({'leaves': described, 'extra': extra}, allow_nan=False)
    with open(directory / MANIFEST, 'w', encoding='utf-8') as file:
        file.write(f'{hashlib.sha256(text.encode()).hexdigest()}\n{text}\n')
        file.flush()
        os.fsync(file.fileno())
    sync(directory)


def _read_manifest(directory: Path) -> dict[str, Any]:
    if not is_committed(directory):
        raise Corrupt(f'{MANIFEST} or {COMMIT} is missing')
    try:
        expected, text, _ = (directory / MANIFEST).read_text(encoding='utf-8').split('\n')
    except (OSError, ValueError) as error:
        raise Corrupt(f'{MANIFEST} cannot be read: {first_line(error)}') from error
    if hashlib.sha256(text.encode()).hexdigest() != expected:
        raise Corrupt(f'{MANIFEST} is not what was saved')
    return json.loads(text)


def _compare(directory: Path, saved: Mapping[str, dict], wanted: Mapping[str, Any]) -> None:
    """Raises a ConfigError that names the first leaf that differs, what is saved and what is expected."""
    for name in [*wanted, *saved]:
        have = f'{saved[name]["dtype"]}{saved[name]["shape"]}' if name in saved else 'nothing'
        want = f'{wanted[name].dtype}{list(wanted[name].shape)}' if name in wanted else 'nothing'
        if have != want:
            raise ConfigError(
                f'{directory}: {name} is saved as {have}, but {want} is expected. '
                'Use the configuration that the checkpoint was made with.'
            )


def _named(tree: Tree, prefix: tuple[str, ...] = ()) -> dict[str, Any]:
    """The leaves by their path below ``prefix``."""
    paths, _ = jax.tree_util.tree_flatten_with_path(tree)
    return {
        '/'.join([*prefix, *(jax.tree_util.keystr((key,), simple=True) for key in path)]): leaf
        for path, leaf in paths
    }


def _nested(arrays: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """The inverse as dicts: what is stored does not depend on the classes that a state's tree is made of."""
    tree: dict[str, Any] = {}
    for name, array in arrays.items():
        *parents, last = name.split('/')
        node = tree
        for parent in parents:
            node = node.setdefault(parent, {})
        node[last] = array
    return tree


def _leaf(array: Any) -> Leaf:
    if jnp.issubdtype(array.dtype, jax.dtypes.prng_key):
        impl, numbers = str(jax.random.key_impl(array)), jax.random.key_data(array)
    else:
        impl, numbers = None, array
    return Leaf(array.shape, str(array.dtype), impl, numbers)


def _host_copy(array: Any) -> np.ndarray:
    host = np.asarray(array)  # on the CPU a view of memory that the next step may be given
    on_device = isinstance(array, jax.Array) and all(d.platform != 'cpu' for d in array.devices())
    return host if on_device else host.copy()


def _orbax() -> ocp.Context:
    context = ocp.Context()
    context.atomicity.mode = ocp.options.AtomicityMode.COMMIT_FILE
    # Otherwise threads that wait for a directory outlive an early error by 20 minutes.
    context.async_options.create_directories_asynchronously = False
    here = processes.current()
    if here.count > 1:  # each reads by itself
        context.multiprocessing.primary_host = here.index
        context.multiprocessing.active_processes = {here.index}
        context.multiprocessing.barrier_sync_key_prefix = f'process_{here.index}'
    return context
