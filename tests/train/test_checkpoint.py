"""Checkpoints: what comes back is bit by bit what was saved, or an error that says why not."""

import functools
import json
import os
import shutil
import subprocess
import sys
import threading
import time
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from lcx.errors import ConfigError, StorageError
from lcx.train import archive
from lcx.train.checkpoint import Checkpoints

# Orbax drops its own coroutines when a read or write fails.
pytestmark = pytest.mark.filterwarnings('ignore:coroutine .* was never awaited:RuntimeWarning')

OPTIMIZER = optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(1e-2))


class State(NamedTuple):
    step: jax.Array
    params: dict
    opt_state: tuple
    key: jax.Array


@functools.cache
def new_state(seed=0):
    key = jax.random.key(seed)
    params = {
        'embed': jax.random.normal(key, (7, 4)),
        'block': {'kernel': jax.random.normal(key, (4, 6), jnp.bfloat16), 'scale': jnp.ones(())},
        'empty': jnp.zeros((0, 3)),
    }
    return State(jnp.int32(seed), params, OPTIMIZER.init(params), key)


@jax.jit
def train(state):
    """A step that uses every part of the state."""
    key, noise = jax.random.split(state.key)
    grads = jax.tree.map(lambda p: p * jax.random.normal(noise, p.shape, p.dtype), state.params)
    updates, opt_state = OPTIMIZER.update(grads, state.opt_state, state.params)
    return State(state.step + 1, optax.apply_updates(state.params, updates), opt_state, key)


def abstract(state):
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), state)


def bits(tree):
    """Every leaf as type, shape and bytes: equal only if equal bit by bit."""
    leaves = archive.to_host(archive.leaves_of(tree))
    return {name: (x.dtype, x.shape, x.numbers.tobytes()) for name, x in leaves.items()}


@pytest.fixture(scope='module')
def saved(tmp_path_factory):
    """A directory with the states of seeds 1 and 2 as steps 1 and 2."""
    directory = tmp_path_factory.mktemp('saved')
    with Checkpoints(directory, keep=3) as checkpoints:
        for step in (1, 2):
            checkpoints.save(step, new_state(step), {'stage': step})
    return directory


@pytest.fixture
def two_steps(saved, tmp_path):
    """A copy of it, to be broken."""
    return shutil.copytree(saved, tmp_path / 'checkpoints')


def test_a_resumed_run_equals_an_unbroken_one(tmp_path):
    state = train(train(new_state()))
    with Checkpoints(tmp_path, keep=1) as checkpoints:
        checkpoints.save(2, state, {'data': {'next': 17}, 'loss': 0.1 + 0.2})
    restored, extra, step = Checkpoints(tmp_path, keep=1).restore(abstract(state))
    assert type(restored) is State and jax.tree.structure(restored) == jax.tree.structure(state)
    assert bits(restored) == bits(state)
    assert (extra, step) == ({'data': {'next': 17}, 'loss': 0.1 + 0.2}, 2)
    assert bits(train(train(restored))) == bits(train(train(state)))


def test_a_state_that_is_donated_after_save_is_saved_as_it_was(tmp_path):
    state = {'params': jnp.arange(1 << 20, dtype=jnp.float32)}
    expected = bits(state)
    advance = jax.jit(lambda s: jax.tree.map(lambda x: x + 1, s), donate_argnums=0)
    with Checkpoints(tmp_path, keep=1) as checkpoints:
        checkpoints.save(0, state, {})
        for _ in range(5):
            state = advance(state)
        checkpoints.wait()
        restored, *_ = checkpoints.restore(abstract(state))
        assert bits(restored) == expected
        for _ in range(5):  # what was restored may be donated, too
            restored = advance(restored)
        assert bits(restored) == bits(state)


def test_no_save_is_skipped_and_the_newest_are_kept(tmp_path):
    with Checkpoints(tmp_path, keep=2) as checkpoints:
        assert checkpoints.latest() is None and checkpoints.steps() == []
        for step in range(5):
            checkpoints.save(step, new_state(step), {'step': step})
        checkpoints.wait()
        assert checkpoints.steps() == [3, 4] and checkpoints.latest() == 4
        assert sorted(p.name for p in tmp_path.iterdir()) == ['3', '4']
        assert checkpoints.extra() == {'step': 4} and checkpoints.extra(3) == {'step': 3}
        assert bits(checkpoints.restore(new_state(), step=3)[0]) == bits(new_state(3))


