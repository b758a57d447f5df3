"""The checkpoints of a run: whole, proved intact when read, and never in the way of a step.

    DIRECTORY/500/                                a committed step, as lcx.train.archive describes
    DIRECTORY/750.saving/, DIRECTORY/250.deleting/    being written, being removed
    DIRECTORY/500.corrupt/                        found broken when it was read, kept for a look

A step gets its name in one rename after its last byte and loses it before its first, so that a process
killed at any moment leaves no part of a step under a step's name.

Several processes open, save and restore together, in one directory that all see. Each writes its part in the
background; the first one, when all have told it that theirs is written, makes the manifest, renames, and tells the
others. Where one fails, all raise; where one is gone, the service that joins them ends all. They talk without devices,
so that no order of programs is disturbed.
"""

from __future__ import annotations

import json
import os
import shutil
import uuid
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

from absl import logging

from lcx.errors import StorageError
from lcx.parallel import processes
from lcx.train import archive
from lcx.types import Tree

HEADROOM = 1.2  # free space asked for before a save, in sizes of the state


class Checkpoints:
    """The checkpoints in one directory; a context manager.

    Args:
        directory: where the steps are. A writer creates it and removes what an interrupted process left, so
            there must be at most one at a time.
        keep: how many of the newest steps a save leaves. None opens for reading: nothing is ever written,
            renamed or removed, which is safe beside a running writer.

    Raises:
        StorageError: a writer cannot use the directory.
    """

    def __init__(self, directory: str | os.PathLike, *, keep: int | None):
        self.directory = Path(directory).absolute()
        self._keep = keep
        self._worker = ThreadPoolExecutor(1, thread_name_prefix='checkpoint')
        self._saving: Future | None = None
        self._processes = processes.current()
        if keep is None:
            return
        try:
            if self._processes.first:
                self._clear()
            self._check_shared()
        except OSError as error:
            raise StorageError(f'{self.directory}: cannot keep checkpoints there: {error}.') from error

    def save(self, step: int, state: Tree, extra: Mapping[str, Any]) -> None:
        """Starts saving ``state`` as ``step``; returns when its arrays are copied and may be donated.

        Digests, writing and the removal of old steps happen in the background. A save that is still running
        is waited for: no call is skipped. An existing step is replaced.

        Args:
            step: finished steps.
            state: a pytree of arrays (typed random keys too) whose root has named fields.
            extra: JSON that belongs to the state: position in the data, stage, trained length, configuration.

        Raises:
            StorageError: the previous save failed, or the disk has less than 1.2 sizes of the state free.
            TypeError, ValueError: ``extra`` is not JSON.
        """
        if self._keep is None:
            raise ValueError(f'{self.directory}: these checkpoints are open for reading.')
        self.wait()
        extra = json.loads(json.dumps(extra, allow_nan=False))  # a copy, which the caller cannot change
        leaves = archive.leaves_of(state)
        needed = int(HEADROOM * sum(leaf.numbers.nbytes for leaf in leaves.values()))
        if (free := self._free()) < needed:
            raise StorageError(
                f'{self.directory / str(step)}: not saved, the disk is too full: {needed:,} bytes needed, '
                f'{free:,} free. Make room and start again; earlier checkpoints are untouched.'
            )
        write = self._write if self._processes.count == 1 else self._write_together
        self._saving = self._worker.submit(write, step, archive.to_host(leaves), extra, needed)

    def poll(self) -> None:
        """Raises the StorageError of a background save that has failed; never waits."""
        if self._saving is not None and self._saving.done():
            self.wait()

    def wait(self) -> None:
        """Returns when no save is running; raises the StorageError of one that failed."""
        saving, self._saving = self._saving, None
        if saving is not None:
            saving.result()

    def close(self) -> None:
        """Waits for the last save; raises its StorageError if it failed."""
        self._worker.shutdown()
        self.wait()

    def __enter__(self) -> Checkpoints:
        return self

    def __exit__(self, kind, *_) -> None:
        try:
            self.close()
        except StorageError as error:
            if kind is None:
                raise
            logging.error('%s', error)  # beside the error that is under way, which tells more

    def steps(self) -> list[int]:
        """The committed steps, ascending."""
        return [step for step in self._named() if archive.is_committed(self._path(step))]

    def latest(self) -> int | None:
        """The newest committed step; None without any."""
        return max(self.steps(), default=None)

    def extra(self, step: int | None = None) -> dict[str, Any]:
        """The JSON saved with ``step`` (default: the newest), without reading arrays.

        Raises:
            StorageError: there is no such step, or its manifest is broken.
        """
        step = self._existing(step)
        try:
            return archive.read_extra(self._path(step))
        except archive.Corrupt as error:
            raise StorageError(f'{self._path(step)}: {error}.') from error

    def restore(
        self, abstract: Tree, step: int | None = None, *, part: str | None = None, strict: bool = False
    ) -> tuple[Tree, dict[str, Any], int]:
        """Reads a state back, verified, onto the shardings of ``abstract``.

        Args:
            abstract: what the state looks like: a pytree of jax.ShapeDtypeStruct, or of arrays. A leaf goes
                where its ``sharding`` says, whatever mesh it was saved from.
            step: the step to read, and no other. None: the newest; if that is broken, the newest intact one,
                with a warning, and a writer renames the broken ones to ``N.corrupt``.
            part: read only this field of the state, for instance 'params'; ``abstract`` is that field's.
            strict: a broken newest step is an error.

        Returns:
            The state, bit by bit what was saved, the ``extra`` saved with it, and its step.

        Raises:
            StorageError: there is no such step or it is broken, or none is intact.
            ConfigError: a leaf is missing, unknown, or of another shape or type than ``abstract`` says.
        """
        self.wait()
        self._existing(step)
        candidates = self._named()[::-1] if step is None else [step]
        candidates = json.loads(self._processes.of_first('steps', lambda: json.dumps(candidates)))
        broken = {}
        for candidate in candidates[:1] if strict else candidates:
            found, error = self._read(candidate, abstract, part)
            if error:
                broken[candidate] = error
            else:
                self._quarantine(broken, candidate)
                return *found, candidate
        reasons = '; '.join(f'{self._path(s)}: {error}' for s, error in broken.items())
        raise StorageError(f'No intact checkpoint to restore. {reasons}.')

    def _read(self, step: int, abstract: Tree, part: str | None) -> tuple[tuple | None, str]:
        """``((state, extra), '')``, or None and what is broken, of which one process may know for all."""
        found, error = None, ''
        try:
            found = archive.read(self._path(step), abstract, part)
        except archive.Corrupt as corrupt:
            error = str(corrupt)
        return found, next(filter(None, self._processes.everyone('read', error)), '')

    def _clear(self) -> None:
        """Removes what an interrupted process left."""
        self.directory.mkdir(parents=True, exist_ok=True)
        for path in [*self.directory.glob('*.saving'), *self.directory.glob('*.deleting')]:
            logging.info('Removing %s, which an interrupted process left.', path)
            shutil.rmtree(path)

    def _check_shared(self) -> None:
        """Raises OSError unless all processes see the directory of the first one."""
        if self._processes.count == 1:
            return
        name = self._processes.of_first('probe', lambda: f'.probe-{uuid.uuid4().hex}')
        if self._processes.first:
            (self.directory / name).touch()
        self._processes.everyone('probing')
        seen = (self.directory / name).exists()
        blind = [i for i, x in enumerate(self._processes.everyone('probed', str(seen))) if x != 'True']
        if self._processes.first:
            (self.directory / name).unlink()
        if blind:
            raise OSError(
                f'process {blind[0]} does not see what process 0 writes there; give a --workdir that all share'
            )

    def _write(self, step: int, leaves: Mapping[str, archive.Leaf], extra: dict, needed: int) -> None:
        """The background part of a save."""
        temporary = self._path(step, '.saving')
        try:
            archive.write(temporary, leaves, extra)
            self._name(step)
        except Exception as error:  # Orbax and TensorStore raise many kinds
            shutil.rmtree(temporary, ignore_errors=True)
            raise self._not_written(step, needed, archive.first_line(error)) from error

    def _write_together(
        self, step: int, leaves: Mapping[str, archive.Leaf], extra: dict, needed: int
    ) -> None:
        """The same by several processes: all parts, then the manifest and the name."""
        temporary, told = self._path(step, '.saving'), {}
        try:
            told['part'] = archive.write_part(temporary, leaves)
        except Exception as error:
            told['error'] = archive.first_line(error)
        self._processes.post('part', json.dumps(told))
        if self._processes.first:
            self._processes.post('saved', self._finish(step, leaves, extra))
        if failed := self._processes.read('saved', of=0):
            raise self._not_written(step, needed, failed)

    def _finish(self, step: int, leaves: Mapping[str, archive.Leaf], extra: dict) -> str:
        """What the first process does when all have written; returns what went wrong, if anything."""
        temporary = self._path(step, '.saving')
        told = [json.loads(self._processes.read('part', of)) for of in range(self._processes.count)]
        try:
            for index, one in enumerate(told):
                if 'error' in one:
                    return f'Process {index}: {one["error"]}'
            archive.finish(temporary, leaves, extra, [one['part'] for one in told])
            self._name(step)
        except Exception as error:
            return archive.first_line(error)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)  # which has its name, unless something went wrong
        return ''

    def _name(self, step: int) -> None:
        """Gives a whole step its name, and takes those of the oldest."""
        self._remove(step)
        self._path(step, '.saving').rename(self._path(step))
        archive.sync(self.directory)
        for old in self.steps()[: -self._keep]:
            self._remove(old)

    def _not_written(self, step: int, needed: int, why: str) -> StorageError:
        return StorageError(
            f'{self._path(step)}: checkpoint not written, {needed:,} bytes needed, {self._free():,} free. {why}'
        )

    def _remove(self, step: int) -> None:
        if self._path(step).exists():
            self._path(step).rename(self._path(step, '.deleting'))
            shutil.rmtree(self._path(step, '.deleting'))

    def _quarantine(self, broken: Mapping[int, str], used: int) -> None:
        """Warns of broken steps and, in a writer, puts them out of the way of later runs."""
        for step, error in broken.items():
            logging.warning('Checkpoint %s is broken (%s): step %d is used.', self._path(step), error, used)
            if self._keep is not None and self._processes.first:
                shutil.rmtree(self._path(step, '.corrupt'), ignore_errors=True)
                self._path(step).rename(self._path(step, '.corrupt'))

    def _path(self, step: int, suffix: str = '') -> Path:
        return self.directory / f'{step}{suffix}'

    def _named(self) -> list[int]:
        """The steps that have a directory, broken ones too, ascending."""
        paths = self.directory.iterdir() if self.directory.is_dir() else ()
        return sorted(int(path.name) for path in paths if path.name.isdecimal() and path.is_dir())

    def _existing(self, step: int | None) -> int:
        """``step`` if it has a directory, or the newest committed one."""
        steps = self.steps()
        if step is None and steps:
            return steps[-1]
        if step is not None and step in self._named():
            return step
        what = 'checkpoint' if step is None else f'step {step}'
        raise StorageError(f'{self.directory}: no {what}; there are: {", ".join(map(str, steps)) or "none"}.')

    def _free(self) -> int:
        """Free bytes of the disk; 0 if it is gone."""
        try:
            return shutil.disk_usage(self.directory).free
        except OSError:
            return 0
