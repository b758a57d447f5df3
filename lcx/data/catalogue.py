"""Source 'tfds:NAME': the TFDS catalogue, builders of your own, and data sets prepared by others.

NAME is ``name``, ``name/config`` or either with ``:version``. A data set in ``data.directory`` needs no code;
one that is not there is downloaded and prepared, if its builder is registered (imported).

``data.text_feature`` names what of a record is its text: 'book_text' (pg19), 'input,output' (scrolls), 'text,summary'
(billsum), 'document,summary' (booksum, multi_news), 'reports,summary' (gov_report), 'en,de' (wmt16_translate/de-en).
Of a class label it is the label's name: 'text,label' (imdb_reviews).
"""

from __future__ import annotations

import difflib
import hashlib
import importlib
import os
import re
from pathlib import Path

import numpy as np
import tensorflow_datasets as tfds

from lcx.data import builder as builders
from lcx.data.announce import announce
from lcx.data.config import TFDS, DataConfig
from lcx.data.sources import Records
from lcx.errors import ConfigError, DataError, unknown

_NAME = re.compile(r'[A-Za-z]\w*(/[\w.+-]+)?(:\d+\.\d+\.\d+)?')
_HELD_OUT = ('validation', 'test')  # in this order
# Packages of TFDS with builders of texts that it registers when they are imported, which it leaves to others.
_UNREGISTERED = ('question_answering', 'summarization', 'text', 'text_simplification', 'translate')


def find(config: DataConfig) -> tfds.core.DatasetBuilder:
    """The data set's builder, prepared or not.

    Raises:
      ConfigError: no data set of this name, config or version, or a ``data.text_feature`` that is not text
        of it.
    """
    name = config.source.removeprefix(TFDS)
    if not _NAME.fullmatch(name):
        raise ConfigError(
            f'data.source: {config.source!r} is not tfds:NAME, tfds:NAME/CONFIG or either with :1.2.3.'
        )
    try:
        builder = _builder(config, name)
    except tfds.core.DatasetNotFoundError:
        known = tfds.list_builders(with_community_datasets=False)
        near = difflib.get_close_matches(re.split('[/:]', name)[0], known, n=3, cutoff=0.4)
        raise ConfigError(
            f'data.source: TFDS knows no {name!r}. Nearest: {", ".join(near) or "none"}. '
            f'A data set of your own must be imported or prepared in {config.root}.'
        ) from None
    except (ValueError, AssertionError) as error:  # TFDS's answers to an unknown config and version
        raise ConfigError(f'data.source: {config.source!r}: {_first_line(error)}') from None
    texts = [key for key, feature in builder.info.features.items() if _is_text(feature)]
    for feature in _features(config):
        if feature not in texts:
            raise ConfigError(unknown('data.text_feature', feature, texts))
    return builder


def prepared(config: DataConfig) -> tfds.core.DatasetBuilder:
    """The builder of a data set that can be read, downloaded and prepared now if need be.

    Raises:
      ConfigError: see :func:`find`.
      DataError: it cannot be prepared here, or was prepared in a format without random access.
    """
    builder = find(config)
    if not os.path.isdir(builder.data_dir):
        announce(f'Downloading and preparing {config.source} in {builder.data_dir}')
        try:
            builders.build(builder)
        except Exception as error:  # whatever a builder, a download or a parser raises
            if not os.path.isdir(builder.data_dir):  # else another process was first
                raise DataError(_how_to_prepare(config, builder, error)) from error
        builder = find(config)
    if builder.info.file_format.value != builders.FORMAT:
        raise DataError(
            f'{builder.data_dir} is prepared as {builder.info.file_format.value}, which cannot be read here. '
            f"Prepare it again with file_format='{builders.FORMAT}'."
        )
    return builder


def open_split(config: DataConfig, split: str) -> Records:
    """The documents of 'train', 'validation' or 'test', prepared first if need be.

    Validation is the data set's own 'validation' or else 'test'; where it has neither, the last
    ``validation_percent`` of the documents are kept out of training. Test is the data set's own alone.

    Raises:
      DataError: no 'train', too few documents, damaged files, or what :func:`prepared` raises.
    """
    builder = prepared(config)
    sizes = {name: info.num_examples for name, info in builder.info.splits.items()}
    if not sizes.get('train'):
        raise DataError(f"{config.source}: no documents in a split 'train'; it has {sizes}.")
    held_out = next((name for name in _HELD_OUT if sizes.get(name)), None)
    part = held_out if split == 'validation' else split
    if split == 'test' and not sizes.get('test'):
        raise DataError(f"{config.source}: no documents in a split 'test'; it has {sizes}.")
    if held_out is None:
        if sizes['train'] < 2:
            raise DataError(f'{config.source}: one document cannot be divided among training and validation.')
        cut = sizes['train'] - max(1, round(sizes['train'] * config.validation_percent / 100))
        part = f'train[:{cut}]' if split == 'train' else f'train[{cut}:]'
    base = part.split('[')[0]
    builders.data_source(builder, base)
    paths = [Path(path) for path in builder.info.splits[base].filepaths]
    # A prepared data set is not read whole at every start: its files' names, sizes and times stand for it.
    files = [(path.name, path.stat().st_size, path.stat().st_mtime_ns) for path in paths]
    identity = repr((builder.info.full_name, config.text_feature, part, files))
    fingerprint = hashlib.sha256(identity.encode()).hexdigest()
    classes = {
        name: builder.info.features[name].names
        for name in _features(config)
        if isinstance(builder.info.features[name], tfds.features.ClassLabel)
    }
    data = builder.as_data_source(part)
    return Records(data, _features(config), f'{config.source} {part}', fingerprint, classes)


def _builder(config: DataConfig, name: str) -> tfds.core.DatasetBuilder:
    try:
        return tfds.builder(name, data_dir=config.root)
    except tfds.core.DatasetNotFoundError:
        for package in _UNREGISTERED:
            importlib.import_module(f'tensorflow_datasets.{package}')
        return tfds.builder(name, data_dir=config.root)


def _features(config: DataConfig) -> tuple[str, ...]:
    return tuple(feature.strip() for feature in config.text_feature.split(','))


def _is_text(feature: object) -> bool:
    return isinstance(feature, (tfds.features.Text, tfds.features.ClassLabel)) or (
        isinstance(feature, tfds.features.Tensor)
        and feature.shape == ()
        and feature.np_dtype == np.dtype(object)
    )


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def _how_to_prepare(config: DataConfig, builder: tfds.core.DatasetBuilder, error: Exception) -> str:
    name = config.source.removeprefix(TFDS)
    return (
        f'{config.source} is not prepared in {config.root}, and preparing it failed with '
        f'{type(error).__name__}: {_first_line(error)}. On a machine with network access run\n'
        f"    python -c \"import tensorflow_datasets as tfds; tfds.builder({name!r}, data_dir='prepared', "
        f"file_format='{builders.FORMAT}').download_and_prepare()\"\n"
        f'and copy prepared/{builder.name} to {config.root}/{builder.name}.'
    )
