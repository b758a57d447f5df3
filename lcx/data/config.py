"""The checked form of ``config.data``."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from lcx.data.corpora import CORPORA
from lcx.data.files import LISTINGS
from lcx.data.lra import LAYOUTS
from lcx.data.packing import PACKINGS
from lcx.data.tasks import FORMS, TASKS, StringTask
from lcx.data.tokenizers import locate
from lcx.errors import ConfigError, unknown

TFDS = 'tfds:'  # prefix of the sources that are TFDS data sets
TASK = 'task:'  # prefix of the sources that are synthetic tasks
LRA = 'lra:'  # prefix of the sources that are tasks of the Long Range Arena


@dataclasses.dataclass(frozen=True)
class DataConfig:
    """Which documents, tokens and rows. The fields are those of ``configs/base.py``, which explains them.

    Raises:
      ConfigError: an unknown source, tokenizer, packing or form, a form that the source does not have, files that
        are missing or that nobody would read, or a share for validation outside 1 to 50 percent. The message begins
        with the field's name.
    """

    source: str
    files: tuple[str, ...]
    text_feature: str
    directory: str
    tokenizer: str
    packing: str
    validation_percent: int
    form: str = 'decoder'

    def __post_init__(self):
        known = (
            *LISTINGS,
            *CORPORA,
            *(f'{TASK}{name}' for name in TASKS),
            *(f'{LRA}{name}' for name in LAYOUTS),
        )
        if self.source not in known and not (self.source.startswith(TFDS) and self.source != TFDS):
            raise ConfigError(unknown('source', self.source, [*known, f'{TFDS}NAME']))
        if self.source == 'text' and not self.files:
            raise ConfigError("files: empty; source 'text' reads the files or globs given here.")
        if self.arena is not None and len(self.files) != 1:
            raise ConfigError(
                f'files: {self.files!r}; source {self.source!r} reads the one directory that is given here.'
            )
        if self.source != 'text' and self.arena is None and self.files:
            raise ConfigError(
                f"files: {self.files!r} would not be read; set source to 'text', not {self.source!r}."
            )
        locate(self.tokenizer)
        if self.packing not in PACKINGS:
            raise ConfigError(unknown('packing', self.packing, PACKINGS))
        if not 1 <= self.validation_percent <= 50:
            raise ConfigError(f'validation_percent: {self.validation_percent} is not between 1 and 50.')
        if self.form not in FORMS:
            raise ConfigError(unknown('form', self.form, FORMS))
        if self.form != 'decoder' and not issubclass(TASKS.get(self.task or '', object), StringTask):
            raise ConfigError(
                f'form: {self.form!r} is for tasks whose answers are strings, not {self.source!r}; '
                "its form is 'decoder'."
            )

    @property
    def task(self) -> str | None:
        """The name of the synthetic task that is the source, if one is."""
        return self.source.removeprefix(TASK) if self.source.startswith(TASK) else None

    @property
    def arena(self) -> str | None:
        """The name of the Long Range Arena's task that is the source, if one is."""
        return self.source.removeprefix(LRA) if self.source.startswith(LRA) else None

    @property
    def draws(self) -> bool:
        """Whether the source draws rows, as a task, and has no documents."""
        return self.task is not None or self.arena is not None

    @property
    def root(self) -> Path:
        """``directory`` as a path, with the home directory spelled out."""
        return Path(self.directory).expanduser()