def test_an_existing_step_is_replaced(two_steps):
    with Checkpoints(two_steps, keep=3) as checkpoints:
        checkpoints.save(2, new_state(9), {'again': True})
        checkpoints.wait()
        state, extra, step = checkpoints.restore(new_state())
    assert (extra, step) == ({'again': True}, 2) and bits(state) == bits(new_state(9))


def test_parameters_alone(two_steps):
    reader = Checkpoints(two_steps, keep=None)
    shape = abstract(new_state().params)
    (two_steps / '2' / 'opt_state' / 'manifest.ocdbt').unlink()  # proves that it is not read
    params, extra, step = reader.restore(shape, part='params')
    assert (extra, step) == ({'stage': 2}, 2)
    assert bits(params) == bits(new_state(2).params)
    key, *_ = reader.restore(new_state().key, part='key')
    assert bits({'key': key}) == bits({'key': new_state(2).key})


def _flip(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0x10
    path.write_bytes(content)


def _largest(step):
    return max((p for p in (step / 'params').rglob('*') if p.is_file()), key=lambda p: p.stat().st_size)


def _empty(step):
    for path in sorted(step.rglob('*'), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()


FAULTS = {
    'flipped byte': lambda step: _flip(_largest(step)),
    'flipped byte in the manifest': lambda step: _flip(step / 'manifest.json'),
    'truncated file': lambda step: os.truncate(_largest(step), _largest(step).stat().st_size // 2),
    'truncated manifest': lambda step: os.truncate(step / 'manifest.json', 100),
    'deleted file': lambda step: _largest(step).unlink(),
    'truncated metadata': lambda step: os.truncate(step / 'params' / '_METADATA', 10),
    'empty directory': _empty,
    'no commit file': lambda step: (step / 'commit_success.txt').unlink(),
    'no manifest': lambda step: (step / 'manifest.json').unlink(),
    'arrays of another step': lambda step: shutil.copytree(
        step.parent / '1' / 'params', shutil.rmtree(step / 'params') or step / 'params'
    ),
}


@pytest.mark.parametrize('fault', FAULTS)
def test_a_broken_newest_step_is_put_aside_and_the_one_before_is_used(two_steps, fault, caplog):
    FAULTS[fault](two_steps / '2')
    with pytest.raises(StorageError, match=f'{two_steps}/2: '):
        Checkpoints(two_steps, keep=None).restore(new_state(), strict=True)
    with pytest.raises(StorageError, match=f'{two_steps}/2: '):
        Checkpoints(two_steps, keep=None).restore(new_state(), step=2)
    before = sorted(two_steps.rglob('*'))
    expected = bits(new_state(1))
    assert bits(Checkpoints(two_steps, keep=None).restore(new_state())[0]) == expected
    assert sorted(two_steps.rglob('*')) == before  # a reader changes nothing
    caplog.clear()
    state, extra, step = Checkpoints(two_steps, keep=3).restore(new_state())
    assert bits(state) == expected and extra == {'stage': 1}
    assert 'is broken' in caplog.text and caplog.text.count('WARNING') == 1
    assert (two_steps / '2.corrupt').is_dir() and not (two_steps / '2').exists()
    assert Checkpoints(two_steps, keep=3).latest() == step


def test_a_flipped_byte_anywhere_never_gives_another_state(two_steps):
    """One byte of each file: the state is the same or the fault is found."""
    expected, found = bits(new_state(2)), 0
    reader = Checkpoints(two_steps, keep=None)
    files = [p for p in (two_steps / '2').rglob('*') if p.is_file()]
    for path in files:
        original = path.read_bytes()
        _flip(path) if original else path.write_bytes(b'x')
        try:
            assert bits(reader.restore(new_state(), step=2)[0]) == expected
        except StorageError:
            found += 1
        path.write_bytes(original)
    assert len(files) > 20 and found > 5
    assert bits(reader.restore(new_state(), step=2)[0]) == expected


def test_where_no_step_is_intact_nothing_is_put_aside(two_steps):
    for step in ('1', '2'):
        _flip(_largest(two_steps / step))
    with pytest.raises(StorageError, match=r'No intact checkpoint.*/2: .*; .*/1: '):
        Checkpoints(two_steps, keep=3).restore(new_state())
    assert Checkpoints(two_steps, keep=3).steps() == [1, 2]


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        (
            lambda s: s._replace(step=s.step.astype(jnp.float32)),
            r'step is saved as int32\[\], but float32\[\]',
        ),
        (
            lambda s: s._replace(params={**s.params, 'embed': jnp.zeros((7, 5))}),
            r'params/embed is saved as float32\[7, 4\], but float32\[7, 5\] is expected',
        ),
        (
            lambda s: s._replace(params={**s.params, 'head': jnp.zeros(2)}),
            r'params/head is saved as nothing, but float32\[2\]',
        ),
        (
            lambda s: s._replace(params={'embed': s.params['embed']}),
            r'params/block/kernel is saved as bfloat16\[4, 6\], but nothing',
        ),
        (
            lambda s: s._replace(key=jax.random.key(0, impl='rbg')),
            r'key is saved as key<fry>\[\], but key<rbg>\[\]',
        ),
    ],
)
def test_another_shape_or_type_is_refused_and_is_no_fault_of_the_file(two_steps, change, message):
    with pytest.raises(ConfigError, match=message):
        Checkpoints(two_steps, keep=3).restore(abstract(change(new_state())))
    assert Checkpoints(two_steps, keep=3).steps() == [1, 2]


def test_missing_steps_are_named(two_steps, tmp_path_factory):
    with pytest.raises(StorageError, match='no step 7; there are: 1, 2'):
        Checkpoints(two_steps, keep=None).restore(new_state(), step=7)
    nowhere = tmp_path_factory.mktemp('x') / 'nowhere'
    assert Checkpoints(nowhere, keep=None).latest() is None
    with pytest.raises(StorageError, match='no checkpoint; there are: none'):
        Checkpoints(nowhere, keep=None).extra()
    assert not nowhere.exists()


def test_leftovers_of_a_killed_process_go_when_a_writer_opens(two_steps):
    for name in ('3.saving', '1.deleting'):
        (two_steps / name / 'params').mkdir(parents=True)
    Checkpoints(two_steps, keep=None)
    assert (two_steps / '3.saving').exists()
    Checkpoints(two_steps, keep=3)
    assert sorted(p.name for p in two_steps.iterdir()) == ['1', '2']


def test_extra_must_be_json_and_is_taken_at_once(tmp_path):
    with Checkpoints(tmp_path, keep=1) as checkpoints:
        with pytest.raises(TypeError, match='int64'):
            checkpoints.save(1, new_state(), {'position': np.int64(1)})
        with pytest.raises(ValueError, match='JSON'):
            checkpoints.save(1, new_state(), {'loss': float('nan')})
        extra = {'list': [1]}
        checkpoints.save(1, new_state(), extra)
        extra['list'].append(2)
        checkpoints.wait()
        assert checkpoints.extra() == {'list': [1]}


def test_a_full_disk_is_noticed_before_anything_is_written(two_steps):
    huge = {'params': np.broadcast_to(np.float32(0), (1 << 50,))}  # 4 PiB of one number
    with Checkpoints(two_steps, keep=3) as checkpoints:
        with pytest.raises(StorageError, match=r'/3: not saved.* 5,[\d,]{19} bytes needed, [\d,]+ free'):
            checkpoints.save(3, huge, {})
        assert sorted(p.name for p in two_steps.iterdir()) == ['1', '2']


def _fail_in_background(checkpoints):
    """Starts a save that cannot be written: a file takes the place of its directory."""
    (checkpoints.directory / '5.saving').write_text('in the way')
    checkpoints.save(5, new_state(), {})
    while not checkpoints._saving.done():
        threading.Event().wait(0.01)
    (checkpoints.directory / '5.saving').unlink()


@pytest.mark.parametrize('notice', ['save', 'poll', 'wait', 'close'])
def test_a_failed_background_save_is_told(two_steps, notice):
    checkpoints = Checkpoints(two_steps, keep=3)
    checkpoints.poll()
    _fail_in_background(checkpoints)
    arguments = (6, new_state(), {}) if notice == 'save' else ()
    with pytest.raises(StorageError, match=r'/5: checkpoint not written, [\d,]+ bytes needed, [\d,]+ free'):
        getattr(checkpoints, notice)(*arguments)
    assert checkpoints.steps() == [1, 2]
    checkpoints.close()  # told once


def test_a_failed_save_does_not_hide_the_error_under_way(two_steps, caplog):
    with pytest.raises(ZeroDivisionError), Checkpoints(two_steps, keep=3) as checkpoints:
        _fail_in_background(checkpoints)
        raise ZeroDivisionError
    assert 'checkpoint not written' in caplog.text


def test_a_disk_that_refuses_bytes_while_saving(tmp_path):
    """A limit on the size of files stands in for a disk that fills up under a save."""
    code = f"""
import resource, signal
import jax.numpy as jnp
from lcx.errors import StorageError
from lcx.train.checkpoint import Checkpoints
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
checkpoints = Checkpoints({str(tmp_path)!r}, keep=3)
checkpoints.save(1, {{'params': jnp.zeros(8)}}, {{}})
checkpoints.wait()
resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 16, 1 << 16))
import numpy as np
state = {{'params': np.random.default_rng(0).normal(size=1 << 16)}}
checkpoints.save(2, state, {{}})
try:
    checkpoints.close()
except StorageError as error:
    print(error)
"""
    done = _python(code, devices=1)
    assert 'bytes needed' in done and 'free' in done and done.count('\n') == 1, done
    assert sorted(p.name for p in tmp_path.iterdir()) == ['1']


def _python(code, devices):
    environment = {
        **os.environ,
        'JAX_PLATFORMS': 'cpu',
        'XLA_FLAGS': f'--xla_force_host_platform_device_count={devices}',
    }
    done = subprocess.run(
        [sys.executable, '-c', code], env=environment, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


MESH = """
import sys
import jax, jax.numpy as jnp
from lcx.train.checkpoint import Checkpoints
mesh = jax.make_mesh((len(jax.devices()),), ('data',))
rows, copies = (jax.NamedSharding(mesh, jax.P(*spec)) for spec in (('data',), ()))
state = {
    'params': jax.device_put(jax.random.normal(jax.random.key(1), (16, 3)), rows),
    'key': jax.device_put(jax.random.key(7), copies),
    'keys': jax.device_put(jax.random.split(jax.random.key(7), 8), rows),
}
"""


def test_eight_devices_to_four(tmp_path):
    save = f"with Checkpoints({str(tmp_path)!r}, keep=1) as c: c.save(1, state, {{'devices': 8}})"
    _python(MESH + save, devices=8)
    restore = f"""
abstract = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), state)
restored, extra, step = Checkpoints({str(tmp_path)!r}, keep=None).restore(abstract)
assert (extra, step) == ({{'devices': 8}}, 1)
for name, x in state.items():
    y = restored[name]
    assert (y.dtype, y.sharding, len(y.addressable_shards)) == (x.dtype, x.sharding, 4), name
    numbers = jax.random.key_data if 'key' in name else jnp.asarray
    assert (numbers(x) == numbers(y)).all(), name
"""
    _python(MESH + restore, devices=4)


@pytest.mark.faults
def test_a_kill_at_any_moment_leaves_only_whole_steps(tmp_path):
    """SIGKILLs in the middle of saves, one after the other in one directory."""
    code = f"""
import numpy as np
from lcx.train.checkpoint import Checkpoints
checkpoints = Checkpoints({str(tmp_path)!r}, keep=2)
step = checkpoints.latest() or 0
while True:
    step += 1
    checkpoints.save(step, {{'params': np.full(1 << 18, step, np.int32)}}, {{'step': step}})
    print(step, flush=True)
"""
    last = 0
    for delay in (0.0, 0.007, 0.019, 0.032, 0.045):
        process = subprocess.Popen([sys.executable, '-c', code], stdout=subprocess.PIPE, text=True)
        begun = [int(process.stdout.readline()) for _ in range(3)]  # so the second is committed
        time.sleep(delay)
        process.kill()
        process.communicate()
        with Checkpoints(tmp_path, keep=2) as checkpoints:
            state, extra, step = checkpoints.restore({'params': np.zeros(1 << 18, np.int32)}, strict=True)
        assert begun[0] > last and extra == {'step': step} and step >= begun[1]
        np.testing.assert_array_equal(state['params'], step)
        last = step


def test_the_manifest_says_what_is_inside(two_steps):
    _, text, _ = (two_steps / '1' / 'manifest.json').read_text().split('\n')
    leaves = json.loads(text)['leaves']
    assert leaves['params/block/kernel'].items() >= {'shape': [4, 6], 'dtype': 'bfloat16'}.items()
    assert leaves['key'].items() >= {'shape': [], 'dtype': 'key<fry>', 'key_impl': 'threefry2x32'}.items()
