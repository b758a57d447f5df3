"""The loop: whatever stops a run, going on gives what would have been without, and no bad step is ever kept."""

import errno
import functools
import json
import os
import signal

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lcx.config import Options
from lcx.data.pipeline import batches
from lcx.data.tokens import Tokens
from lcx.errors import DataError, NonFiniteError, Preempted, StorageError
from lcx.models import ModelConfig, init
from lcx.models.config import LayerKind
from lcx.parallel import MeshConfig, mesh
from lcx.parallel.placement import Placement
from lcx.parallel.processes import Vote
from lcx.train import archive
from lcx.train import loop as loops
from lcx.train.config import (
    CheckpointConfig,
    LogConfig,
    LossConfig,
    OptimizerConfig,
    StageConfig,
    TrainConfig,
)
from lcx.train.loop import Experiment, train
from lcx.train.metrics import Metrics
from tests.running import digest, rows, steps

MODEL = ModelConfig(
    vocab=17, width=8, layers=1, heads=1, kv_heads=1, head_dim=8, hidden=8, trained_length=8,
    kinds=Options({'full': LayerKind(attention=Options(name='dense'))}),
)  # fmt: skip
STAGES = (StageConfig(steps=3, length=8, batch=2), StageConfig(steps=4, length=16, batch=2))
LAST = 7


def tokens(seed=0):
    random, sizes = np.random.default_rng(seed), np.array([50, 71, 130])
    stream = random.integers(0, MODEL.vocab, sizes.sum()).astype(np.uint16)
    return Tokens(stream, np.concatenate([[0], np.cumsum(sizes)]), len(stream), f'data {seed}', 'noise')


def stage_batches(stage, seed=0):
    here = STAGES[stage]
    return batches(tokens(seed), length=here.length, batch=here.batch, seed=stage, packing='concat')


class Wrapped:
    """The batches of a stage; ``change(number, batch)`` is called for each and returns the batch to use."""

    def __init__(self, stage, change):
        self.batches, self.change, self.number = stage_batches(stage), change, 0
        self.get_state, self.set_state = self.batches.get_state, self.batches.set_state

    def __next__(self):
        self.number += 1
        return self.change(self.number, next(self.batches))


def interrupted_at(step):
    """Batches of both stages; with that of ``step`` this process gets SIGTERM."""

    def change(start, number, batch):
        if start + number == step:
            signal.raise_signal(signal.SIGTERM)
        return batch

    return lambda stage: Wrapped(stage, functools.partial(change, 3 * stage))


def poisoned_at(step):
    """Batches of both stages; the weights of ``step`` are not numbers, and so is its loss."""

    def change(start, number, batch):
        return batch._replace(weights=batch.weights * np.nan) if start + number == step else batch

    return lambda stage: Wrapped(stage, functools.partial(change, 3 * stage))


def experiment(evaluate=lambda *_: None, *, checkpoint=100, keep=9, log=1, evaluate_every=None, **changes):
    random = np.random.default_rng(0)
    shapes = jax.eval_shape(lambda: init(MODEL, jax.random.key(0)))
    params = jax.tree.map(lambda x: jnp.asarray(0.1 * random.normal(size=x.shape), x.dtype), shapes)
    config = TrainConfig(
        0, STAGES, LossConfig(), OptimizerConfig(), CheckpointConfig(checkpoint, keep), LogConfig(log, False)
    )
    return Experiment(
        config=config, models=(MODEL, MODEL.trained_at(16)), params=lambda where: jax.tree.map(jnp.copy, params),
        placement=Placement(mesh.make(MeshConfig(), jax.devices())), batches=stage_batches,
        evaluate=evaluate, evaluate_every=evaluate_every, metadata={'data_fingerprint': 'data 0'},
    )._replace(**changes)  # fmt: skip


@pytest.fixture(scope='module')
def unbroken(tmp_path_factory):
    """A workdir of the whole run, a checkpoint and a row for every step."""
    workdir = tmp_path_factory.mktemp('unbroken')
    state = train(experiment(checkpoint=1), workdir)
    assert state.step == LAST and state.finite
    return workdir


def continues_as(unbroken, workdir):
    """Finishes the run in ``workdir``: it ends where the unbroken one did, and has its rows, each once."""
    train(experiment(), workdir)
    assert digest(workdir, LAST) == digest(unbroken, LAST)
    timeless = ('step', 'stage', 'loss', 'learning_rate', 'grad_norm')
    once, whole = ([[r[k] for k in timeless] for r in rows(w / 'metrics.jsonl')] for w in (workdir, unbroken))
    assert once == whole


def test_rows_say_what_each_step_was(unbroken):
    found = rows(unbroken / 'metrics.jsonl')
    assert [r['step'] for r in found] == [1, 2, 3, 4, 5, 6, 7]
    assert [r['stage'] for r in found] == [0, 0, 0, 1, 1, 1, 1]
    half = 3e-3 * (0.1 + 0.9 * 0.5)  # cosine without warm-up; 5 % of 3 and of 4 steps round to none
    np.testing.assert_allclose([found[0]['learning_rate'], found[3]['learning_rate']], 3e-3, rtol=1e-6)
    np.testing.assert_allclose(found[5]['learning_rate'], half, rtol=1e-6)
    assert all(r['tokens_per_second'] > 0 and np.isfinite(r['loss']) for r in found)


@pytest.mark.parametrize('step', [1, 3, 6, 7])
def test_sigterm_saves_the_current_step_and_the_run_goes_on(unbroken, tmp_path, step):
    """Inside either stage, where one ends and at the very end."""
    previous = signal.getsignal(signal.SIGTERM)
    with pytest.raises(Preempted, match='the same command continues'):
        train(experiment(batches=interrupted_at(step)), tmp_path)
    assert signal.getsignal(signal.SIGTERM) is previous
    assert steps(tmp_path)[-1] == step and digest(tmp_path, step) == digest(unbroken, step)
    assert [r['step'] for r in rows(tmp_path / 'metrics.jsonl')] == list(range(1, step + 1))
    continues_as(unbroken, tmp_path)


