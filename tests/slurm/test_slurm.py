"""``lcx train`` as a job of a real Slurm: two tasks find each other, and after a requeue go on as if not stopped."""

import json
import sys

import pytest

from tests.running import on_corpus, rows, steps
from tests.slurm import cluster as slurm
from tests.together import ROOT, environment

pytestmark = pytest.mark.slurm

CONFIG = """
from configs import base

def get_config(arg=''):
    config = base.get_config('smoke')
    config.stages = (base.stage(steps=STEPS, length=64, batch=8),)
    config.model.layers = 1
    config.mesh.update(data=2, fsdp=4)
    config.checkpoint.update(every=50, keep=1)
    config.log.every = 5
    config.eval.run = ()
    config.distributed.update(heartbeat=15, timeout=60)
    return config
"""
STEPS = 150


@pytest.fixture(scope='module')
def cluster(tmp_path_factory):
    """A Slurm with one node, or a visible skip."""
    if (why := slurm.missing()) is not None:
        pytest.skip(why)
    with slurm.started(tmp_path_factory.mktemp('slurm')) as found:
        yield found


@pytest.fixture(scope='module')
def submit(cluster, tmp_path_factory):
    """``submit(workdir)``: the script of the README with two tasks; the job's number and the file of its output."""
    here = tmp_path_factory.mktemp('job')
    (here / 'config.py').write_text(CONFIG.replace('STEPS', str(STEPS)))
    (here / 'lcx').write_text(f'#!/bin/sh\nexec {sys.executable} -m lcx "$@"\n')
    (here / 'lcx').chmod(0o755)
    corpus = on_corpus(here)
    given = environment(devices=4, LCX=str(here / 'lcx'))
    cluster.environment |= given | {name: cluster.environment[name] for name in ('PATH', 'SLURM_CONF')}

    def start(workdir):
        out = here / f'{workdir.name}.out'
        words = [
            'sbatch', '--parsable', '--ntasks=2', f'--output={out}', f'--chdir={ROOT}',
            str(ROOT / 'experiments' / 'launch' / 'slurm.sh'), f'--config={here}/config.py', f'--workdir={workdir}',
            *corpus,
        ]  # fmt: skip
        return cluster.run(*words).strip(), out

    return start


def done(cluster, job, out, limit=180):
    """Waits for the end of a job, which must be a good one; a requeued one starts without Slurm's two minutes."""

    def seen():
        found = cluster.job(job)
        if found['JobState'] == 'PENDING' and found['Reason'] == 'BeginTime':
            cluster.run('scontrol', 'update', f'JobId={job}', 'StartTime=now')
        return found if found['JobState'] in ('COMPLETED', 'FAILED', 'CANCELLED', 'TIMEOUT') else None

    found = cluster.until(f'job {job} done', seen, limit)
    assert found['JobState'] == 'COMPLETED', out.read_text()[-5000:]
    return found


def pieces(workdir):
    text = (workdir / 'checkpoints' / str(STEPS) / 'manifest.json').read_text().split('\n')[1]
    return {name: leaf['pieces'] for name, leaf in json.loads(text)['leaves'].items()}


def test_a_job_of_two_tasks_is_one_run_and_goes_on_after_a_requeue(cluster, submit, tmp_path):
    whole, out = submit(tmp_path / 'whole')
    done(cluster, whole, out)
    (attempt,) = json.loads((tmp_path / 'whole' / 'run.json').read_text())['attempts']
    assert len(attempt['processes']) == 2 and sum(attempt['devices'].values()) == 8
    assert steps(tmp_path / 'whole') == [STEPS]

    workdir = tmp_path / 'stopped'
    job, out = submit(workdir)
    metrics = workdir / 'metrics.jsonl'
    cluster.until('a row', lambda: metrics.exists() and metrics.read_bytes().count(b'\n') > 1)
    cluster.run('scancel', '--signal=TERM', job)
    cluster.until('the job back in the queue', lambda: cluster.job(job)['Restarts'] == '1')
    found = done(cluster, job, out)
    assert found['Restarts'] == '1' and found['ExitCode'] == '0:0'
    text = out.read_text()
    assert 'exit code 42' in text and text.count('stopped by SIGTERM') == 2, text
    attempts = json.loads((workdir / 'run.json').read_text())['attempts']
    assert len(attempts) == 2 and [len(a['processes']) for a in attempts] == [2, 2]
    assert [r['step'] for r in rows(metrics)] == list(range(5, STEPS + 1, 5))
    assert pieces(workdir) == pieces(tmp_path / 'whole')
