"""Workdir: one owner whatever happens, and a run that only goes on as what it was."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest

from lcx.errors import ConfigError, LockedError, StorageError
from lcx.launch.workdir import EXPIRY, Workdir, check_config

# Enters the workdir, says so, and stays until its input ends. Exits 4 where the workdir is locked.
OWNER = """
import sys
from lcx.errors import LcxError
from lcx.launch.workdir import Workdir
try:
    with Workdir(sys.argv[1]):
        print('owner', flush=True)
        sys.stdin.read()
except LcxError as error:
    print(error, flush=True)
    sys.exit(error.exit_code)
"""

# Fifty forks that enter at the same moment; the owner stays until all have tried. Prints their fates.
RACE = """
import os, sys
from lcx.errors import LockedError
from lcx.launch.workdir import Workdir
(ready, go), (held, release), (fates, fate) = os.pipe(), os.pipe(), os.pipe()
for _ in range(50):
    if os.fork() == 0:
        os.close(go)
        os.close(release)
        os.read(ready, 1)
        try:
            with Workdir(sys.argv[1]):
                os.write(fate, b'o')
                os.read(held, 1)
        except LockedError:
            os.write(fate, b'l')
        os._exit(0)
os.close(go)
seen = b''
while len(seen) < 50:
    seen += os.read(fates, 50)
os.close(release)
print(''.join(sorted(seen.decode())), end='')
"""

# Four forks that enter and leave as often as they can; inside, each makes a file that must not be there yet.
CROWD = """
import os, sys
from lcx.errors import LockedError
from lcx.launch.workdir import Workdir
inside = os.path.join(sys.argv[1], 'inside')
def crowd():
    entered = 0
    while entered < 100:
        try:
            with Workdir(sys.argv[1]):
                os.close(os.open(inside, os.O_CREAT | os.O_EXCL))
                os.unlink(inside)
                entered += 1
        except LockedError:
            pass
for _ in range(4):
    if os.fork() == 0:
        try:
            crowd()
        except BaseException:
            os._exit(1)
        os._exit(0)
