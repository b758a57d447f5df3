"""Several processes as one run: how they find each other, and how they end together.

What is given comes first (``config.distributed``), then what Slurm, Kubernetes, Cloud TPU or Open MPI say of the
process, as jax finds it, and then it is one process, which listens nowhere. jax's service could be started for one
process too (7 ms); it would open a port without authentication, and do nothing, since the training loop has a handler
of SIGTERM of its own.

The service's handler of SIGTERM is turned off: it takes the signal away from Python, and with it the second SIGTERM
and the end of an evaluation. The loop agrees on the step to stop at by a vote instead (:mod:`lcx.parallel.processes`).

A process that fails tells the others, and all end with its exit code; one that is gone without a word, killed or off
the network, ends the others when its heartbeat is missed.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import socket
import sys
import threading
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

from lcx import config as configuration
from lcx.errors import ConfigError, PeerError

if TYPE_CHECKING:
    from lcx.parallel.processes import Processes

GRACE = 5.0  # seconds in which a process that was told of another's failure may still end by itself
FIELDS = (
    'coordinator',
    'processes',
    'process',
)  # given all, or found all, or any of them instead of what is found
FAILED, ENDED = 'failed', 'ended'


@dataclasses.dataclass(frozen=True)
class DistributedConfig:
    """The processes of a run. What is None is detected."""

    coordinator: str | None = None  # HOST:PORT on which process 0 listens
    processes: int | None = None
    process: int | None = None  # this one, from 0
    bind: str | None = (
        None  # ADDRESS:PORT, if another than the coordinator's; [::]:PORT is all of the machine's
    )
    heartbeat: int = 30  # seconds without a sign of life after which a process counts as dead
    timeout: int = 300  # seconds in which all must have come

    def __post_init__(self) -> None:
        configuration.positive(self, 'processes', 'heartbeat', 'timeout')
        for name in ('coordinator', 'bind'):
            if getattr(self, name) is not None:
                _address(name, getattr(self, name))
        if self.process is not None:
            _check_process(self.process, self.processes)


@dataclasses.dataclass(frozen=True)
class Found:
    """Where the processes meet and which this one is."""

    coordinator: str
    processes: int
    process: int


def find(config: DistributedConfig) -> Found | None:
    """What is given or detected; None for one process.

    Raises:
      ConfigError: a part is neither given nor detected, or cannot be.
    """
    if config.processes == 1:
        return None
    given = {name: getattr(config, name) for name in FIELDS}
    given['coordinator'] = given['coordinator'] or os.environ.get('JAX_COORDINATOR_ADDRESS')
    found = given if None not in given.values() else _detected(given, config.timeout)
    missing = [name for name in FIELDS if found[name] is None]
    if missing:
        if all(getattr(config, name) is None for name in FIELDS):
            return None
        there = ', '.join(f'{name}={found[name]!r}' for name in FIELDS if found[name] is not None)
        raise ConfigError(
            f'distributed.{missing[0]}: missing beside {there}, and no cluster is detected that knows it. '
            'Give coordinator, processes and process, or none of them.'
        )
    try:
        _check_process(found['process'], found['processes'])
        _address('coordinator', found['coordinator'])
    except ConfigError as error:
        raise ConfigError(f'distributed.{error}') from None
    return None if found['processes'] == 1 else Found(**found)


def initialize(config: DistributedConfig) -> None:
    """Joins the other processes, if there are any; before any device is touched.

    Raises:
      ConfigError: see :func:`find`; or process 0 cannot listen at the address.
      PeerError: the coordinator cannot be reached in ``config.timeout`` seconds. Where others do not come in that
        time, the process ends with the same message and exit code: jax would abort.
    """
    found = find(config)
    if found is None:
        return
    import jax

    from lcx.parallel import processes

    end = time.monotonic() + config.timeout
    bind = config.bind or os.environ.get('JAX_COORDINATOR_BIND_ADDRESS') or found.coordinator
    if found.process == 0:
        check_free(bind)
    else:
        reach(found.coordinator, end, config.timeout)
    jax.config.update('jax_enable_preemption_service', False)
    with _ending_at(
        end, f'not all of {found.processes} processes came to {found.coordinator}', config.timeout
    ):
        jax.distributed.initialize(
            found.coordinator,
            found.processes,
            found.process,
            coordinator_bind_address=bind,
            initialization_timeout=config.timeout + 60,
            heartbeat_timeout_seconds=config.heartbeat,
            shutdown_timeout_seconds=config.heartbeat,
        )
    threading.Thread(target=_watch, args=(processes.current(),), name='watch', daemon=True).start()


def cause(code: int, message: str) -> tuple[int, str]:
    """Exit code and message of a failure: those of the process that failed first, if this one did for want of it."""
    here = _joined()
    if here is None or code != 1:
        return code, message
    told = here.announced(FAILED)
    return (code, message) if told is None else _words(json.loads(told))


def leave(code: int, message: str) -> None:
    """Ends this process, if it is one of several, after a failure that the others are told of."""
    here = _joined()
    if here is not None:
        here.announce(FAILED, json.dumps({'process': here.index, 'code': code, 'message': message[:2000]}))
        _end(here, code)


def _joined() -> Processes | None:
    """The processes of the run; None where this is the only one."""
    jax = sys.modules.get('jax')  # what was not imported has joined nothing
    if jax is None or not jax.distributed.is_initialized():
        return None
    from lcx.parallel import processes

    return processes.current()


def _words(failed: dict) -> tuple[int, str]:
    code = failed['code']
    return code, f'lcx: process {failed["process"]} ended with exit code {code}: {failed["message"]}'


def check_free(address: str) -> None:
    """Raises ConfigError unless process 0 can listen at ``address``."""
    host, port = _address('bind', address)
    try:
        family, kind, protocol, _, where = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind, protocol) as listener:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(where)
    except OSError as error:
        raise ConfigError(
            f'distributed.coordinator: process 0 cannot listen at {address}: {error.strerror}. It must be an address '
            'of its machine and a free port; distributed.bind may name another than the one that the others connect to.'
        ) from None


def reach(address: str, end: float, timeout: int) -> None:
    """Returns when something listens at ``address``; raises PeerError if not by ``end`` (:func:`time.monotonic`)."""
    where, why = _address('coordinator', address), ''
    while (left := end - time.monotonic()) > 0:
        try:
            socket.create_connection(where, timeout=min(left, 5)).close()
            return
        except OSError as error:
            why = error.strerror or str(error)
        time.sleep(min(0.2, max(end - time.monotonic(), 0)))
    raise PeerError(
        f'the coordinator, process 0, cannot be reached at {address} in {timeout} s: {why}. Is it running, and does '
        'its name mean an address that this machine can reach (distributed.coordinator, distributed.bind)?'
    )


@contextlib.contextmanager
def _ending_at(end: float, what: str, timeout: int) -> Iterator[None]:
    """Ends the process with a message if the block takes longer: what waits in C++ cannot be interrupted."""

    def late() -> None:
        print(f'lcx: {what} in {timeout} s (distributed.timeout).', file=sys.stderr, flush=True)
        os._exit(PeerError.exit_code)

    timer = threading.Timer(max(end - time.monotonic(), 0), late)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def _watch(here: Processes) -> None:
    """Ends this process when another has failed: the main thread may wait for it, inside a program, for ever."""
    while True:
        time.sleep(1)
        try:
            told = here.announced(FAILED)
        except Exception:  # the service is closed: this process is at its end
            return
        if told is None:
            continue
        failed = json.loads(told)
        if failed['process'] == here.index:
            return
        time.sleep(GRACE)
        code, words = _words(failed)
        print(words, file=sys.stderr, flush=True)
        _end(here, code)


def _end(here: Processes, code: int) -> None:
    """Ends the process without a word to jax, which would wait for the others; the first one, their host, goes last."""
    sys.stdout.flush()
    sys.stderr.flush()
    with contextlib.suppress(Exception):
        here.post(ENDED, '')
        if here.first:
            end = time.monotonic() + 2 * GRACE
            for of in range(1, here.count):
                here.read(ENDED, of, timeout=max(end - time.monotonic(), 0.1))
            time.sleep(1)  # they are gone by then: jax would abort one that sees its host go
    os._exit(code)


def _detected(given: dict, timeout: int) -> dict:
    """``given``, and what is None of it from the cluster that jax detects."""
    from jax._src.clusters import ClusterEnv  # public only as a part of jax.distributed.initialize

    devices = [0]  # not None: jax looks for them by itself
    try:
        found = ClusterEnv.auto_detect_unset_distributed_params(*given.values(), devices, None, timeout)
    except Exception as error:  # a cluster's own environment, or a service that it asks
        raise ConfigError(
            f'distributed.coordinator: the cluster that is detected cannot be asked: {type(error).__name__}: {error}. '
            'Give coordinator, processes and process; processes=1 for one alone.'
        ) from error
    return dict(zip(FIELDS, found))


def _address(name: str, value: str) -> tuple[str, int]:
    """'HOST:PORT' as a pair; raises ConfigError."""
    host, colon, port = value.rpartition(':')
    if not colon or not host or not port.isdecimal() or not 0 < int(port) < 65536:
        near = host if colon and host else value.strip(':') or '127.0.0.1'
        raise ConfigError(f'{name}: {value!r} is not HOST:PORT. Nearest: {near}:8476.')
    return host.strip('[]'), int(port)


def _check_process(process: int, processes: int | None) -> None:
    if process < 0 or (processes is not None and process >= processes):
        last = 'processes - 1' if processes is None else processes - 1
        near = 0 if process < 0 else last
        raise ConfigError(f'process: {process} must lie between 0 and {last}. Nearest: {near}.')
