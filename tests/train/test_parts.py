"""Checkpoints of several processes: the same bits on any number of processes and any mesh, or an error."""

import json
import shutil
import time

import jax
import numpy as np
import pytest

from lcx.errors import StorageError
from lcx.train import archive, parts
from lcx.train.checkpoint import Checkpoints
from tests.together import JOIN, free_address, run, start

pytestmark = pytest.mark.processes

# A state that every kind of array is in, on a mesh of all devices; 'bits' is what it is.
STATE = """
import hashlib, json
import jax.numpy as jnp, numpy as np
from lcx.errors import StorageError
from lcx.parallel.processes import current, put, whole
from lcx.train.checkpoint import Checkpoints
from typing import NamedTuple
class State(NamedTuple):
    params: dict
    step: jax.Array
    key: jax.Array
    keys: jax.Array
n = jax.device_count()
rows = 2 if n > 1 else 1
mesh = jax.make_mesh((rows, n // rows), ('data', 'fsdp'), axis_types=(jax.sharding.AxisType.Auto,) * 2)
def at(*spec): return jax.NamedSharding(mesh, jax.P(*spec))
def normal(seed, *shape): return np.random.default_rng(seed).normal(size=shape).astype(np.float32)
def new(seed):
    impl = lambda k: jax.jit(lambda: jax.random.split(jax.random.key(seed), 8), out_shardings=at('data'))()
    params = {
        'both': put(normal(seed, 16, 12), at('data', 'fsdp')),
        'fsdp': put(normal(seed + 1, 3, 8).astype(jnp.bfloat16), at(None, 'fsdp')),
        'everywhere': put(normal(seed + 2, 5), at()),
        'empty': put(np.zeros((0, 3), np.float32), at()),
    }
    key = jax.jit(lambda: jax.random.key(seed), out_shardings=at())()
    return State(params, put(np.int32(seed), at()), key, impl(0))
def bits(state):
    def one(x):
        x = jax.random.key_data(x) if jnp.issubdtype(x.dtype, jax.dtypes.prng_key) else x
        return hashlib.sha256(np.asarray(whole(x), order='C').tobytes()).hexdigest()
    return json.dumps(jax.tree.leaves(jax.tree.map(one, state)))
def abstract(state):
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), state)
"""

SAVE = """
with Checkpoints({directory!r}, keep=2) as c:
    for seed in (1, 2, 3):
        c.save(seed, new(seed), {{'seed': seed}})
    c.wait()
    assert c.steps() == [2, 3], c.steps()
    restored, extra, step = c.restore(abstract(new(0)))
    assert (extra, step, bits(restored)) == ({{'seed': 3}}, 3, bits(new(3)))
"""

RESTORE = """
c = Checkpoints({directory!r}, keep=None)
like = new(0)
restored, extra, step = c.restore(abstract(like))
assert (extra, step) == ({{'seed': 3}}, 3)
assert [x.sharding for x in jax.tree.leaves(restored)] == [x.sharding for x in jax.tree.leaves(like)]
assert bits(restored) == bits(new(3))
params, *_ = c.restore(abstract(like.params), part='params')
assert bits(params) == bits(new(3).params)
print('same', jax.process_count(), jax.device_count())
"""


@pytest.fixture(scope='module')
def saved(tmp_path_factory):
    """Steps 2 and 3, by two processes of four devices."""
    directory = tmp_path_factory.mktemp('two')
    run(STATE + SAVE.format(directory=str(directory)))
    return directory


@pytest.mark.parametrize(
    ('processes', 'devices'), [(1, 8), (1, 4), (1, 1), pytest.param(4, 1, marks=pytest.mark.slow)]
)
def test_two_processes_to_another_number(saved, processes, devices):
    for out in run(STATE + RESTORE.format(directory=str(saved)), processes, devices):
        assert f'same {processes} {processes * devices}' in out


def test_one_process_to_two(tmp_path):
    run(STATE + SAVE.format(directory=str(tmp_path)), processes=1, devices=8)
    assert not list(tmp_path.glob('*/part-*'))
    for out in run(STATE + RESTORE.format(directory=str(tmp_path))):
        assert 'same 2 8' in out


def test_each_process_writes_what_lies_on_its_devices(saved):
    assert sorted(path.name for path in saved.iterdir()) == ['2', '3']
    names = {'manifest.json', 'commit_success.txt', 'part-0.safetensors', 'part-1.safetensors'}
    assert {path.name for path in (saved / '3').iterdir()} == names
    _, text, _ = (saved / '3' / 'manifest.json').read_text().split('\n')
    leaves = json.loads(text)['leaves']
    assert {p['part'] for p in leaves['params/both']['pieces']} == {0, 1}
    assert [p['part'] for p in leaves['params/everywhere']['pieces']] == [0]
    assert sum(np.prod(p['shape']) for p in leaves['params/both']['pieces']) == 16 * 12
    assert leaves['key'].items() >= {'dtype': 'key<fry>', 'shape': []}.items()


def abstract():
    """The parameters, for one device."""
    shapes = {'both': (16, 12), 'everywhere': (5,), 'empty': (0, 3)}
    params = {name: jax.ShapeDtypeStruct(shape, np.float32) for name, shape in shapes.items()}
    return params | {'fsdp': jax.ShapeDtypeStruct((3, 8), jax.numpy.bfloat16)}


