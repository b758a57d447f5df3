"""``lcx train`` as two processes of four devices: what one process of eight does, and one end for all."""

import json
import os
import signal
import time

import numpy as np
import pytest

from tests.running import digests, on_corpus, rows, steps
from tests.together import ended, free_address, start

pytestmark = pytest.mark.processes

# Rows over both processes, parameters and tokens over the devices of each; "long" takes a minute.
CONFIG = """
from configs import base

def get_config(arg=''):
    config = base.get_config('smoke')
    config.stages = (base.stage(steps=4, length=64, batch=4), base.stage(steps=3, length=128, batch=4))
    config.mesh.update(data=2, fsdp=2, context=2)
    config.checkpoint.update(every=2, keep=9)
    config.eval.update(run=('window_perplexity',), lengths=(64,), windows=3)
    config.distributed.update(heartbeat=15, timeout=60)
    if arg == 'long':
        config.stages = (base.stage(steps=2000, length=64, batch=4),)
        config.checkpoint.every = 1000
    return config
"""
LAST = 7


@pytest.fixture(scope='module')
def here(tmp_path_factory):
    """A directory with a configuration and a corpus."""
    directory = tmp_path_factory.mktemp('processes')
    (directory / 'config.py').write_text(CONFIG)
    return directory


@pytest.fixture(scope='module')
def words(here):
    corpus = on_corpus(here)

    def line(workdir, *more, arg=''):
        return ['-m', 'lcx', 'train', f'--config={here}/config.py:{arg}', f'--workdir={workdir}', *corpus, *more]

    return line


def two(line):
    """The command as two processes."""
    address = free_address()
    given = [f'--config.distributed.coordinator={address}', '--config.distributed.processes=2']
    return [start([*line, *given, f'--config.distributed.process={i}']) for i in range(2)]


def codes(found):
    return [one.code for one in found], [one.err[-3000:] for one in found]


@pytest.fixture(scope='module')
def alone(here, words):
    """A finished run of one process with eight devices."""
    (one,) = ended([start(words(here / 'alone'), devices=8)])
    assert one.code == 0, one.err
    return here / 'alone'


@pytest.fixture(scope='module')
def both(here, words):
    """A finished run of two processes with four devices each."""
    found = ended(two(words(here / 'both')))
    assert codes(found)[0] == [0, 0], found
    assert 'step 7/7' in found[0].err and 'step' not in found[1].err  # the first one alone talks
    return here / 'both'


def test_two_processes_train_as_one(alone, both):
    found, expected = rows(both / 'metrics.jsonl'), rows(alone / 'metrics.jsonl')
    assert [row['step'] for row in found] == list(range(1, LAST + 1))
    for name in ('loss', 'grad_norm', 'learning_rate'):
        np.testing.assert_allclose([r[name] for r in found], [r[name] for r in expected], rtol=2e-5)
    scores, known = rows(both / 'results.jsonl'), rows(alone / 'results.jsonl')
    assert [r['window'] for r in scores] == [r['window'] for r in known] == [0, 1, 2]
    np.testing.assert_allclose([r['nats'] for r in scores], [r['nats'] for r in known], rtol=2e-5)
    (attempt,) = json.loads((both / 'run.json').read_text())['attempts']
    assert len(attempt['processes']) == 2 and sum(attempt['devices'].values()) == 8
    assert len(list((both / 'checkpoints' / str(LAST)).glob('part-*'))) == 2
    assert not (both / 'lock').exists() and len(list((both / 'events').iterdir())) == 1


def test_what_two_processes_saved_one_goes_on_with_and_back(here, words, both):
    """Stopped after 4 steps of two processes, 2 more by one process of eight devices, the last by two again."""
    del both
    workdir = here / 'back'
    first, more = (["--config.stages=()" ] , [])
    del first, more
    found = ended(two(words(workdir, '--config.stages[1].steps=1')))
    assert codes(found)[0] == [0, 0], found
    (one,) = ended([start(words(workdir, '--config.stages[1].steps=1'), devices=8)])
    assert one.code == 0, one.err


@pytest.mark.parametrize('asked', [0, 1])
def test_sigterm_to_one_process_stops_both_at_the_same_step_and_the_run_goes_on(here, words, asked):
    workdir = here / f'stopped-{asked}'
    line = words(workdir, arg='long')
    children = two(line)
    end = time.monotonic() + 90
    while not (workdir / 'metrics.jsonl').exists() or len((workdir / 'metrics.jsonl').read_bytes()) < 200:
        assert time.monotonic() < end and all(child.poll() is None for child in children)
        time.sleep(0.05)
    os.kill(children[asked].pid, signal.SIGTERM)
    before = time.monotonic()
    found = ended(children)
    assert time.monotonic() - before < 20
    assert codes(found)[0] == [42, 42], found
    (step,) = steps(workdir)
    written = [row['step'] for row in rows(workdir / 'metrics.jsonl')]
    assert written == list(range(1, step + 1)) and step < 1000
    assert sorted((workdir / 'checkpoints').iterdir()) == [workdir / 'checkpoints' / str(step)]
    assert not (workdir / 'lock').exists()


def test_a_loss_that_is_not_a_number_ends_all_with_one_report(here, words):
    workdir = here / 'nonfinite'
    line = words(workdir, '--config.optimizer.learning_rate=1e30', '--config.checkpoint.every=1')
    found = ended(two(line))
    assert codes(found)[0] == [6, 6], found
    report = json.loads((workdir / 'nonfinite.json').read_text())
    assert len(report['batch_ids']) == 4 and len(report['batch_sha256']) == 64
    assert steps(workdir)[-1] == report['step'] - 1
    assert all(np.isfinite(norm) for norm in report['parameter_norms'].values())
    for one in found:
        assert f'step {report["step"]}: loss' in one.err and str(report['batch_ids']) in one.err


def test_a_run_that_is_refused_is_refused_by_all(here, words):
    """By the lock that the first process cannot have, and by what several processes cannot do."""
    workdir = here / 'locked'
    from lcx.launch.workdir import Workdir

    with Workdir(workdir):
        found = ended(two(words(workdir)))
    assert codes(found)[0] == [4, 4], found
    found = ended(two(words(here / 'cached', '--config.eval.cached=True')))
    assert codes(found)[0] == [2, 2], found
    assert 'eval.cached: True takes one process' in found[0].err


def test_digests_of_a_run_that_was_stopped_and_went_on_are_those_of_one_that_was_not(here, words, both):
    workdir = here / 'again'
    children = two(words(workdir))
    end = time.monotonic() + 90
    while not steps_of(workdir):
        assert time.monotonic() < end
        time.sleep(0.02)
    children[1].send_signal(signal.SIGTERM)
    found = ended(children)
    assert codes(found)[0] in ([42, 42], [0, 0]), found
    again = ended(two(words(workdir)))
    assert codes(again)[0] == [0, 0], again
    assert pieces(workdir) == pieces(both)


def steps_of(workdir):
    return (workdir / 'checkpoints').is_dir() and steps(workdir)


def pieces(workdir):
    text = (workdir / 'checkpoints' / str(LAST) / 'manifest.json').read_text().split('\n')[1]
    return {name: leaf['pieces'] for name, leaf in json.loads(text)['leaves'].items()}
