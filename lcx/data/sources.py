"""One door to the documents of every source: ``open_documents``."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Protocol

from rich.filesize import decimal

from lcx.data import files, lra
from lcx.data.announce import announce
from lcx.data.config import LRA, TFDS, DataConfig
from lcx.data.corpora import CORPORA
from lcx.data.corpora.corpus import prepared
from lcx.errors import ConfigError, DataError, unknown

SPLITS = ('train', 'validation')  # that every source has
TEST = 'test'  # that corpora have, and some TFDS data sets


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
    """The documents in a TFDS data source: one feature of each record, or several, a line break between them."""

    data: Sequence[Mapping]
    features: tuple[str, ...]
    label: str
    fingerprint: str
    classes: Mapping[str, Sequence[str]] = dataclasses.field(
        default_factory=dict
    )  # words for a class label's numbers

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, number: int) -> str:
        """Raises a DataError for a record whose feature is not UTF-8 text, or a class without a name."""
        if not 0 <= number < len(self):
            raise IndexError(f'{self.label} has documents 0 to {len(self) - 1}, not {number}')
        record = self.data[number]
        return '\n'.join(self._text(number, feature, record[feature]) for feature in self.features)

    def name(self, number: int) -> str:
        """The record's own name, if it has one, else its number."""
        name = self.data[number].get('name')
        return name.decode(errors='replace') if isinstance(name, bytes) else f'{self.label} {number}'

    def _text(self, number: int, feature: str, value: object) -> str:
        if feature in self.classes:
            words = self.classes[feature]
            if not 0 <= value < len(words):
                raise DataError(
                    f'{self.label}: {feature!r} of record {number} is {value}, no class of {list(words)}.'
                )
            return words[value]
        try:
            return value.decode()
        except (AttributeError, UnicodeDecodeError) as error:
            raise DataError(
                f'{self.label}: {feature!r} of record {number} is not UTF-8 text: {error}.'
            ) from None


def open_documents(config: DataConfig, split: str) -> Source:
    """The documents of ``split``, 'train', 'validation' or 'test'; the data set is prepared on first use.

    Files are read on every call (about a second per GB), because only their content can tell whether the
    prepared data set is still theirs.

    Raises:
      ConfigError: files or data sets that do not exist, or a task.
      DataError: documents that cannot be used, or a prepared data set that is damaged.
      StorageError: ``data.directory`` cannot be written.
    """
    if split not in (*SPLITS, TEST):
        raise DataError(unknown('split', split, (*SPLITS, TEST)))
    if config.source.startswith(TFDS):
        from lcx.data import catalogue  # imports TFDS

        return catalogue.open_split(config, split)
    if config.draws:
        raise ConfigError(f'data.source: {config.source!r} is a task, which has no documents; it draws rows.')
    return _open_files(config, split)


def splits(config: DataConfig) -> tuple[str, ...]:
    """The splits that the source has; a TFDS data set is prepared first if need be.

    Raises what :func:`open_documents` raises.
    """
    if config.source.startswith(TFDS):
        from lcx.data import catalogue

        return (*SPLITS, TEST) if TEST in catalogue.prepared(config).info.splits else SPLITS
    return (*SPLITS, TEST) if config.source in CORPORA or config.arena is not None else SPLITS


def validate(config: DataConfig, split: str = 'validation') -> None:
    """Cheap checks of what the configuration names, in under a second and without preparing anything.

    Raises:
      ConfigError: files or data sets that do not exist, or a source that never has a ``split`` of this name.
    """
    if config.source.startswith(TFDS):
        from lcx.data import catalogue

        catalogue.find(config)
        return
    if split not in splits(config):
        raise ConfigError(
            f'eval.split: source {config.source!r} has no split {split!r}; sources that have one: '
            f'{", ".join(CORPORA)}, {LRA}NAME, {TFDS}NAME.'
        )
    if config.arena is not None:
        lra.path_of(config.arena, config.files[0], split)
    if config.source in files.LISTINGS:
        files.LISTINGS[config.source](config.files)


def _open_files(config: DataConfig, split: str) -> Records:
    from lcx.data import builder  # imports TFDS

    parts, content = _divided(config)
    if split not in parts:
        raise DataError(unknown(f'{config.source}: split', split, parts))
    fingerprint = hashlib.sha256(json.dumps(content).encode()).hexdigest()
    path = config.root / f'{config.source}-{fingerprint[:16]}'
    if not path.is_dir():
        found = [file for part in parts.values() for file in part]
        size = decimal(sum(file.size for file in found))
        announce(f'Preparing {config.source}: {len(found)} documents, {size}, in {path}')
    data = builder.data_source(builder.prepare(parts, path), split)
    return Records(data, ('text',), f'{config.source} {split}', f'{fingerprint} {split}')


def _divided(config: DataConfig) -> tuple[dict[str, list[files.File]], list]:
    """The files of every split, and what the prepared data set depends on."""
    if config.source in CORPORA:
        listed = prepared(config.source, CORPORA[config.source], config.root)
        parts = {split: files.scan(listing) for split, listing in listed.items()}
        return parts, [
            config.source,
            {split: [(f.name, f.digest) for f in part] for split, part in parts.items()},
        ]
    found = files.scan(files.LISTINGS[config.source](config.files))
    content = [config.source, config.validation_percent, *((file.name, file.digest) for file in found)]
    return files.split(found, config.validation_percent), content
