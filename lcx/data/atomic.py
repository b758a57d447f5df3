"""Directories that appear complete or not at all."""

from __future__ import annotations

import shutil
import uuid
from collections.abc import Callable
from pathlib import Path

from lcx.errors import StorageError


def create(
    path: Path, write: Callable[[Path], None], hint: str = 'Set data.directory to another place.'
) -> None:
    """Makes the directory ``path`` by ``write(temporary)`` and one rename; does nothing where it exists.

    Any number of processes may do this at once: the first to finish wins and the others discard their copy,
    so ``write`` must give the same content everywhere. A killed process leaves only a hidden sibling.
    ``hint`` says in an error what can be done.

    Raises:
      StorageError: the directory cannot be written.
    """
    if path.is_dir():
        return
    temporary = path.with_name(f'.{path.name}.{uuid.uuid4().hex}')
    try:
        temporary.mkdir(parents=True)
        write(temporary)
        try:
            temporary.rename(path)
        except OSError:
            if not path.is_dir():  # no other process was first: a real failure
                raise
    except OSError as error:
        raise StorageError(f'{path} cannot be written: {error}. {hint}') from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
