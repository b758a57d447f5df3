"""The training loop: stages of steps, with logging, checkpoints, evaluation, and a clean end for every reason to stop.

The loop never waits for the device except to read what is already there: the metrics of a step are looked at after
the next one has been started.
"""

from __future__ import annotations

import functools
import hashlib
import json
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from lcx import config as configuration
from lcx.data.pipeline import BatchIterator
from lcx.errors import NonFiniteError, Preempted
from lcx.models import ModelConfig
from lcx.train import state as states
from lcx.train.checkpoint import Checkpoints
from lcx.train.config import TrainConfig
from lcx.train.loss import loss_sums
from lcx.train.metrics import Metrics
from lcx.train.optimizer import optimizer
from lcx.train.progress import Progress, Rates
from lcx.train.schedule import schedule
from lcx.train.state import TrainState
from lcx.train.step import train_step
from lcx.types import Batch, Tree


class Experiment(NamedTuple):
    """What the loop needs from outside."""

    config: TrainConfig
    models: tuple[ModelConfig, ...]  # one per stage
    params: Tree  # to start from, when there is no checkpoint
    batches: Callable[[int], BatchIterator]  # stage number -> its global batches
    evaluate: Callable[[Tree, ModelConfig, int], None]  # (params, model, step): writes its own results
    evaluate_every: int | None
    metadata: dict[str, Any]  # kept in every checkpoint


def train(experiment: Experiment, workdir: Path) -> TrainState:
    """Runs what is left of the experiment in ``workdir`` and evaluates at the end.

    Raises Preempted after SIGTERM (state saved), NonFiniteError (parameters as before the bad step).
    """
    config = experiment.config
    with (
        Checkpoints(workdir / 'checkpoints', keep=config.checkpoint.keep) as checkpoints,
        StopSignal() as stop,
    ):
        state, extra = restore_or_create(experiment, checkpoints)
        with (
            Metrics(workdir, tensorboard=config.log.tensorboard, after=int(state.step)) as metrics,
            Progress(config.steps, int(state.step)) as progress,
        ):
            for stage in range(config.stage_at(int(state.step)), len(config.stages)):
                loop = StageLoop(experiment, stage, checkpoints, metrics, progress, stop, workdir)
                state = loop.run(state, extra)
                extra = None
        checkpoints.wait()
        experiment.evaluate(state.params, experiment.models[-1], config.steps)
    return state


def restore_or_create(experiment: Experiment, checkpoints: Checkpoints) -> tuple[TrainState, dict | None]:
    """The newest checkpoint's state and its JSON, or a fresh state and None."""
    config = experiment.config
    fresh = states.create(experiment.params, _optimizer(config, 0), jax.random.key(config.seed))
    if checkpoints.latest() is None:
        return fresh, None
    state, extra, _ = checkpoints.restore(states.abstract(fresh))
    return state, extra


def _optimizer(config: TrainConfig, stage: int) -> Any:
    """``stage``'s optimizer; its state carries over from stage to stage."""
    opt = config.optimizer
    return optimizer(
        opt.name,
        _rate(config, stage),
        beta1=opt.beta1,
        beta2=opt.beta2,
        weight_decay=opt.weight_decay,
        clip=opt.clip,
    )


def _rate(config: TrainConfig, stage: int) -> Callable:
    opt, here = config.optimizer, config.stages[stage]
    return schedule(
        opt.schedule,
        peak=opt.learning_rate if here.learning_rate is None else here.learning_rate,
        steps=here.steps,
        start=config.start_of(stage),
        warmup=opt.warmup,
        decay=opt.decay,
        final=opt.final,
    )


