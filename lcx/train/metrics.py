"""Metrics: rows of JSON lines are the truth, TensorBoard is a view of them.

A JSONL file holds one flat record per line. A row exists once its newline is written, so a process killed
in the middle of a row leaves a torn last line, which readers skip and the next writer removes.

JSON has no NaN and no infinity, and strict readers refuse the words that Python would write for them. Such
values are therefore written as ``null``: the step and the name stay visible and a plot shows a gap. Which
of the two it was is told by the error that ends the run, and TensorBoard receives the number as it is.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from lcx.errors import StorageError
from lcx.types import Row


class JsonlWriter:
    """Appends rows to a JSONL file, each one flushed to the operating system; a context manager.

    Values may be Python, numpy or jax numbers (scalars or arrays), strings, None, lists and mappings.

    Raises:
        StorageError: the file cannot be opened or written.
    """

    def __init__(self, path: str | os.PathLike):
        self._path = Path(path)
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            # Appending behind a torn line would damage two rows.
            with open(self._path, 'ab+') as file:
                file.seek(0)
                file.truncate(file.read().rfind(b'\n') + 1)
            self._file = self._path.open('a', encoding='utf-8')
        except OSError as error:
            raise StorageError(f'{self._path}: cannot be opened for writing: {error.strerror}.') from error

    def write(self, row: Row) -> None:
        """Appends ``row`` as one line."""
        line = json.dumps(_without_non_finite(plain_value(row)), allow_nan=False) + '\n'
        try:
            self._file.write(line)
            self._file.flush()
        except OSError as error:
            raise StorageError(f'{self._path}: row not written: {error.strerror}.') from error

    def close(self) -> None:
        self._file.close()

    def __enter__(self) -> JsonlWriter:
        return self

    def __exit__(self, *_) -> None:
        self.close()


def read_jsonl(path: str | os.PathLike) -> Iterator[dict[str, Any]]:
    """The rows of a JSONL file in order, without a torn last line.

    Raises:
        StorageError: the file cannot be read, or a complete line in it is not a JSON object.
    """
    try:
        content = Path(path).read_bytes()
    except OSError as error:
        raise StorageError(f'{path}: cannot be read: {error.strerror}.') from error
    for number, line in enumerate(content.split(b'\n')[:-1], start=1):
        try:
            row = json.loads(line)
        except ValueError:
            row = None
        if not isinstance(row, dict):
            raise StorageError(
                f'{path}:{number}: not a JSON object: {line[:60]!r}. Remove the line to go on.'
            )
        yield row


def truncate_after(path: str | os.PathLike, step: int) -> None:
    """Drops the rows whose ``step`` is greater than ``step``, and keeps those without one.

    A run that goes on from a checkpoint writes the later steps again: without this they would count twice.
    The file is replaced in one rename; a missing file stays missing. Raises StorageError.
    """
    if not os.path.exists(path):
        return
    rows = [row for row in read_jsonl(path) if row.get('step', step) <= step]
    write_atomic(path, ''.join(json.dumps(row) + '\n' for row in rows))


class Metrics:
    """Sends rows to ``metrics.jsonl`` and, if asked, to TensorBoard files in ``events/``; a context manager.

    Args:
        workdir: directory of the run.
        tensorboard: whether to write event files as well.
        writes: False: nothing is written, as by all but the first of several processes.
        after: the step the run goes on from (0 for a fresh start). Later rows, left by an attempt that got
            further than its last checkpoint, are dropped from the file and hidden in TensorBoard.
    """

    def __init__(self, workdir: str | os.PathLike, *, tensorboard: bool, after: int, writes: bool = True):
        self._jsonl, self._events = None, None
        if not writes:
            return
        path = Path(workdir) / 'metrics.jsonl'
        truncate_after(path, after)
        self._jsonl = JsonlWriter(path)
        if tensorboard:
            from tensorboardX import SummaryWriter  # here, because it takes longer to import than a short run

            self._events = SummaryWriter(str(Path(workdir) / 'events'), purge_step=after + 1)

    def write(self, step: int, row: Row) -> None:
        """Writes the metrics ``row`` of step ``step``; TensorBoard gets its numbers."""
        if self._jsonl is None:
            return
        row = plain_value(row)
        self._jsonl.write({'step': step, **row})
        if self._events is not None:
            for name, value in row.items():
                if isinstance(value, (int, float)):
                    self._events.add_scalar(name, value, step)

    def close(self) -> None:
        for file in (self._jsonl, self._events):
            if file is not None:
                file.close()

    def __enter__(self) -> Metrics:
        return self

    def __exit__(self, *_) -> None:
        self.close()


def write_atomic(path: str | os.PathLike, text: str) -> None:
    """Replaces the file by ``text`` (UTF-8): readers and crashes see the old or the new file, never a part.

    Raises:
        StorageError: the file cannot be written.
    """
    path = Path(path)
    temporary = path.with_name(f'{path.name}.{os.getpid()}.tmp')
    try:
        with open(temporary, 'w', encoding='utf-8') as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise StorageError(f'{path}: cannot be written: {error.strerror}.') from error


def plain_value(value: Any) -> Any:
    """Numpy and jax numbers (scalars or arrays) as Python's, inside mappings and lists too."""
    if isinstance(value, Mapping):
        return {str(k): plain_value(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain_value(v) for v in value]
    return value.tolist() if hasattr(value, 'tolist') else value


def _without_non_finite(value: Any) -> Any:
    """``value`` with None for NaN and infinities."""
    if isinstance(value, dict):
        return {k: _without_non_finite(v) for k, v in value.items()}
    if isinstance(value, list):
        return [_without_non_finite(v) for v in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
