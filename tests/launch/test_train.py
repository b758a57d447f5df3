"""``lcx train``: a workdir, stopped anyhow and continued by the same command, ends as if it had never stopped."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time

import pytest

from tests.running import digest, lcx, on_corpus, rows, steps

# Two stages of two lengths, the first one compiled like that of base.py:smoke; with "long", one that takes seconds.
CONFIG = """
from configs import base

def get_config(arg=''):
    config = base.get_config('smoke')
    config.stages = (base.stage(steps=4, length=64, batch=2), base.stage(steps=4, length=128, batch=2))
    config.checkpoint.update(every=2, keep=9)
    config.eval.run = ()
    if arg == 'long':
        config.stages = (base.stage(steps=400, length=64, batch=2),)
        config.checkpoint.every = 1000
        config.log.update(every=20, tensorboard=False)
    return config
"""
LAST = 8


@pytest.fixture(scope='module')
def here(tmp_path_factory):
    """A directory with a configuration and a corpus."""
    directory = tmp_path_factory.mktemp('train')
    (directory / 'config.py').write_text(CONFIG)
    return directory


@pytest.fixture(scope='module')
def command(here):
    """The words of a command line: ``command('long', workdir, overrides)``."""
    corpus = on_corpus(here)
    return lambda arg, workdir, *more: [
        'train', f'--config={here}/config.py:{arg}', f'--workdir={workdir}', *corpus, *more
    ]  # fmt: skip


@pytest.fixture(scope='module', params=['concat', 'first_fit'])
def unbroken(request, here, command):
    """``(workdir, command)`` of a finished run of eight steps."""

    def line(workdir, *more):
        return command('', workdir, f'--config.data.packing={request.param}', *more)

    workdir = here / request.param
    assert lcx(*line(workdir)) == 0
    return workdir, line


def killed_after(step, whole, workdir):
    """A copy of the finished run as a process killed after ``step`` leaves it, in the middle of a row."""
    shutil.copytree(whole, workdir)
    for saved in steps(workdir):
        if saved > step:
            shutil.rmtree(workdir / 'checkpoints' / str(saved))
    lines = (workdir / 'metrics.jsonl').read_text().splitlines(keepends=True)
    (workdir / 'metrics.jsonl').write_text(''.join(lines[:step]) + lines[step][:20])


@pytest.mark.parametrize('step', [5, 7])
def test_a_run_that_was_killed_goes_on_bit_by_bit(unbroken, tmp_path, step):
    """After 5 it goes on from 4, where the second stage begins, and after 7 from 6, inside the stage."""
    whole, command = unbroken
    killed_after(step, whole, tmp_path / 'run')
    assert steps(tmp_path / 'run')[-1] == step // 2 * 2
    assert lcx(*command(tmp_path / 'run')) == 0
    assert digest(tmp_path / 'run', LAST) == digest(whole, LAST)
    fields = ('step', 'stage', 'loss', 'grad_norm', 'learning_rate')
    found, expected = (
        [[row[f] for f in fields] for row in rows(w / 'metrics.jsonl')] for w in (tmp_path / 'run', whole)
    )
    assert [row[0] for row in found] == list(range(1, LAST + 1))
    assert found == expected
    attempts = json.loads((tmp_path / 'run' / 'run.json').read_text())['attempts']
    assert len(attempts) == 2


def test_a_workdir_holds_what_the_design_lists(unbroken):
    whole, _ = unbroken
    names = {path.name for path in whole.iterdir()}
    assert {'config.json', 'run.json', 'metrics.jsonl', 'results.jsonl', 'checkpoints', 'events'} <= names
    assert not {'lock', 'nonfinite.json'} & names and not list(whole.glob('**/*.tmp'))
    config = json.loads((whole / 'config.json').read_text())
    assert config['stages'][1]['length'] == 128 and config['data']['source'] == 'text'
    (attempt,) = json.loads((whole / 'run.json').read_text())['attempts']
    assert attempt['platform'] == 'cpu' and attempt['seed'] == 0


@pytest.mark.parametrize(
    ('override', 'message'),
    [
        ('--config.seed=7', 'seed: 0 -> 7'),
        ('--config.data.validation_percent=9', 'data.validation_percent: 5 -> 9'),
        ('--config.optimizer.clip=2.0', 'optimizer.clip: 1.0 -> 2.0'),
    ],
)
def test_another_experiment_does_not_get_the_workdir(unbroken, capsys, override, message):
    whole, command = unbroken
    before = digest(whole, LAST), (whole / 'config.json').read_bytes(), (whole / 'run.json').read_bytes()
    assert lcx(*command(whole, override)) == 2
    assert message in capsys.readouterr().err
    assert before == (
        digest(whole, LAST), (whole / 'config.json').read_bytes(), (whole / 'run.json').read_bytes()
    )  # fmt: skip


def test_a_run_from_before_a_field_existed_goes_on(unbroken, tmp_path):
    whole, command = unbroken
    shutil.copytree(whole, tmp_path / 'run')
    path = tmp_path / 'run' / 'config.json'
    values = json.loads(path.read_text())
    del values['optimizer']['offload'], values['model']['gated'], values['model']['position']['shift']
    path.write_text(json.dumps(values))
    assert lcx(*command(tmp_path / 'run')) == 0
    assert json.loads(path.read_text()) == json.loads((whole / 'config.json').read_text())


@pytest.mark.parametrize(
    ('content', 'code', 'message'),
    [
        (b'caf\xe9', 7, 'bad.txt is not UTF-8: byte 0xe9 at offset 3'),
        (b'', 2, 'data.files: all 1 files are empty'),
    ],
)
def test_text_that_cannot_be_read_ends_the_run_with_the_name_of_the_file(
    here, tmp_path, capsys, content, code, message
):
    (tmp_path / 'bad.txt').write_bytes(content)
    words = [
        f'--config={here}/config.py', f'--workdir={tmp_path}/run', '--config.data.source=text',
        f"--config.data.files=('{tmp_path}/bad.txt',)", f'--config.data.directory={tmp_path}/prepared',
    ]  # fmt: skip
    assert lcx('train', *words) == code
    assert message in capsys.readouterr().err


def test_an_absurd_learning_rate_ends_as_non_finite(command, here, tmp_path, capsys):
    """The first update is enormous, so that the second step has no loss; it is not kept."""
    words = command(
        '', tmp_path / 'run', '--config.optimizer.learning_rate=1e30', '--config.checkpoint.every=1'
    )
    assert lcx(*words) == 6
    report = json.loads((tmp_path / 'run' / 'nonfinite.json').read_text())
    message = capsys.readouterr().err
    assert f'step {report["step"]}: loss' in message and str(report['batch_ids']) in message
    assert len(report['batch_ids']) == 2 and len(report['batch_sha256']) == 64
    assert steps(tmp_path / 'run')[-1] == report['step'] - 1


def test_sigterm_saves_the_step_and_exits_42_and_the_same_command_ends_like_an_unbroken_run(
    command, here, tmp_path
):
    assert lcx(*command('long', tmp_path / 'whole')) == 0
    words = [sys.executable, '-m', 'lcx', *command('long', tmp_path / 'run')]
    with subprocess.Popen(words, stderr=subprocess.PIPE, text=True, env=os.environ) as process:
        for line in process.stderr:
            if 'step 20/400' in line:
                break
        process.send_signal(signal.SIGTERM)
        since = time.monotonic()
        _, message = process.communicate(timeout=60)
        assert process.returncode == 42 and time.monotonic() - since < 10
    assert 'the same command continues' in message
    (saved,) = steps(tmp_path / 'run')
    assert 20 <= saved < 400
    assert rows(tmp_path / 'run' / 'metrics.jsonl')[-1]['step'] == saved // 20 * 20
    assert lcx(*command('long', tmp_path / 'run')) == 0
    assert digest(tmp_path / 'run', 400) == digest(tmp_path / 'whole', 400)
    assert [r['step'] for r in rows(tmp_path / 'run' / 'metrics.jsonl')] == list(range(20, 401, 20))
