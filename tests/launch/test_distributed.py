"""How the processes of a run find each other, and how they end together."""

import re
import signal
import socket
import time

import pytest

from lcx.config import build
from lcx.errors import ConfigError
from lcx.launch.distributed import DistributedConfig, Found, check_free, find
from tests.together import JOIN, ended, free_address, start

SLURM = {
    'SLURM_JOB_ID': '7', 'SLURM_STEP_NODELIST': 'node[03-04],other', 'SLURM_NTASKS': '2', 'SLURM_PROCID': '1',
    'SLURM_LOCALID': '0',
}  # fmt: skip


@pytest.fixture(autouse=True)
def no_cluster(monkeypatch):
    for name in (*SLURM, 'JAX_COORDINATOR_ADDRESS', 'JAX_COORDINATOR_PORT', 'KUBERNETES_SERVICE_HOST'):
        monkeypatch.delenv(name, raising=False)


def test_nothing_given_and_nothing_detected_is_one_process():
    assert find(DistributedConfig()) is None
    assert find(DistributedConfig(processes=1)) is None


def test_slurm_is_detected_and_what_is_given_comes_first(monkeypatch):
    for name, value in SLURM.items():
        monkeypatch.setenv(name, value)
    port = 7 % 2**12 + (65535 - 2**12 + 1)  # that jax derives from the number of the job
    assert find(DistributedConfig()) == Found(f'node03:{port}', 2, 1)
    assert find(DistributedConfig(coordinator='here:99')) == Found('here:99', 2, 1)
    assert find(DistributedConfig(coordinator='here:99', processes=5, process=4)) == Found('here:99', 5, 4)
    assert find(DistributedConfig(processes=1)) is None
    monkeypatch.setenv('JAX_COORDINATOR_ADDRESS', 'there:98')
    assert find(DistributedConfig()) == Found('there:98', 2, 1)
    monkeypatch.setenv('SLURM_NTASKS', '1')
    monkeypatch.setenv('SLURM_PROCID', '0')
    assert find(DistributedConfig()) is None


@pytest.mark.parametrize(
    ('values', 'message'),
    [
        ({'coordinator': 'here'}, r"distributed.coordinator: 'here' is not HOST:PORT. Nearest: here:8476."),
        ({'coordinator': 'here:'}, r"distributed.coordinator: 'here:' is not HOST:PORT. Nearest: here:8476."),
        ({'coordinator': 'here:99999'}, r"'here:99999' is not HOST:PORT. Nearest: here:8476."),
        ({'bind': '8476'}, r"distributed.bind: '8476' is not HOST:PORT"),
        ({'processes': 0}, r'distributed.processes: 0 must be greater than 0'),
        ({'process': -1}, r'distributed.process: -1 must lie between 0 and processes - 1. Nearest: 0.'),
        ({'processes': 2, 'process': 2}, r'distributed.process: 2 must lie between 0 and 1. Nearest: 1.'),
        ({'heartbeat': 0}, r'distributed.heartbeat: 0 must be greater than 0'),
        ({'timeout': -5}, r'distributed.timeout: -5 must be greater than 0'),
        ({'adress': 'here:1'}, r'distributed.adress: unknown'),
    ],
)
def test_what_cannot_be_is_named(values, message):
    with pytest.raises(ConfigError, match=message):
        build(DistributedConfig, values, 'distributed')


def test_half_an_answer_is_an_error(monkeypatch):
    with pytest.raises(
        ConfigError, match=r"distributed.process: missing beside coordinator='a:1', processes=2"
    ):
        find(DistributedConfig(coordinator='a:1', processes=2))
    for name, value in {**SLURM, 'SLURM_PROCID': '3'}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ConfigError, match=r'distributed.process: 3 must lie between 0 and 1. Nearest: 1.'):
        find(DistributedConfig())


def test_a_port_that_is_taken_is_told_before_jax_starts():
    with socket.socket() as listener:
        listener.bind(('127.0.0.1', 0))
        listener.listen()
        port = listener.getsockname()[1]
        with pytest.raises(
            ConfigError, match=rf'process 0 cannot listen at 127.0.0.1:{port}: Address already'
        ):
            check_free(f'127.0.0.1:{port}')
    check_free(free_address())


