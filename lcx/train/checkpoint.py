"""The checkpoints of a run: whole, proved intact when read, and never in the way of a step.

    DIRECTORY/500/                                a committed step, as lcx.train.archive describes
    DIRECTORY/750.saving/, DIRECTORY/250.deleting/    being written, being removed
    DIRECTORY/500.corrupt/                        found broken when it was read, kept for a look

A step gets its name in one rename after its last byte and loses it before its first, so that a process
killed at any moment leaves no part of a step under a step's name. Works for runs of one process.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

from absl import logging

from lcx.errors import StorageError
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
        if keep is None:
            return
        try:
            self.directory.mkdir(parents=True, exist_ok=True)
            for path in [*self.directory.glob('*.saving'), *self.directory.glob('*.deleting')]:
                logging.info('Removing %s, which an interrupted process left.', path)
                shutil.rmtree(path)
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
        self._saving = self._worker.submit(self._write, step, archive.to_host(leaves), extra, needed)

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
        broken = {}
        for candidate in candidates[:1] if strict else candidates:
            try:
                state, extra = archive.read(self._path(candidate), abstract, part)
            except archive.Corrupt as error:
                broken[candidate] = error
            else:
                self._quarantine(broken, candidate)
                return state, extra, candidate
        reasons = '; '.join(f'{self._path(s)}: {error}' for s, error in broken.items())
        raise StorageError(f'No intact checkpoint to restore. {reasons}.')

    def _write(self, step: int, leaves: Mapping[str, archive.Leaf], extra: dict, needed: int) -> None:
        """The background part of a save."""
        temporary = self._path(step, '.saving')
        try:
            archive.write(temporary, leaves, extra)
            self._remove(step)
            temporary.rename(self._path(step))
            archive.sync(self.directory)
            for old in self.steps()[: -self._keep]:
                self._remove(old)
        except Exception as error:  # Orbax and TensorStore raise many kinds
            shutil.rmtree(temporary, ignore_errors=True)
            raise StorageError(
                f'{self._path(step)}: checkpoint not written, {needed:,} bytes needed, '
                f'{self._free():,} free. {archive.first_line(error)}'
            ) from error

    def _remove(self, step: int) -> None:
        if self._path(step).exists():
            self._path(step).rename(self._path(step, '.deleting'))
            shutil.rmtree(self._path(step, '.deleting'))

    def _quarantine(self, broken: Mapping[int, Exception], used: int) -> None:
        """Warns of broken steps and, in a writer, puts them out of the way of later runs."""
        for step, error in broken.items():
            logging.warning('Checkpoint %s is broken (%s): step %d is used.', self._path(step), error, used)
            if self._keep is not None:
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
