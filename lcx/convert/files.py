"""What is read of a checkpoint's directory, and how far it is trusted: not at all.

Only JSON and safetensors are read; a pickle can run code. No path leaves the directory. Tensors are read slice by
slice, each through a mapping of its own that is closed again, so that pages of the file do not pile up in memory.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import ml_dtypes  # noqa: F401  (makes NumPy know bfloat16, which safetensors asks it for)
import numpy as np
from safetensors import SafetensorError, safe_open

from lcx.errors import DataError, StorageError

CONFIG, INDEX, SINGLE = 'config.json', 'model.safetensors.index.json', 'model.safetensors'
PICKLES = ('.bin', '.pt', '.pth', '.pkl', '.ckpt')
JSON_BYTES = 16 * 2**20  # the index of a model of 100,000 tensors has half
DTYPES = {'F32': 'float32', 'BF16': 'bfloat16', 'F16': 'float16'}
DEPTH = 32  # of the nesting of JSON
TOKENIZER_FILES = (
    'tokenizer.json',
    'tokenizer_config.json',
    'tokenizer.model',
    'special_tokens_map.json',
    'added_tokens.json',
    'chat_template.jinja',
    'generation_config.json',
    'vocab.json',
    'merges.txt',
)


class Entry(NamedTuple):
    """A tensor of a file, by its header."""

    path: Path
    shape: tuple[int, ...]
    code: str  # of its type: a key of DTYPES, if it can be read


def read_json(directory: Path, name: str) -> dict[str, Any]:
    """The object in a JSON file of the directory.

    Raises:
      StorageError: it is missing, outside the directory, too large, malformed or no object.
    """
    path = inside(directory, name)
    try:
        with open(path, 'rb') as file:
            text = file.read(JSON_BYTES + 1)
        if len(text) > JSON_BYTES:
            raise StorageError(f'{path}: larger than {JSON_BYTES} bytes; that is no {name}.')
        found = json.loads(text, parse_constant=_no_number)
    except OSError as error:
        raise StorageError(f'{path}: cannot be read: {error.strerror}.') from error
    except (ValueError, RecursionError) as error:
        raise StorageError(f'{path}: malformed JSON: {str(error)[:200]}.') from error
    if not isinstance(found, dict):
        raise StorageError(f'{path}: holds a {type(found).__name__}, not an object of named fields.')
    if _deeper(found, DEPTH):
        raise StorageError(f'{path}: nested more than {DEPTH} levels deep; that is no {name}.')
    return found


def _no_number(word: str) -> None:
    raise ValueError(f'{word} is not JSON')


def _deeper(value: Any, levels: int) -> bool:
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return levels < 0 or any(_deeper(x, levels - 1) for x in inner)


def inside(directory: Path, name: str) -> Path:
    """The path of a file directly in the directory.

    Raises:
      StorageError: the name is a path or holds NUL, there is no such file, or it is a link that leaves the directory.
    """
    if not name or name in ('.', '..') or any(sign in name for sign in ('/', '\\', '\0')):
        raise StorageError(f'{directory}: {name!r} is not the name of a file in this directory.')
    path = directory / name
    if not path.is_file():
        raise StorageError(f'{directory}: has no file {name}.')
    if path.resolve().parent != directory.resolve():
        raise StorageError(
            f'{path}: a link that leaves the directory. If that is meant (the cache of huggingface_hub links), '
            'copy the directory with `cp -rL` and read the copy.'
        )
    return path


def check_directory(directory: Path) -> None:
    """Raises a StorageError unless ``directory`` is one."""
    if directory.suffix in PICKLES:
        raise StorageError(f'{directory}: {_pickle_hint(directory.parent)}')
    if not directory.is_dir():
        raise StorageError(f'{directory}: no such directory.')


def check_weights(directory: Path) -> None:
    """Raises a StorageError unless there are safetensors in it; pickles are answered with the way out."""
    check_directory(directory)
    if not any((directory / name).exists() for name in (SINGLE, INDEX)):
        if any(path.suffix in PICKLES for path in directory.iterdir()):
            raise StorageError(f'{directory}: {_pickle_hint(directory)}')
        raise StorageError(f'{directory}: has neither {SINGLE} nor {INDEX}.')


def _pickle_hint(directory: Path) -> str:
    return (
        'weights as a pickle, which could run code and is not read. Where you trust it, convert it with transformers: '
        f"AutoModelForCausalLM.from_pretrained('{directory}').save_pretrained('NEW') writes safetensors."
    )


class Tensors:
    """The tensors of a checkpoint: their headers, and their numbers slice by slice."""

    def __init__(self, directory: Path):
        """Reads the headers. Raises StorageError or DataError naming what is missing, broken or in conflict."""
        check_weights(directory)
        self.directory = directory
        index = None if (directory / SINGLE).exists() else _index(directory)
        names = [SINGLE] if index is None else sorted(set(index.values()))
        self.entries: dict[str, Entry] = {}
        for path in [inside(directory, name) for name in names]:
            for name, entry in _headers(path).items():
                if name in self.entries:
                    raise DataError(
                        f'{directory}: tensor {name} is in {self.entries[name].path.name} and {path.name}.'
                    )
                self.entries[name] = entry
        for name, file in (index or {}).items():
            if name not in self.entries or self.entries[name].path.name != file:
                raise DataError(f'{directory}: tensor {name} is not in {file}, as {INDEX} says.')

    def read(self, name: str, slices: tuple[slice, ...]) -> np.ndarray:
        """The numbers of a part of a tensor, as the file has them."""
        path = self.entries[name].path
        try:
            with safe_open(path, 'numpy') as file:
                return file.get_slice(name)[slices]
        except (OSError, SafetensorError) as error:
            raise StorageError(f'{path}: {name} cannot be read: {error}.') from error


def _headers(path: Path) -> dict[str, Entry]:
    try:
        with safe_open(path, 'numpy') as file:
            slices = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118  (no mapping)
            found = {name: (tuple(x.get_shape()), x.get_dtype()) for name, x in slices.items()}
    except (OSError, SafetensorError) as error:
        raise StorageError(f'{path}: not a safetensors file, or cut short: {error}.') from error
    return {name: Entry(path, *about) for name, about in found.items()}


def _index(directory: Path) -> Mapping[str, str]:
    """The file of every tensor."""
    found = read_json(directory, INDEX).get('weight_map')
    if not isinstance(found, dict) or not found:
        raise StorageError(f'{directory / INDEX}: has no weight_map.')
    for name in found.values():
        if not isinstance(name, str):
            raise StorageError(f'{directory / INDEX}: {name!r} is not the name of a file.')
        if Path(name).suffix in PICKLES:
            raise StorageError(f'{directory / INDEX}: {name}: {_pickle_hint(directory)}')
    return found


def copy_tokenizer_files(source: str | Path, target: str | Path) -> list[str]:
    """Copies the files that say how text becomes tokens (``TOKENIZER_FILES``), and returns their names.

    Raises:
      StorageError: one cannot be copied, or is a link that leaves the directory.
    """
    source, target, copied = Path(source), Path(target), []
    for name in TOKENIZER_FILES:
        if (source / name).exists():
            try:
                shutil.copyfile(inside(source, name), target / name)
            except OSError as error:
                raise StorageError(f'{target / name}: cannot be written: {error.strerror}.') from error
            copied.append(name)
    return copied