print([os.waitstatus_to_exitcode(os.wait()[1]) for _ in range(4)], end='')
"""


def start(path):
    command = [sys.executable, '-c', OWNER, str(path)]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


@pytest.fixture
def owner(tmp_path):
    """A process that owns tmp_path / 'run'."""
    process = start(tmp_path / 'run')
    assert process.stdout.readline() == 'owner\n'
    yield process
    process.kill()
    process.communicate()


def contents(path):
    return {p.name: (p.read_bytes(), p.stat().st_mtime_ns) for p in path.iterdir()}


def test_a_second_start_fails_at_once_and_touches_nothing(tmp_path, owner):
    (tmp_path / 'run' / 'config.json').write_text('{}')
    before = contents(tmp_path / 'run')
    began = time.monotonic()
    with pytest.raises(LockedError, match=f'process {owner.pid} on {os.uname().nodename}'):
        Workdir(tmp_path / 'run').__enter__()
    assert time.monotonic() - began < 1
    assert contents(tmp_path / 'run') == before


def test_leaving_releases(tmp_path, owner):
    owner.communicate()
    assert owner.returncode == 0
    assert not list((tmp_path / 'run').iterdir())
    for _ in range(2):
        with Workdir(tmp_path / 'run'):
            assert (tmp_path / 'run' / 'lock').exists()


def test_the_lock_of_a_killed_process_is_taken_over(tmp_path, owner, caplog):
    owner.send_signal(signal.SIGKILL)
    owner.wait()
    assert json.loads((tmp_path / 'run' / 'lock').read_text())['pid'] == owner.pid
    with Workdir(tmp_path / 'run'):
        assert json.loads((tmp_path / 'run' / 'lock').read_text())['pid'] == os.getpid()
    assert f'taken over from process {owner.pid}' in caplog.text


@pytest.mark.parametrize(('silent', 'locked'), [(EXPIRY - 60, True), (EXPIRY + 1, False)])
def test_the_lock_of_another_machine_counts_while_its_heart_beats(tmp_path, silent, locked):
    lock = tmp_path / 'lock'
    lock.write_text(json.dumps({'host': 'elsewhere', 'pid': 1, 'boot': 'b', 'started': 'yesterday'}))
    os.utime(lock, (time.time() - silent,) * 2)
    if locked:
        with pytest.raises(LockedError, match=r'process 1 on elsewhere.* start again in (60|59) s'):
            Workdir(tmp_path).__enter__()
        assert json.loads(lock.read_text())['pid'] == 1
    else:
        with Workdir(tmp_path):
            assert json.loads(lock.read_text())['pid'] == os.getpid()


def test_the_heart_beats(tmp_path, monkeypatch):
    monkeypatch.setattr('lcx.launch.workdir.HEARTBEAT', 0.02)
    with Workdir(tmp_path):
        lock = tmp_path / 'lock'
        os.utime(lock, (0, 0))
        deadline = time.monotonic() + 10
        while lock.stat().st_mtime < time.time() - 5:
            assert time.monotonic() < deadline
            time.sleep(0.01)


def test_a_lock_cut_off_while_written_is_no_obstacle(tmp_path):
    (tmp_path / 'lock').write_text('{"host": "x", "pi')
    with Workdir(tmp_path):
        pass


@pytest.mark.parametrize('stale', [False, True])
def test_of_fifty_concurrent_starts_exactly_one_owns(tmp_path, stale):
    if stale:
        (tmp_path / 'lock').write_text('{"host": "x", "pid": 1, "boot": "b", "started": "long ago"}')
        os.utime(tmp_path / 'lock', (0, 0))
    done = subprocess.run(
        [sys.executable, '-c', RACE, str(tmp_path)], capture_output=True, text=True, timeout=60
    )
    assert done.stdout == 'l' * 49 + 'o', done.stderr


def test_owners_that_come_and_go_never_overlap(tmp_path):
    done = subprocess.run(
        [sys.executable, '-c', CROWD, str(tmp_path)], capture_output=True, text=True, timeout=60
    )
    assert done.stdout == '[0, 0, 0, 0]', done.stderr


def test_a_file_in_the_way_is_a_config_error(tmp_path):
    (tmp_path / 'file').write_text('')
    with pytest.raises(ConfigError, match='file cannot be used'):
        Workdir(tmp_path / 'file').__enter__()


def test_attempts_are_recorded_without_the_environment(tmp_path, monkeypatch):
    monkeypatch.setenv('SOME_TOKEN', 'a-secret-value')
    with Workdir(tmp_path) as workdir:
        for devices in ({'cpu': 1}, {'cpu': 8}):
            workdir.record_attempt(command=['lcx', 'train'], seed=3, platform='cpu', devices=devices)
    text = (tmp_path / 'run.json').read_text()
    first, second = json.loads(text)['attempts']
    assert (first['command'], first['seed'], first['platform']) == (['lcx', 'train'], 3, 'cpu')
    assert (first['devices'], second['devices']) == ({'cpu': 1}, {'cpu': 8})
    assert first['versions']['python'] == '.'.join(map(str, sys.version_info[:3]))
    assert first['versions']['jax'].count('.') >= 2
    assert 'a-secret-value' not in text


def test_the_configuration_is_read_back(tmp_path):
    workdir = Workdir(tmp_path)
    assert workdir.saved_config() is None
    workdir.write_config({'seed': 1, 'stages': [{'steps': 2}]})
    assert workdir.saved_config() == {'seed': 1, 'stages': [{'steps': 2}]}
    (tmp_path / 'config.json').write_text('{"seed": ')
    with pytest.raises(StorageError, match=r'config\.json: cannot be read'):
        workdir.saved_config()


SAVED = {
    'seed': 0,
    'init_from': None,
    'model': {'width': 32, 'pattern': ['full'], 'dtype': 'float32'},
    'optimizer': {'name': 'adamw', 'learning_rate': 1e-3},
    'stages': [{'steps': 10, 'length': 128}, {'steps': 5, 'length': 256}],
    'checkpoint': {'every': 5, 'keep': 2},
    'eval': {'lengths': [128]},
    'log': {'every': 1},
    'label': '',
}


def changed(**fields):
    return {**SAVED, **fields}


@pytest.mark.parametrize(
    'new',
    [
        SAVED,
        changed(stages=tuple(SAVED['stages'])),
        changed(checkpoint={'every': 1, 'keep': 9}, eval={}, log={'every': 7}, label='x'),
        changed(stages=[*SAVED['stages'], {'steps': 7, 'length': 512}]),
        changed(mesh={'data': 1}),  # a run from before there were meshes
        changed(model={**SAVED['model'], 'softcap': None}),  # or softcaps
    ],
)
def test_what_may_change(new):
    check_config(SAVED, new)


@pytest.mark.parametrize(
    ('new', 'message'),
    [
        (changed(seed=1), 'seed: 0 -> 1'),
        (changed(init_from='runs/base'), 'init_from: null -> "runs/base"'),
        (changed(model={**SAVED['model'], 'width': 64}), 'model.width: 32 -> 64'),
        (changed(model={**SAVED['model'], 'dtype': 'bfloat16'}), 'model.dtype: "float32" -> "bfloat16"'),
        (changed(model={**SAVED['model'], 'pattern': ['full', 'b']}), 'model.pattern[1]: absent -> "b"'),
        (changed(model={'width': 32, 'pattern': ['full']}), 'model.dtype: "float32" -> absent'),
        (
            changed(optimizer={**SAVED['optimizer'], 'learning_rate': 0.1}),
            'optimizer.learning_rate: 0.001 -> 0.1',
        ),
        (changed(stages=SAVED['stages'][:1]), 'stages[1]: {"steps": 5, "length": 256} -> absent'),
        (changed(stages=[SAVED['stages'][0], {'steps': 5, 'length': 512}]), 'stages[1].length: 256 -> 512'),
        (
            changed(stages=[{'steps': 11, 'length': 128}, *SAVED['stages'][1:], {}]),
            'stages[0].steps: 10 -> 11',
        ),
        (changed(data={'source': 'x'}), 'data: absent -> {"source": "x"}'),
    ],
)
def test_what_may_not_change_is_named(new, message):
    with pytest.raises(ConfigError) as error:
        check_config(SAVED, new)
    assert f': {message}. Undo' in str(error.value)
    assert '--workdir' in str(error.value)


def test_every_change_is_listed():
    with pytest.raises(ConfigError, match=r'seed: 0 -> 1; init_from: null -> "a"\.'):
        check_config(SAVED, changed(seed=1, init_from='a', label='y'))