def test_sigterm_between_two_looks_at_it_loses_no_step(unbroken, tmp_path, monkeypatch):
    """It arrives while a row is written, after the loop has looked for it and before it looks again."""

    class Signalling(Metrics):
        def write(self, step, row):
            super().write(step, row)
            if step == 2:
                signal.raise_signal(signal.SIGTERM)

    monkeypatch.setattr(loops, 'Metrics', Signalling)
    with pytest.raises(Preempted):
        train(experiment(checkpoint=2), tmp_path)
    monkeypatch.undo()
    written = [r['step'] for r in rows(tmp_path / 'metrics.jsonl')]
    assert steps(tmp_path)[-1] == written[-1] == 3
    continues_as(unbroken, tmp_path)


def test_evaluations_have_the_parameters_of_their_step_and_the_model_of_its_stage(unbroken, tmp_path):
    seen = []
    train(experiment(lambda params, model, step: seen.append((step, model.trained_length))), tmp_path / 'end')
    assert seen == [(7, 16)]
    seen.clear()
    train(
        experiment(lambda _, model, step: seen.append((step, model.trained_length)), evaluate_every=2),
        tmp_path / 'often',
    )
    assert seen == [(2, 8), (4, 16), (6, 16), (7, 16)]
    assert steps(tmp_path / 'often') == [2, 3, 4, 6, 7]  # before each one, and at the end of stages


def test_an_evaluation_that_sigterm_cuts_short_is_repeated(unbroken, tmp_path):
    seen = []

    def evaluate(params, model, step):
        seen.append(step)
        if len(seen) in (1, 3):
            signal.raise_signal(signal.SIGTERM)
            raise AssertionError('it went on')

    for _ in range(2):
        with pytest.raises(Preempted):
            train(experiment(evaluate, evaluate_every=4), tmp_path)
    continues_as(unbroken, tmp_path)
    assert seen == [4, 4, 7]


def test_a_run_that_is_done_is_only_evaluated_again(unbroken):
    before, seen = digest(unbroken, LAST), []
    state = train(experiment(lambda params, model, step: seen.append(step)), unbroken)
    assert state.step == LAST and seen == [LAST]
    assert digest(unbroken, LAST) == before and len(rows(unbroken / 'metrics.jsonl')) == LAST


@pytest.mark.parametrize('bad', [1, 3, 5])
def test_a_loss_that_is_not_a_number_ends_the_run_with_nothing_of_it_kept(unbroken, tmp_path, bad):
    """Steps 1 to 3 are of the first stage; a checkpoint of every step is asked for."""
    stage, number = (0, bad) if bad <= 3 else (1, bad - 3)
    source = stage_batches(stage)
    batch = [next(source) for _ in range(number)][-1]
    with pytest.raises(NonFiniteError, match=f'^step {bad}: loss nan') as error:
        train(experiment(checkpoint=1, batches=poisoned_at(bad)), tmp_path)
    report = json.loads((tmp_path / 'nonfinite.json').read_text())
    assert report['step'] == bad and report['stage'] == stage and report['loss'] == 'nan'
    assert report['batch_ids'] == batch.ids.tolist() and str(batch.ids.tolist()) in str(error.value)
    assert steps(tmp_path) == list(range(1, bad))
    assert [r['step'] for r in rows(tmp_path / 'metrics.jsonl')] == list(range(1, bad))
    before = experiment().params(None)
    if bad > 1:
        assert digest(tmp_path, bad - 1) == digest(unbroken, bad - 1)
        checkpoint = loops.Checkpoints(tmp_path / 'checkpoints', keep=None)
        before, *_ = checkpoint.restore(before, bad - 1, part='params')
    norms = {jax.tree_util.keystr(path, simple=True, separator='.'): np.linalg.norm(np.float64(x))
             for path, x in jax.tree_util.tree_flatten_with_path(before)[0]}  # fmt: skip
    assert report['parameter_norms'] == norms


def test_other_data_is_refused_even_between_stages(unbroken, tmp_path):
    with pytest.raises(Preempted):
        train(experiment(batches=interrupted_at(3)), tmp_path)
    assert steps(tmp_path) == [3]
    with pytest.raises(DataError, match=r"data_fingerprint: 'data 1' now, but 'data 0' in checkpoint 3"):
        train(experiment(metadata={'data_fingerprint': 'data 1'}), tmp_path)


def test_a_save_that_fails_in_the_background_ends_the_run_without_waiting_for_the_next(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, 'No space left on device')

    long = TrainConfig(
        0, (StageConfig(steps=3000, length=8, batch=2),), LossConfig(), OptimizerConfig(),
        CheckpointConfig(every=2000, keep=1), LogConfig(every=1, tensorboard=False),
    )  # fmt: skip
    monkeypatch.setattr(archive, 'write', full)
    with pytest.raises(StorageError, match=r'checkpoint not written.*No space left'):
        train(experiment(config=long, evaluate_every=2), tmp_path)
    assert rows(tmp_path / 'metrics.jsonl')[-1]['step'] < 1000


@pytest.mark.filterwarnings('ignore:os.fork')
def test_a_second_sigterm_ends_the_process_by_the_signal():
    child = os.fork()
    if child == 0:
        with loops.StopSignal(Vote(mesh.make(MeshConfig(), jax.devices()))) as stop:
            signal.raise_signal(signal.SIGTERM)
            if stop.asked:
                signal.raise_signal(signal.SIGTERM)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGTERM
