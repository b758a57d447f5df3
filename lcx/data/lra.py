"""The Long Range Arena's classification tasks out of its own files: Tay et al. 2020, arXiv:2011.04006.

    data.source=lra:listops    data.files=('lra_release/listops-1000',)
    data.source=lra:retrieval  data.files=('lra_release/lra_release/tsv_data',)

A row is a text, ``=`` and the label, the only token that counts; two texts have ``|`` between them. A text that does
not fit keeps its beginning, as in the Arena, and evaluations count the rows that were ``cut``. ListOps is spelled as in
:mod:`lcx.data.tasks.listops`, a character for each token of the Arena, round brackets left out as there.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from lcx.data.tasks.api import Task, as_batch, shifted
from lcx.data.tokenizers import Tokenizer
from lcx.errors import ConfigError, DataError
from lcx.types import Batch

SEPARATOR, BETWEEN = '=', '|'
SPELLED = {'[MAX': 'X', '[MIN': 'N', '[MED': 'D', '[SM': 'S', ']': ']', '(': '', ')': ''}


class Layout(NamedTuple):
    """How one of the Arena's tasks lies on disk."""

    files: Mapping[str, str]  # split -> file name
    header: str | None  # the first line
    columns: str  # what a line has, for people
    read: Callable[[list[str]], tuple[tuple[str, ...], str]]  # columns -> texts, label
    texts: int = 1


def _listops(columns: list[str]) -> tuple[tuple[str, ...], str]:
    source, target = columns
    known = {**SPELLED, **{digit: digit for digit in '0123456789'}}
    try:
        return (''.join(known[token] for token in source.split()),), target
    except KeyError as error:
        raise ValueError(f'{error.args[0]!r} is no token of ListOps') from None


def _text(columns: list[str]) -> tuple[tuple[str, ...], str]:
    source, target = columns
    return (source,), target


def _retrieval(columns: list[str]) -> tuple[tuple[str, ...], str]:
    label, _, _, first, second = columns
    return (first, second), str(int(float(label)))


def _named(pattern: str, *splits: str) -> dict[str, str]:
    return {name: pattern.format(split) for name, split in zip(('train', 'validation', 'test'), splits)}


LAYOUTS = {
    'listops': Layout(
        _named('basic_{}.tsv', 'train', 'val', 'test'), 'Source\tTarget', 'an expression, its value', _listops
    ),
    # The Arena reads IMDb through TFDS; a file of it has the layout of ListOps here.
    'text': Layout(_named('text_{}.tsv', 'train', 'val', 'test'), 'Source\tTarget', 'a text, its label', _text),
    'retrieval': Layout(
        _named('new_aan_pairs.{}.tsv', 'train', 'eval', 'test'),
        None,
        'a label, two names, two texts',
        _retrieval,
        texts=2,
    ),
}  # fmt: skip


class Arena(Task):
    """One split of one of :data:`LAYOUTS`: rows are examples drawn without repetition, as far as there are enough.

    Lines are read when they are drawn; the file is read once to know where they begin.

    Raises:
      ConfigError: the tokenizer has no single token for a label or mark.
      DataError: the file is missing, empty or of another layout; the message says which it should have.
    """

    def __init__(self, tokenizer: Tokenizer, kind: str, directory: str, split: str) -> None:
        super().__init__(tokenizer)
        self.name, self.layout = f'lra_{kind}', LAYOUTS[kind]
        self.path = path_of(kind, directory, split)
        self.least = 2 * self.layout.texts + 1
        self.marks = {}
        for mark in (*'0123456789', SEPARATOR, BETWEEN):
            ids = tokenizer.encode(mark)
            if len(ids) != 1:
                raise ConfigError(
                    f'data.tokenizer: {len(ids)} tokens for {mark!r}, which {self.name!r} needs as one; use bytes.'
                )
            self.marks[mark] = ids
        self.starts, self.digest = self._index()
        self.example(0)

    @property
    def fingerprint(self) -> str:
        """Changes when the file does."""
        return f'task {self.name} {self.digest}'

    def __len__(self) -> int:
        return len(self.starts) - 1

    def example(self, number: int) -> tuple[tuple[str, ...], str]:
        """Texts and label of an example."""
        with open(self.path, 'rb') as file:
            file.seek(self.starts[number])
            line = file.read(self.starts[number + 1] - self.starts[number])
        try:
            texts, label = self.layout.read(line.decode().rstrip('\r\n').split('\t'))
            if label not in self.marks or not label.isdigit():
                raise ValueError(f'the label is {label!r}')
        except ValueError as error:
            raise DataError(f'{self._where(f"{self.path}, example {number}: {error}")}') from None
        return texts, label

    def sample_batch(
        self, random: np.random.Generator, batch: int, length: int, *, vary: bool = False
    ) -> Batch:
        """``batch`` examples, cut to ``length`` tokens; ``ids`` are their numbers. They are of any size: see ``vary``.

        Raises:
          DataError: ``length`` is below ``least``.
        """
        del vary
        self.check(length)
        numbers = random.choice(len(self), batch, replace=batch > len(self))
        rows = [shifted(*self._ids(int(number), length)[:2]) for number in numbers]
        return as_batch(rows, length)._replace(ids=numbers.astype(np.int32))

    def facts(self, batch: Batch) -> Mapping[str, int]:
        """How many rows of a batch of :meth:`sample_batch` lack a part of their text."""
        length = batch.tokens.shape[1]
        return {'cut': sum(self._ids(int(number), length)[2] for number in batch.ids)}

    def _ids(self, number: int, length: int) -> tuple[np.ndarray, np.ndarray, bool]:
        """Ids of an example with their weights, ``length`` + 1 at most, and whether it was cut."""
        texts, label = self.example(number)
        room = (length - 1 - len(texts)) // len(texts)
        encoded = [self.tokenizer.encode(text) for text in texts]
        parts = []
        for ids, mark in zip(encoded, (BETWEEN, SEPARATOR)[2 - len(texts) :]):
            parts += [ids[:room], self.marks[mark]]
        ids = np.concatenate([*parts, self.marks[label], [self.tokenizer.eos]]).astype(np.int32)
        weights = np.zeros(len(ids), np.float32)
        weights[-2] = 1
        return ids, weights, any(len(ids) > room for ids in encoded)

    def _index(self) -> tuple[np.ndarray, str]:
        """Where each example begins and the last one ends, and a digest of the file."""
        digest, starts, end = hashlib.sha256(), [], 0
        try:
            with open(self.path, 'rb') as file:
                for number, line in enumerate(file):
                    digest.update(line)
                    first = number == 0 and self.layout.header is not None
                    if first and line.decode(errors='replace').rstrip('\r\n') != self.layout.header:
                        raise DataError(self._where(f'{self.path} begins with {line[:60]!r}'))
                    if line.strip() and not first:
                        starts.append(end)
                    end += len(line)
        except OSError as error:
            raise DataError(self._where(f'{self.path} cannot be read: {error.strerror}')) from None
        if not starts:
            raise DataError(self._where(f'{self.path} has no example'))
        return np.array([*starts, end], np.int64), digest.hexdigest()

    def _where(self, problem: str) -> str:
        head = '' if self.layout.header is None else f'first {self.layout.header!r}, then '
        return (
            f'{self.name}: {problem}. It should have {head}on each line, between tabs, {self.layout.columns}.'
        )


def path_of(kind: str, directory: str, split: str) -> Path:
    """The file of a split; raises DataError if it is not there."""
    path = Path(directory).expanduser() / LAYOUTS[kind].files[split]
    if not path.is_file():
        names: Sequence[str] = list(LAYOUTS[kind].files.values())
        raise DataError(
            f'lra:{kind}: no file {path}. data.files names the directory of {", ".join(names)}, each with '
            f'{LAYOUTS[kind].columns} on a line, between tabs.'
        )
    return path
