"""The workdir of a run: who works in it, with which configuration, and how each attempt was started.

    WORKDIR/lock          host, process and start time of the owner; its time of change is the heartbeat
    WORKDIR/config.json   the resolved configuration
    WORKDIR/run.json      one record for each start: command, versions, devices, seed

Of any number of processes one gets the workdir, and the others fail at once. On one machine the kernel
decides, by an exclusive flock that dies with its process. Between machines, where a file system may not
share flocks, the lock of another machine also counts for as long as its heartbeat is fresh.
"""

from __future__ import annotations

import datetime
import fcntl
import fnmatch
import importlib.metadata
import json
import os
import socket
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from platform import python_version
from typing import Any

from absl import logging

from lcx.errors import ConfigError, LockedError, StorageError
from lcx.train.metrics import write_atomic

HEARTBEAT = 10  # seconds between signs of life
EXPIRY = 120  # seconds without one after which the lock of another machine is stale; above clock differences

# What may differ when a run goes on: it changes nothing that is trained. All else is the run's identity.
RUNTIME = (
    'cache', 'checkpoint', 'data.directory', 'distributed', 'eval', 'generate', 'label', 'log', 'mesh', 'pipeline',
    'model.kinds.*.sequence',
)  # fmt: skip

PACKAGES = ('lcx', 'jax', 'jaxlib', 'flax', 'optax', 'orbax-checkpoint', 'grain', 'numpy')

_ABSENT = object()


class Workdir:
    """A directory that one process at a time works in: entering takes the lock, leaving releases it.

    Raises, when entered:
        LockedError: another process works there; no file was touched.
        ConfigError: the path cannot be a directory.
        StorageError: the file system has no locks.
    """

    def __init__(self, path: str | os.PathLike):
        self.path = Path(path).expanduser().absolute()
        self._lock = self.path / 'lock'
        self._released = threading.Event()

    def __enter__(self) -> Workdir:
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            self._descriptor = _acquire(self._lock)
        except OSError as error:
            raise ConfigError(
                f'workdir: {self.path} cannot be used: {error.strerror}. Choose another.'
            ) from error
        self._released.clear()
        self._heart = threading.Thread(target=self._beat, name='heartbeat', daemon=True)
        self._heart.start()
        return self

    def __exit__(self, *_) -> None:
        self._released.set()
        self._heart.join()  # it uses the descriptor
        if _is_open_as(self._descriptor, self._lock):
            self._lock.unlink()
        os.close(self._descriptor)

    def _beat(self) -> None:
        while not self._released.wait(HEARTBEAT):
            try:
                os.utime(self._descriptor)
            except OSError as error:
                logging.warning('%s: no heartbeat written: %s', self._lock, error.strerror)

    def saved_config(self) -> dict[str, Any] | None:
        """The configuration that the run was started with, None for a new run. Raises StorageError."""
        return _read_json(self.path / 'config.json')

    def write_config(self, config: Mapping[str, Any]) -> None:
        """Writes the resolved configuration. Raises StorageError."""
        write_atomic(self.path / 'config.json', json.dumps(config, indent=2) + '\n')

    def record_attempt(
        self,
        *,
        command: Sequence[str],
        seed: int,
        platform: str,
        devices: Mapping[str, int],
        processes: Sequence[str] = (),
    ) -> None:
        """Adds this start to ``run.json``: what a run's numbers may depend on besides its configuration.

        Environment variables are not written: they may hold secrets.

        Args:
            command: the command line.
            seed: of the run.
            platform: 'cpu', 'gpu' or 'tpu'.
            devices: how many devices there are of each kind.
            processes: the host of each process of the run; of one alone, this machine.

        Raises:
            StorageError: the file cannot be read or written.
        """
        record = _read_json(self.path / 'run.json') or {'attempts': []}
        record['attempts'].append(
            {
                'started': _now(),
                'command': list(command),
                'git': _git_commit(),
                'versions': {'python': python_version(), **_versions()},
                'platform': platform,
                'devices': dict(devices),
                'processes': list(processes) or [socket.gethostname()],
                'seed': seed,
                'host': socket.gethostname(),
                'pid': os.getpid(),
            }
        )
        write_atomic(self.path / 'run.json', json.dumps(record, indent=2) + '\n')