def test_a_flipped_byte_anywhere_is_found_or_changes_nothing(saved, tmp_path):
    """Three bytes of each file of the newest step: one process notices, and the step before is used."""
    directory = shutil.copytree(saved, tmp_path / 'copy')
    reader = Checkpoints(directory, keep=None)
    expected = {
        n: np.asarray(x).tobytes() for n, x in reader.restore(abstract(), 3, part='params')[0].items()
    }
    found = 0
    for path in (directory / '3').iterdir():
        original = path.read_bytes()
        for share in (0.1, 0.5, 0.95) if original else ():
            content = bytearray(original)
            content[int(share * len(content))] ^= 0x10
            path.write_bytes(content)
            try:
                state, *_ = reader.restore(abstract(), 3, part='params')
            except StorageError:
                found += 1
            else:
                assert {n: np.asarray(x).tobytes() for n, x in state.items()} == expected
        path.write_bytes(original)
    assert found >= 5


BROKEN = """
c = Checkpoints({directory!r}, keep=2)
restored, extra, step = c.restore(abstract(new(0)))
assert (extra, step, bits(restored)) == ({{'seed': 2}}, 2, bits(new(2)))
c.close()
"""


def test_what_one_process_finds_broken_no_process_uses(saved, tmp_path):
    """A piece that lies on devices of process 1 alone."""
    directory = shutil.copytree(saved, tmp_path / 'copy')
    path = directory / '3' / 'part-1.safetensors'
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    run(STATE + BROKEN.format(directory=str(directory)))
    assert sorted(p.name for p in directory.iterdir()) == ['2', '3.corrupt']


FAIL = """
import os
if jax.process_index() == 1:
    from lcx.train import parts
    def full(*_): raise OSError(28, 'No space left on device')
    parts.write = full
c = Checkpoints({directory!r}, keep=2)
c.save(4, new(4), {{}})
try:
    c.wait()
except StorageError as error:
    print(error)
c.close()
"""


def test_a_part_that_cannot_be_written_fails_in_all_processes_and_leaves_nothing(saved, tmp_path):
    directory = shutil.copytree(saved, tmp_path / 'copy')
    for out in run(STATE + FAIL.format(directory=str(directory))):
        assert '4: checkpoint not written' in out and 'Process 1: OSError: [Errno 28] No space left' in out
    assert sorted(p.name for p in directory.iterdir()) == ['2', '3']


BLIND = """
try:
    Checkpoints({directory!r} + str(jax.process_index()), keep=2)
except StorageError as error:
    print(error)
"""


def test_directories_that_are_not_the_same_are_refused(tmp_path):
    for out in run(STATE + BLIND.format(directory=str(tmp_path / 'run'))):
        assert 'process 1 does not see what process 0 writes there' in out


def test_a_part_that_lacks_a_piece_is_no_checkpoint(tmp_path):
    text = parts.write(tmp_path, 0, {'x': [parts.Piece((0,), np.ones(3))]})
    digests = [archive.hashlib.sha256(text.encode()).hexdigest()]
    assert parts.merged(tmp_path, digests, {'x': (3,)})['x'][0]['start'] == [0]
    with pytest.raises(OSError, match='x: pieces of 3 numbers were written of 4'):
        parts.merged(tmp_path, digests, {'x': (4,)})
    with pytest.raises(
        OSError, match=r'part-1\.safetensors, which process 1 wrote, cannot be read by process 0'
    ):
        parts.merged(tmp_path, [*digests, ''], {'x': (3,)})
    with pytest.raises(OSError, match='is not what process 0 wrote'):
        parts.merged(tmp_path, ['another'], {'x': (3,)})


STORM = """
import itertools
c = Checkpoints({directory!r}, keep=2)
for step in itertools.count((c.latest() or 0) + 1):
    c.save(step, {{'params': put(np.full(1 << 16, step, np.int32), at('data'))}}, {{'step': step}})
    print(step, flush=True)
"""


@pytest.mark.faults
@pytest.mark.parametrize('victim', [0, 1])
def test_a_kill_of_one_process_at_any_moment_leaves_only_whole_steps(tmp_path, victim):
    """The other one is ended by the service that joins them, or where that is slow by this test."""
    for delay in (0.0, 0.011, 0.023):
        address = free_address()
        code = JOIN + STATE + STORM.format(directory=str(tmp_path))
        children = [start(['-c', code, address, '2', str(i)]) for i in range(2)]
        try:
            lines = (line for line in children[0].stdout if line.strip().isdecimal())
            begun = [int(next(lines)) for _ in range(3)]  # so the second is committed
            time.sleep(delay)
            children[victim].kill()
            end = time.monotonic() + 25  # a heartbeat is 10 s
            for child in children:
                child.wait(timeout=max(end - time.monotonic(), 0.1))
        finally:
            for child in children:
                child.kill()
                child.communicate()
        with Checkpoints(tmp_path, keep=2) as checkpoints:
            state, extra, step = checkpoints.restore({'params': np.zeros(1 << 16, np.int32)}, strict=True)
        assert extra == {'step': step} and step >= begun[1]
        np.testing.assert_array_equal(state['params'], step)
