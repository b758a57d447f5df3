"""Errors that end a run, each with the exit code that schedulers and scripts can rely on.

0 done    1 unexpected    2 config    3 memory    4 workdir locked    5 storage
6 non-finite    7 data    8 another process of the run cannot be reached
42 preempted: start the same command again    130 interrupted
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class LcxError(Exception):
    """Base of the errors that are a message to the user, shown without a traceback."""

    exit_code = 1


class ConfigError(LcxError, ValueError):
    """A field of the configuration, or an argument of the command line, cannot be used."""

    exit_code = 2


class UnsupportedError(ConfigError, NotImplementedError):
    """The method that was chosen cannot do what is asked of it; the message says which can."""


class MemoryBudgetError(LcxError):
    """The experiment does not fit the device's memory."""

    exit_code = 3


class LockedError(LcxError):
    """Another process works in this workdir."""

    exit_code = 4


class StorageError(LcxError):
    """A checkpoint or log cannot be written or read back."""

    exit_code = 5


class NonFiniteError(LcxError):
    """Loss or gradient became NaN or infinite; parameters are those before the step."""

    exit_code = 6


class DataError(LcxError):
    """A data source is missing, empty or malformed."""

    exit_code = 7


class PeerError(LcxError):
    """Another process of the same run cannot be reached."""

    exit_code = 8


class Preempted(LcxError):
    """The run was asked to stop; its state is saved and the same command continues it."""

    exit_code = 42


class Interrupted(LcxError):
    """Ctrl-C where there is nothing to continue: what was done is told."""

    exit_code = 130


def unknown(what: str, value: object, choices: Iterable[str]) -> str:
    """One sentence for an unknown name: the field, the value, the nearest choice and all choices."""
    choices = sorted(choices)
    near = difflib.get_close_matches(str(value), choices, n=1)
    hint = f' Did you mean {near[0]!r}?' if near else ''
    return f'{what}: unknown {value!r}.{hint} Choices: {", ".join(choices)}.'