def check_config(saved: Mapping[str, Any], new: Mapping[str, Any]) -> None:
    """Whether a run of the resolved configuration ``saved`` may go on as ``new``.

    Fields of ``RUNTIME`` may change, and stages may be added behind those that were saved: that is how an
    experiment is continued. All other fields must be equal; one that is not there is None.

    Raises:
        ConfigError: names every other field that differs, with its old and its new value.
    """
    changes = _changes('', saved, new, grows='stages')
    if changes:
        raise ConfigError(
            'the workdir holds a run of another configuration, and these fields cannot change on the way: '
            + '; '.join(changes)
            + '. Undo the changes, or give another --workdir.'
        )


def _acquire(path: Path) -> int:
    """Takes the lock at ``path``; returns its open descriptor, which holds it."""
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            free = _flock(descriptor)
            if _is_open_as(descriptor, path):
                _refuse_or_take_over(descriptor, path, free)
                owner = {'host': socket.gethostname(), 'pid': os.getpid(), 'boot': _boot(), 'started': _now()}
                os.ftruncate(descriptor, 0)
                os.pwrite(descriptor, json.dumps(owner).encode(), 0)
                return descriptor
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)  # its owner released it, and so removed it, while it was being opened here


def _flock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        raise StorageError(
            f'workdir: its file system has no locks: {error.strerror}. Use another.'
        ) from error
    return True


def _is_open_as(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), os.stat(path))
    except FileNotFoundError:
        return False


def _refuse_or_take_over(descriptor: int, path: Path, free: bool) -> None:
    """Raises LockedError, naming the owner, if one lives; ``free``: nobody on this machine flocks it."""
    try:
        owner = json.loads(os.pread(descriptor, 4096, 0))
        name = f'process {owner["pid"]} on {owner["host"]}, started {owner["started"]},'
    except (ValueError, TypeError, KeyError):  # empty: not written yet
        owner, name = {}, 'a process that is just starting'
    rest = EXPIRY - (time.time() - os.fstat(descriptor).st_mtime)
    elsewhere = bool(owner) and owner.get('boot') != _boot()
    if not free or (elsewhere and rest > 0):
        hint = f' If it is dead, start again in {rest:.0f} s.' if free else ''
        raise LockedError(f'workdir: {name} works in {path.parent}.{hint} Wait, or give another --workdir.')
    if owner:
        logging.warning('%s: taken over from %s which is dead.', path, name)


def _boot() -> str:
    """Names the running kernel, and with it the processes among which flock decides."""
    try:
        return Path('/proc/sys/kernel/random/boot_id').read_text().strip()
    except OSError:
        return socket.gethostname()  # not Linux


def _changes(path: str, old: Any, new: Any, grows: str) -> list[str]:
    """'path: old -> new' for every leaf that differs; the list at ``grows`` may get more items."""
    if any(fnmatch.fnmatchcase(path, pattern) for pattern in RUNTIME):
        return []
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        keys = {**old, **new}
        pairs = [(f'{path}.{k}' if path else k, old.get(k, _ABSENT), new.get(k, _ABSENT)) for k in keys]
    elif isinstance(old, (list, tuple)) and isinstance(new, (list, tuple)):
        length = len(old) if path == grows and len(new) > len(old) else max(len(old), len(new))
        pairs = [
            (f'{path}[{i}]', *(items[i] if i < len(items) else _ABSENT for items in (old, new)))
            for i in range(length)
        ]
    else:
        nothing = all(value is None or value is _ABSENT for value in (old, new))
        return [] if old == new or nothing else [f'{path}: {_shown(old)} -> {_shown(new)}']
    return [change for pair in pairs for change in _changes(*pair, grows)]


def _shown(value: Any) -> str:
    return 'absent' if value is _ABSENT else json.dumps(value)


def _read_json(path: Path) -> dict[str, Any] | None:
    try:
        return json.loads(path.read_text(encoding='utf-8'))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise StorageError(
            f'{path}: cannot be read: {error}. Repair it, or give another --workdir.'
        ) from error


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec='seconds')


def _versions() -> dict[str, str | None]:
    """The installed versions, found without importing the packages."""
    found = {}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = None
    return found


def _git_commit() -> str | None:
    """The commit of this code, '-dirty' added where it was changed since; None outside a git checkout."""
    here = Path(__file__).parent

    def git(*arguments: str) -> str:
        return subprocess.run(
            ['git', '-C', str(here), *arguments], capture_output=True, text=True, check=True, timeout=10
        ).stdout.strip()

    try:
        git(
            'ls-files', '--error-unmatch', Path(__file__).name
        )  # not the repository around a virtual environment
        return git('describe', '--always', '--dirty', '--abbrev=40', '--exclude=*')
    except (OSError, subprocess.SubprocessError):
        return None
