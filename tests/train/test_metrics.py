"""Metrics: rows survive kills and resumes, and every reader of JSON can read them."""

import json
import math
import subprocess
import sys

import jax.numpy as jnp
import numpy as np
import pytest
from tensorboardX import proto

from lcx.errors import StorageError
from lcx.train.metrics import JsonlWriter, Metrics, read_jsonl, truncate_after, write_atomic


def test_numbers_of_any_library_become_plain_ones(tmp_path):
    with JsonlWriter(tmp_path / 'm.jsonl') as writer:
        writer.write(
            {
                'step': np.int64(3),
                'loss': jnp.float32(0.5),
                'rate': jnp.bfloat16(2),
                'finite': np.bool_(True),
                'ids': jnp.arange(2),
                'name': 'x',
                'none': None,
            }
        )
    (row,) = read_jsonl(tmp_path / 'm.jsonl')
    assert row == {
        'step': 3, 'loss': 0.5, 'rate': 2.0, 'finite': True, 'ids': [0, 1], 'name': 'x', 'none': None
    }  # fmt: skip
    assert [type(v) for v in row.values()] == [int, float, float, bool, list, str, type(None)]


def test_non_finite_values_are_null_for_strict_readers(tmp_path):
    with JsonlWriter(tmp_path / 'm.jsonl') as writer:
        writer.write({'step': 1, 'loss': jnp.nan, 'norm': np.float32('inf'), 'all': [1.0, -math.inf]})

    def refuse(word):
        raise AssertionError(f'{word} is not JSON')

    row = json.loads((tmp_path / 'm.jsonl').read_text(), parse_constant=refuse)
    assert row == {'step': 1, 'loss': None, 'norm': None, 'all': [1.0, None]}


@pytest.mark.parametrize('cut', [1, 5, 11])
def test_a_torn_last_line_is_skipped_and_then_removed(tmp_path, cut):
    path = tmp_path / 'm.jsonl'
    path.write_text('{"step": 1}\n' + '{"step": 2}\n'[:-cut])
    assert list(read_jsonl(path)) == [{'step': 1}]
    with JsonlWriter(path) as writer:
        writer.write({'step': 2})
    assert path.read_text() == '{"step": 1}\n{"step": 2}\n'


def test_a_damaged_line_inside_names_file_and_line(tmp_path):
    path = tmp_path / 'm.jsonl'
    path.write_text('{"step": 1}\n{"st\n{"step": 3}\n')
    with pytest.raises(StorageError, match=r'm\.jsonl:2: not a JSON object'):
        list(read_jsonl(path))


def test_rows_of_a_killed_process_are_there(tmp_path):
    path = tmp_path / 'm.jsonl'
    code = f"""
import os, signal
from lcx.train.metrics import JsonlWriter
writer = JsonlWriter({str(path)!r})
for step in range(5):
    writer.write({{'step': step}})
os.kill(os.getpid(), signal.SIGKILL)
"""
    assert subprocess.run([sys.executable, '-c', code], timeout=60).returncode == -9
    assert [row['step'] for row in read_jsonl(path)] == [0, 1, 2, 3, 4]


def test_truncate_after_keeps_rows_up_to_the_step(tmp_path):
    path = tmp_path / 'm.jsonl'
    path.write_text('{"step": 1}\n{"note": "x"}\n{"step": 3}\n{"step": 2}\n{"step"')
    truncate_after(path, 2)
    assert path.read_text() == '{"step": 1}\n{"note": "x"}\n{"step": 2}\n'
    truncate_after(tmp_path / 'missing.jsonl', 2)
    assert [p.name for p in tmp_path.iterdir()] == ['m.jsonl']


def test_a_resumed_run_has_every_step_once(tmp_path):
    for first, last, after in ((1, 7, 0), (5, 8, 4)):  # killed at 7, restored at 4
        with Metrics(tmp_path, tensorboard=False, after=after) as metrics:
            for step in range(first, last + 1):
                metrics.write(step, {'loss': jnp.float32(step)})
    assert [(r['step'], r['loss']) for r in read_jsonl(tmp_path / 'metrics.jsonl')] == [
        (s, float(s)) for s in range(1, 9)
    ]
    assert not (tmp_path / 'events').exists()


def _events(directory):
    """The events of all files: records of (length, crc, event, crc)."""
    for path in sorted(directory.iterdir()):
        data = path.read_bytes()
        while data:
            length = int.from_bytes(data[:8], 'little')
            event = proto.event_pb2.Event()
            event.ParseFromString(data[12 : 12 + length])
            yield event
            data = data[16 + length :]


def test_tensorboard_gets_the_numbers_and_hides_what_was_redone(tmp_path):
    with Metrics(tmp_path, tensorboard=True, after=4) as metrics:
        metrics.write(5, {'loss': np.float32(0.5), 'tokens': 8, 'name': 'x', 'bad': math.nan})
    events = list(_events(tmp_path / 'events'))
    starts = [e.step for e in events if e.HasField('session_log')]
    assert starts == [5]  # TensorBoard drops older events from this step on
    values = {v.tag: v.simple_value for e in events if e.step == 5 for v in e.summary.value}
    assert values.pop('bad') != values.get('bad')
    assert values == {'loss': 0.5, 'tokens': 8.0}


def test_write_atomic_replaces_or_leaves_alone(tmp_path):
    path = tmp_path / 'a.json'
    write_atomic(path, 'old')
    write_atomic(path, 'new')
    assert path.read_text() == 'new'
    (tmp_path / 'directory').mkdir()
    with pytest.raises(StorageError, match='directory: cannot be written'):
        write_atomic(tmp_path / 'directory', 'x')
    assert sorted(p.name for p in tmp_path.iterdir()) == ['a.json', 'directory']


def test_a_path_that_cannot_be_written_is_a_storage_error(tmp_path):
    (tmp_path / 'file').write_text('')
    with pytest.raises(StorageError, match='cannot be opened'):
        JsonlWriter(tmp_path / 'file' / 'm.jsonl')
