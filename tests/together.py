"""Several real processes on this machine, each with devices that its CPU plays."""

import os
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[1]
LIMIT = 150  # seconds, of any child


class Ended(NamedTuple):
    code: int
    out: str
    err: str


def free_address() -> str:
    """A port of this machine that nothing uses."""
    with socket.socket() as listener:
        listener.bind(('127.0.0.1', 0))
        return f'127.0.0.1:{listener.getsockname()[1]}'


def environment(devices: int, **more: str) -> dict[str, str]:
    """Of a child: no cluster but the one that ``more`` says, and no kept programs (see tests/parallel)."""
    own = {k: v for k, v in os.environ.items() if not k.startswith(('SLURM_', 'JAX_COORDINATOR', 'OMPI_'))}
    flags = f'--xla_backend_optimization_level=0 --xla_force_host_platform_device_count={devices}'
    given = {'JAX_PLATFORMS': 'cpu', 'XLA_FLAGS': flags, 'JAX_ENABLE_COMPILATION_CACHE': 'false'}
    return {**own, **given, 'PYTHONPATH': str(ROOT), **more}


def start(words: list[str], devices: int = 4, **more: str) -> subprocess.Popen:
    """``python WORDS`` as a child; its output is read by :func:`ended`."""
    return subprocess.Popen(
        [sys.executable, *words], cwd=ROOT, env=environment(devices, **more), text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip


def ended(children: list[subprocess.Popen], limit: float = LIMIT) -> list[Ended]:
    """How the children ended; all of them are gone when this returns, whatever they did."""
    end, found = time.monotonic() + limit, []
    try:
        for child in children:
            out, err = child.communicate(timeout=max(end - time.monotonic(), 0.1))
            found.append(Ended(child.returncode, out, err))
    finally:
        for child in children:
            if child.poll() is None:
                child.kill()
                child.communicate()
    return found


JOIN = """
import sys
from lcx.launch.distributed import DistributedConfig, initialize
address, count, index = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
if count > 1:
    initialize(DistributedConfig(coordinator=address, processes=count, process=index, heartbeat=10, timeout=60))
import jax
"""


def run(code: str, processes: int = 2, devices: int = 4) -> list[str]:
    """Runs ``code`` in several processes that are joined, and returns what each wrote; all must end well."""
    address = free_address()
    children = [
        start(['-c', JOIN + code, address, str(processes), str(i)], devices) for i in range(processes)
    ]
    found = ended(children)
    for index, one in enumerate(found):
        assert one.code == 0, f'process {index}: {one.code}\n{one.out[-2000:]}\n{one.err[-6000:]}'
    return [one.out for one in found]
