"""One door to the documents of every source: ``open_documents``."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Protocol

from rich.console import Console
from rich.filesize import decimal

from lcx.data import files
from lcx.data.config import TFDS, DataConfig
from lcx.errors import DataError, unknown

SPLITS = ('train', 'validation')


class Source(Protocol):
    """The documents of one split, read one at a time."""

    label: str  # 'stdlib train': for messages
    fingerprint: str  # changes when a document does

    def __len__(self) -> int: ...

    def __getitem__(self, number: int) -> str: ...

    def name(self, number: int) -> str:
        """What people call the document: its file name, if it has one."""


@dataclasses.dataclass(frozen=True)
class Records:
    """The documents in one feature of a TFDS data source."""

    data: Sequence[Mapping]
    feature: str
    label: str
    fingerprint: str

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, number: int) -> str:
        """Raises a DataError for a record whose feature is not UTF-8 text."""
        if not 0 <= number < len(self):
            raise IndexError(f'{self.label} has documents 0 to {len(self) - 1}, not {number}')
        value = self.data[number][self.feature]
        try:
            return value.decode()
        except (AttributeError, UnicodeDecodeError) as error:
            raise DataError(
                f'{self.label}: {self.feature!r} of record {number} is not UTF-8 text: {error}.'
            ) from None

    def name(self, number: int) -> str:
        """The record's own name, if it has one, else its number."""
        name = self.data[number].get('name')
        return name.decode(errors='replace') if isinstance(name, bytes) else f'{self.label} {number}'


def open_documents(config: DataConfig, split: str) -> Source:
    """The documents of ``split``, 'train' or 'validation'; the data set is prepared on first use.

    Files are read on every call (about a second per GB), because only their content can tell whether the
    prepared data set is still theirs.

    Raises:
      ConfigError: files or data sets that do not exist.
      DataError: documents that cannot be used, or a prepared data set that is damaged.
      StorageError: ``data.directory`` cannot be written.
    """
    if split not in SPLITS:
        raise DataError(unknown('split', split, SPLITS))
    if config.source.startswith(TFDS):
        from lcx.data import catalogue  # imports TFDS

        return catalogue.open_split(config, split)
    return _open_files(config, split)


def validate(config: DataConfig) -> None:
    """Cheap checks of what the configuration names, in under a second and without preparing anything.

    Raises:
      ConfigError: files or data sets that do not exist.
    """
    if config.source.startswith(TFDS):
        from lcx.data import catalogue

        catalogue.find(config)
    elif config.task is None:
        files.LISTINGS[config.source](config.files)


def announce(message: str) -> None:
    """One line on stderr about work that takes a while."""
    Console(stderr=True, highlight=False).print(message, soft_wrap=True, markup=False)


def _open_files(config: DataConfig, split: str) -> Records:
    from lcx.data import builder  # imports TFDS

    found = files.scan(files.LISTINGS[config.source](config.files))
    parts = files.split(found, config.validation_percent)
    content = [config.source, config.validation_percent, *((file.name, file.digest) for file in found)]
    fingerprint = hashlib.sha256(json.dumps(content).encode()).hexdigest()
    path = config.root / f'{config.source}-{fingerprint[:16]}'
    if not path.is_dir():
        size = decimal(sum(file.size for file in found))
        announce(f'Preparing {config.source}: {len(found)} documents, {size}, in {path}')
    data = builder.data_source(builder.prepare(parts, path), split)
    return Records(data, 'text', f'{config.source} {split}', f'{fingerprint} {split}')