class StageLoop:
    """One stage: one model, one shape, one compilation."""

    def __init__(
        self,
        experiment: Experiment,
        stage: int,
        checkpoints: Checkpoints,
        metrics: Metrics,
        progress: Progress,
        stop: StopSignal,
        workdir: Path,
    ) -> None:
        self.experiment, self.stage, self.workdir = experiment, stage, workdir
        self.checkpoints, self.metrics, self.progress, self.stop = checkpoints, metrics, progress, stop
        self.config, self.model = experiment.config, experiment.models[stage]
        here = self.config.stages[stage]
        self.end = self.config.start_of(stage) + here.steps
        self.rate = _rate(self.config, stage)
        self.flops = self.model.flops(here.length)
        sums = functools.partial(
            loss_sums, self.model, z_loss=self.config.loss.z_loss, chunk=self.config.loss.chunk
        )
        self.step = jax.jit(
            functools.partial(
                train_step,
                loss_sums=sums,
                optimizer=_optimizer(self.config, stage),
                accumulate=self.config.optimizer.accumulate,
            ),
            donate_argnums=0,
        )

    def run(self, state: TrainState, extra: dict | None) -> TrainState:
        """The stage's remaining steps; ``extra`` is the JSON of the checkpoint that ``state`` came from, if any."""
        batches = self.experiment.batches(self.stage)
        step = int(state.step)
        if extra is not None and extra['stage'] == self.stage:
            batches.set_state(extra['data'])
        rates = Rates(self.flops)
        pending: tuple[int, Batch, dict] | None = None
        self.progress.stage(self.stage, len(self.config.stages), self.config.stages[self.stage].length)
        while step < self.end:
            batch = next(batches)
            state, metrics = self.step(state, batch)
            step += 1
            if pending is not None:
                self.look(*pending, state)
                rates.add(pending[2])
                if pending[0] % self.config.log.every == 0:
                    self.log(pending[0], rates)
            pending = (step, batch, metrics)
            last = step == self.end
            if last or self.stop.asked or step % self.config.checkpoint.every == 0:
                self.look(*pending, state)  # a checkpoint is only ever taken of a state known to be finite
                self.save(state, step, batches)
            if self.stop.asked:
                self.checkpoints.wait()
                raise Preempted(f'stopped at step {step} of {self.config.steps}; the same command continues.')
            every = self.experiment.evaluate_every
            if every and step % every == 0 and step < self.config.steps:
                self.experiment.evaluate(state.params, self.model, step)
        if pending is not None:
            rates.add(pending[2])
            self.log(step, rates)
        return state

    def save(self, state: TrainState, step: int, batches: BatchIterator) -> None:
        stage = self.stage
        extra = {
            **self.experiment.metadata,
            'stage': stage,
            'data': batches.get_state(),
            'model': configuration.plain(self.model),
        }
        self.checkpoints.save(step, state, extra)

    def log(self, step: int, rates: Rates) -> None:
        row = {'stage': self.stage, 'learning_rate': float(self.rate(step - 1)), **rates.take()}
        self.metrics.write(step, row)
        self.progress.update(step, row)

    def look(self, step: int, batch: Batch, metrics: dict, state: TrainState) -> None:
        """Raises NonFiniteError, with everything needed to find the cause, if the step was bad."""
        if bool(metrics['finite']):
            return
        blob = b''.join(np.ascontiguousarray(x).tobytes() for x in batch)
        report = {
            'step': step,
            'stage': self.stage,
            'loss': str(metrics['loss']),
            'grad_norm': str(metrics['grad_norm']),
            'batch_ids': np.asarray(batch.ids).tolist(),
            'batch_sha256': hashlib.sha256(blob).hexdigest(),
            'parameter_norms': {
                jax.tree_util.keystr(path, simple=True, separator='.'): float(np.linalg.norm(np.asarray(x)))
                for path, x in jax.tree_util.tree_flatten_with_path(state.params)[0]
            },
        }
        path = self.workdir / 'nonfinite.json'
        path.write_text(json.dumps(report, indent=1))
        raise NonFiniteError(
            f'step {step}: loss {report["loss"]}, gradient norm {report["grad_norm"]} on the windows '
            f'{report["batch_ids"]}. Parameters are those before the step; details are in {path}.'
        )


class StopSignal:
    """Turns the first SIGTERM into a flag; the second ends the process at once."""

    def __init__(self) -> None:
        self.asked = False

    def __enter__(self) -> StopSignal:
        self._previous = signal.signal(signal.SIGTERM, self._handle)
        return self

    def __exit__(self, *_: object) -> None:
        signal.signal(signal.SIGTERM, self._previous)

    def _handle(self, *_: object) -> None:
        if self.asked:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            signal.raise_signal(signal.SIGTERM)
        self.asked = True
