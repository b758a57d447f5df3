"""``lcx train`` as two processes of four devices: what one process of eight does, and one end for all."""

import json
import shutil
import signal
import time
from types import SimpleNamespace

import numpy as np
import pytest

from configs import base
from lcx.errors import ConfigError
from lcx.launch.evaluation import check_together
from lcx.launch.experiment import experiment_config, values_of
from lcx.launch.workdir import Workdir
from lcx.parallel.processes import Processes
from tests.running import on_corpus, rows, steps
from tests.together import ended, free_address, start

pytestmark = pytest.mark.processes

# Rows over both processes, parameters and tokens over the devices of each; "long" takes a minute.
CONFIG = """
from configs import base

def get_config(arg=''):
    config = base.get_config('smoke')
    config.stages = (base.stage(steps=7, length=64, batch=4),)
    config.model.layers = 1
    config.mesh.update(data=2, fsdp=2, context=2)
    config.checkpoint.update(every=2, keep=9)
    config.eval.update(run=('window_perplexity',), lengths=(64,), windows=3)
    config.distributed.update(heartbeat=15, timeout=60)
    if arg == 'long':
        config.stages = (base.stage(steps=3000, length=64, batch=4),)
        config.checkpoint.every = 2000
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
        return [
            '-m',
            'lcx',
            'train',
            f'--config={here}/config.py:{arg}',
            f'--workdir={workdir}',
            *corpus,
            *more,
        ]

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


def stopped_at(children, workdir, rows_before, which):
    """Sends SIGTERM to one process when there are so many rows; the step at which both stopped."""
    end, path = time.monotonic() + 90, workdir / 'metrics.jsonl'
    while not path.exists() or len(path.read_bytes().splitlines()) < rows_before:
        assert time.monotonic() < end and all(child.poll() is None for child in children)
        time.sleep(0.01)
    children[which].send_signal(signal.SIGTERM)
    before = time.monotonic()
    found = ended(children)
    assert time.monotonic() - before < 20
    assert codes(found)[0] == [42] * len(children), found
    assert not (workdir / 'lock').exists()
    return steps(workdir)[-1]


def test_sigterm_to_one_process_stops_both_at_the_same_step(here, words):
    workdir = here / 'stopped'
    step = stopped_at(two(words(workdir, arg='long')), workdir, 3, which=1)
    assert step < 2000 and [row['step'] for row in rows(workdir / 'metrics.jsonl')] == list(
        range(1, step + 1)
    )


@pytest.mark.slow
def test_sigterm_to_the_first_process_and_one_process_goes_on_and_then_two(here, words):
    """One process has eight devices. No row is lost or twice there."""
    workdir = here / 'stopped-0'
    line = words(workdir, arg='long')
    first = stopped_at(two(line), workdir, 3, which=0)
    second = stopped_at([start(line, devices=8)], workdir, first + 3, which=0)
    third = stopped_at(two(line), workdir, second + 3, which=1)
    assert first < second < third
    assert [row['step'] for row in rows(workdir / 'metrics.jsonl')] == list(range(1, third + 1))
    attempts = json.loads((workdir / 'run.json').read_text())['attempts']
    assert [len(attempt['processes']) for attempt in attempts] == [2, 1, 2]


def test_a_run_that_goes_on_from_the_middle_ends_as_one_that_was_not_stopped(here, words, both):
    """From a checkpoint of two processes, by two again: bit by bit."""
    workdir = here / 'again'
    shutil.copytree(both, workdir)
    shutil.rmtree(workdir / 'checkpoints' / '6')
    shutil.rmtree(workdir / 'checkpoints' / str(LAST))
    found = ended(two(words(workdir, '--config.eval.run=()')))
    assert codes(found)[0] == [0, 0], found
    assert pieces(workdir) == pieces(both)
    assert [r['loss'] for r in rows(workdir / 'metrics.jsonl')] == [
        r['loss'] for r in rows(both / 'metrics.jsonl')
    ]


def pieces(workdir):
    """Where each piece of the last checkpoint's arrays is, and its SHA-256."""
    text = (workdir / 'checkpoints' / str(LAST) / 'manifest.json').read_text().split('\n')[1]
    return {name: leaf['pieces'] for name, leaf in json.loads(text)['leaves'].items()}


@pytest.mark.slow
def test_sigterm_in_an_evaluation_ends_both_at_once_and_it_goes_on_where_it_was(here, words):
    """A row for each of 600 windows."""
    workdir = here / 'evaluating'
    line = words(workdir, '--config.eval.windows=600', '--config.eval.tokens=64')
    children, end, path = two(line), time.monotonic() + 90, workdir / 'results.jsonl'
    while not path.exists() or len(path.read_bytes().splitlines()) < 5:
        assert time.monotonic() < end and all(child.poll() is None for child in children)
        time.sleep(0.01)
    children[1].send_signal(signal.SIGTERM)
    found = ended(children)
    assert codes(found)[0] == [42, 42], found
    assert 5 <= len(rows(path)) < 600
    again = ended(two(line))
    assert codes(again)[0] == [0, 0], again
    assert [row['window'] for row in rows(path)] == list(range(600))


@pytest.mark.slow
def test_two_processes_tune_adapters_of_a_run_as_one_does(here, words, both):
    more = (f'--config.init_from={both}', '--config.tune.name=lora', '--config.eval.run=()')
    (one,) = ended([start(words(here / 'lora-1', *more), devices=8)])
    found = ended(two(words(here / 'lora-2', *more)))
    assert codes([one, *found])[0] == [0, 0, 0], [one, *found]
    losses = [[row['loss'] for row in rows(here / name / 'metrics.jsonl')] for name in ('lora-1', 'lora-2')]
    np.testing.assert_allclose(*losses, rtol=2e-5)


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


def test_a_run_that_the_first_process_is_refused_is_refused_by_all(here, words):
    with Workdir(here / 'locked'):
        found = ended(two(words(here / 'locked')))
    assert codes(found)[0] == [4, 4], found
    assert 'works in' in found[0].err and 'process 0 ended with exit code 4' in found[1].err


@pytest.mark.parametrize(
    ('evaluation', 'message'),
    [
        ({'cached': True}, r'eval.cached: True takes one process. .* lcx eval afterwards'),
        ({'run': ('perplexity', 'ruler')}, r"eval.run: 'ruler' takes one process"),
    ],
)
def test_what_several_processes_cannot_evaluate_is_refused(evaluation, message):
    config = base.get_config('smoke')
    config.eval.update(evaluation)
    config = experiment_config(values_of(config)).eval
    evaluators = [SimpleNamespace(writes=name == 'ruler') for name in config.run]
    check_together(Processes(0, 1), config, evaluators)
    with pytest.raises(ConfigError, match=message):
        check_together(Processes(1, 2), config, evaluators)
