"""Files as a prepared TFDS data set: one record per document, in array_record, with splits by document.

Importing this module imports TFDS (half a second), never TensorFlow.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import tensorflow_datasets as tfds
from array_record.python.array_record_module import ArrayRecordReader

from lcx.data import atomic, files
from lcx.errors import DataError

FORMAT = (
    'array_record'  # the one format of TFDS that gives random access without TensorFlow and loses nothing
)


class Documents(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """Documents with their names, in the order given; ``text`` holds the file's bytes unchanged."""

    VERSION = tfds.core.Version('1.0.0')
    # Where TFDS looks for checksums of downloads. There are none, and looking needs importlib_resources,
    # which TFDS uses but does not depend on.
    code_path = None

    def __init__(self, *, splits: Mapping[str, Sequence[files.File]], **kwargs):
        self._splits = splits
        super().__init__(**kwargs)

    def _info(self) -> tfds.core.DatasetInfo:
        features = {'name': tfds.features.Text(), 'text': tfds.features.Text()}
        return tfds.core.DatasetInfo(
            builder=self, features=tfds.features.FeaturesDict(features), disable_shuffling=True
        )

    def _split_generators(self, _) -> dict[str, Iterator]:
        return {name: self._generate_examples(part) for name, part in self._splits.items()}

    def _generate_examples(self, part: Sequence[files.File]) -> Iterator:
        for number, file in enumerate(part):
            content = files.read(file.path)
            if hashlib.sha256(content).hexdigest() != file.digest:
                raise DataError(f'{file.path} changed while it was being prepared; start again.')
            yield number, {'name': file.name, 'text': content}


def prepare(splits: Mapping[str, Sequence[files.File]], path: Path) -> tfds.core.DatasetBuilder:
    """The data set in ``path``, prepared there first, by one of many processes, if it does not exist."""

    def write(temporary: Path) -> None:
        build(Documents(splits=splits, data_dir=temporary, file_format=FORMAT))

    atomic.create(path, write)
    return tfds.builder_from_directory(path / 'documents' / str(Documents.VERSION))


def build(builder: tfds.core.DatasetBuilder) -> None:
    """Downloads and prepares without progress bars, prints or a look at Google Cloud Storage."""
    tfds.disable_progress_bar()
    with contextlib.redirect_stdout(io.StringIO()):
        builder.download_and_prepare(
            file_format=FORMAT, download_config=tfds.download.DownloadConfig(try_download_gcs=False)
        )


def data_source(builder: tfds.core.DatasetBuilder, split: str) -> Sequence[Mapping]:
    """The records of a prepared split.

    Raises:
      DataError: the files do not hold the records that ``dataset_info.json`` promises. TFDS itself takes a
        truncated file as it is and answers with records of None.
    """
    info = builder.info.splits[split]
    held = sum(ArrayRecordReader(str(path)).num_records() for path in info.filepaths)
    if held != info.num_examples:
        raise DataError(
            f'{builder.data_path}: split {split!r} holds {held} of {info.num_examples} records. '
            'Delete this directory and prepare it again.'
        )
    return builder.as_data_source(split)
