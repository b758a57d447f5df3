"""The processes of a run, one for each machine or accelerator: which rows each reads, and what they tell each other.

Two ways to talk. The service that :func:`jax.distributed.initialize` starts holds short texts by name; it needs no
devices, so threads may use it, and where a process is gone it ends the others. A vote goes over the devices, in the
order of programs, and costs the loop no wait.

    processes = current()                              # one process talks to nobody
    processes.post('saved', 'yes'); processes.read('saved', of=1)

Every function does nothing and costs nothing where there is one process.
"""

from __future__ import annotations

import contextlib
import functools
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from lcx.parallel.rules import ACTIVATIONS, spec
from lcx.types import Array

PATIENCE = 3600.0  # seconds to wait for a process that lives; the service ends all when one does not


class Processes:
    """This process among those of the run. A name is a line of texts from each: the n-th read gives the n-th post."""

    def __init__(self, index: int = 0, count: int = 1, client: Any = None) -> None:
        self.index, self.count = index, count
        self._client = client  # of the service
        self._posted: Counter = Counter()
        self._read: Counter = Counter()

    @property
    def first(self) -> bool:
        """Whether this is the one that writes what there is one of: the lock, logs, manifests."""
        return self.index == 0

    def post(self, name: str, text: str) -> None:
        """Tells ``text`` to whoever reads ``name`` of this process."""
        number = self._posted[name]
        self._posted[name] += 1
        self._client.key_value_set(f'lcx/{name}/{self.index}/{number}', text)

    def read(self, name: str, of: int, timeout: float = PATIENCE) -> str:
        """What process ``of`` posts as ``name`` next, waited for. Raises TimeoutError after ``timeout`` seconds."""
        number = self._read[name, of]
        try:
            text = self._client.blocking_key_value_get(f'lcx/{name}/{of}/{number}', int(timeout * 1000))
        except jax.errors.JaxRuntimeError as error:
            if 'DEADLINE_EXCEEDED' not in str(error):
                raise
            raise TimeoutError(f'process {of} did not tell {name!r} in {timeout:.0f} s') from None
        self._read[name, of] += 1
        return text

    def announce(self, name: str, text: str) -> None:
        """Tells ``text`` to all, unless another process has announced this name before."""
        try:
            self._client.key_value_set(f'lcx/{name}', text)
        except jax.errors.JaxRuntimeError as error:
            if 'ALREADY_EXISTS' not in str(error):
                raise

    def announced(self, name: str) -> str | None:
        """What was announced; None so far."""
        try:
            return self._client.key_value_try_get(f'lcx/{name}')
        except jax.errors.JaxRuntimeError as error:
            if 'NOT_FOUND' not in str(error):
                raise
            return None

    def everyone(self, name: str, text: str = '') -> list[str]:
        """What each process posts as ``name``, this one ``text``: when it returns, all have come that far."""
        if self.count == 1:
            return [text]
        self.post(name, text)
        return [self.read(name, of) for of in range(self.count)]

    def of_first(self, name: str, text: Callable[[], str]) -> str:
        """``text()`` as the first process has it."""
        if self.count == 1:
            return text()
        if self.first:
            self.post(name, text())
        return self.read(name, 0)

    @contextlib.contextmanager
    def first_then_others(self, name: str) -> Iterator[None]:
        """Runs the block in the first process, and then in all others at once: they find what it left."""
        if not self.first:
            self.of_first(name, str)
        yield
        if self.first:
            self.of_first(name, str)


def current() -> Processes:
    """The processes of the run, without a look at devices."""
    from jax._src.distributed import global_state  # jax has no public way to the service that it starts

    if global_state.client is None:
        return Processes()
    return _known(global_state.process_id, global_state.num_processes, global_state.client)


_known = functools.cache(Processes)  # one for a service: it counts what was posted


class Vote:
    """Whether any process says yes: the same answer for all, which call together, by a program on their devices."""

    def __init__(self, mesh: jax.sharding.Mesh) -> None:
        self._alone = current().count == 1
        self._each = NamedSharding(mesh, PartitionSpec(mesh.axis_names))
        self._any = jax.jit(jnp.any, out_shardings=NamedSharding(mesh, PartitionSpec()))
        self._asked: Array | bool = False

    def now(self, yes: bool) -> bool:
        """The answer, for which the devices finish what they do."""
        return bool(self._ask(yes))

    def lagged(self, yes: bool) -> bool:
        """The answer to the call before, which the devices have by now; of one process, to this one."""
        last, self._asked = self._asked, self._ask(yes)
        return bool(self._asked if self._alone else last)

    def _ask(self, yes: bool) -> Array | bool:
        if self._alone:
            return yes
        size = (self._each.mesh.size,)
        return self._any(jax.make_array_from_callback(size, self._each, lambda _: np.array([yes])))


def rows_of_process(
    mesh: jax.sharding.Mesh,
    batch: int,
    process: int,
    process_of: Callable[[jax.Device], int] = lambda device: device.process_index,
) -> np.ndarray:
    """The rows of a global batch that lie on the devices of ``process``, ascending.

    Rows lie over the axes data and fsdp. Processes that differ along other axes alone, where each has a part of the
    tokens, of the heads or of the layers, hold the same rows.
    """
    blocks = NamedSharding(mesh, spec(('batch',), ACTIVATIONS)).devices_indices_map((batch,))
    mine = {place[0].indices(batch) for device, place in blocks.items() if process_of(device) == process}
    return np.array(sorted({row for place in mine for row in range(*place)}), np.int64)


def put(array: np.ndarray, where: NamedSharding, rows: np.ndarray | None = None, total: int = 0) -> Array:
    """A global array from what this process has of it, each device getting its part.

    Args:
      array: all of it, or the ``rows`` (numbers, ascending) that :func:`rows_of_process` names.
      where: how the global array lies.
      rows: None: ``array`` is all of it.
      total: rows of the global array, where ``rows`` is given.
    """
    if where.is_fully_addressable:
        return jax.device_put(array, where)
    if rows is None:
        return jax.make_array_from_callback(array.shape, where, lambda place: array[place])

    def part(place: tuple[slice, ...]) -> np.ndarray:
        start, stop, _ = place[0].indices(total)
        first = int(np.searchsorted(rows, start))
        return array[(slice(first, first + stop - start), *place[1:])]

    return jax.make_array_from_callback((total, *array.shape[1:]), where, part)


@functools.cache
def _gather(mesh: jax.sharding.Mesh) -> Callable:
    return jax.jit(lambda x: x, out_shardings=NamedSharding(mesh, PartitionSpec()))


def whole(array: Any) -> np.ndarray:
    """A global array as every process can read it: what lies elsewhere is sent here, by a call in all processes."""
    if isinstance(array, jax.Array) and not array.is_fully_addressable and not array.is_fully_replicated:
        array = _gather(array.sharding.mesh)(array)
    return np.asarray(array)