ALONE = """
import sys
from lcx.errors import LcxError
from lcx.launch.distributed import DistributedConfig, initialize
try:
    initialize(DistributedConfig(coordinator=sys.argv[1], processes=2, process=int(sys.argv[2]), timeout=3))
except LcxError as error:
    print('lcx:', error, file=sys.stderr)
    sys.exit(error.exit_code)
"""


@pytest.mark.processes
def test_a_process_whose_others_do_not_come_ends_in_time_and_says_so():
    address, before = free_address(), time.monotonic()
    (zero,) = ended([start(['-c', ALONE, address, '0'])])
    (one,) = ended([start(['-c', ALONE, address, '1'])])
    assert time.monotonic() - before < 30
    assert zero.code == one.code == 8
    assert f'not all of 2 processes came to {address} in 3 s (distributed.timeout)' in zero.err
    assert f'the coordinator, process 0, cannot be reached at {address} in 3 s: Connection refused' in one.err


SIGNALS = (
    JOIN
    + """
import signal
import numpy as np
from lcx.launch import cli, distributed
from lcx.parallel.processes import Vote
signal.signal(signal.SIGTERM, lambda *_: print('python has the signal', flush=True))
if jax.process_index() == 1:
    signal.raise_signal(signal.SIGTERM)
mesh = jax.make_mesh((8,), ('data',), axis_types=(jax.sharding.AxisType.Auto,))
vote = Vote(mesh)
print([vote.lagged(jax.process_index() == 1 and step == 3) for step in range(6)], flush=True)
print(vote.now(jax.process_index() == 0), vote.now(False), flush=True)
def listening(port):
    lines = open('/proc/net/tcp').read().split('\\n')[1:] + open('/proc/net/tcp6').read().split('\\n')[1:]
    return {x.split()[1].split(':')[0] for x in lines if x and x.split()[3] == '0A'
            and int(x.split()[1].split(':')[1], 16) == port}
if jax.process_index() == 0:
    print('listens at', listening(int(address.split(':')[1])), flush=True)
"""
)


@pytest.mark.processes
def test_processes_vote_and_the_coordinator_listens_at_its_own_address_alone():
    address = free_address()
    found = ended([start(['-c', SIGNALS, address, '2', str(i)]) for i in range(2)])
    assert [x.code for x in found] == [0, 0], found
    for index, one in enumerate(found):
        assert '[False, False, False, False, True, False]\nTrue False' in one.out
        assert ('python has the signal' in one.out) == (index == 1)
    assert re.search(r"listens at \{'[0F]*0100007F'\}", found[0].out)  # 127.0.0.1, or that as IPv6


FAILING = (
    JOIN
    + """
import time
from lcx.errors import DataError
from lcx.launch import cli, distributed
def verb(argv):
    if jax.process_index() == FAILS:
        raise DataError('the text is gone')
    jax.block_until_ready(jax.device_get(0))
    time.sleep(100)
cli.dispatch = verb
cli.main(['lcx'])
"""
)


@pytest.mark.processes
@pytest.mark.parametrize('fails', [0, 1])
def test_where_one_process_fails_all_end_with_its_exit_code(fails):
    address, before = free_address(), time.monotonic()
    code = FAILING.replace('FAILS', str(fails))
    found = ended([start(['-c', code, address, '2', str(i)]) for i in range(2)])
    assert time.monotonic() - before < 40
    assert [x.code for x in found] == [7, 7], found
    assert 'lcx: the text is gone' in found[fails].err
    assert f'process {fails} ended with exit code 7: lcx: the text is gone' in found[1 - fails].err


@pytest.mark.processes
@pytest.mark.parametrize('victim', [0, 1])
def test_a_process_that_is_killed_ends_the_other_one_within_a_heartbeat(victim):
    code = JOIN + "print('joined', flush=True)\nimport time\ntime.sleep(100)"
    address = free_address()
    children = [start(['-c', code, address, '2', str(i)]) for i in range(2)]
    for child in children:
        assert child.stdout.readline() == 'joined\n'
    children[victim].send_signal(signal.SIGKILL)
    before = time.monotonic()
    other = ended(children)[1 - victim]
    assert other.code != 0 and time.monotonic() - before < 10 + 5 + 5  # and the machine is busy
