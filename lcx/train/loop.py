"""The training loop: stages of steps, with logging, checkpoints, evaluation, and a clean end for every reason to stop.

The device always has a step to work on: the metrics of a step are read after the next one has been started. Only
before a checkpoint does the loop wait for the newest step, because only a state known to be good is saved, and only
after its row is written: a run that is killed and continued has every row once.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from lcx import config as configuration
from lcx.data.pipeline import BatchIterator
from lcx.errors import DataError, NonFiniteError, Preempted
from lcx.models import ModelConfig, boxed
from lcx.parallel import processes, rules
from lcx.parallel.placement import Placement
from lcx.train import state as states
from lcx.train.checkpoint import Checkpoints
from lcx.train.config import TrainConfig
from lcx.train.loss import loss_sums
from lcx.train.metrics import Metrics, write_atomic
from lcx.train.optimizer import optimizer
from lcx.train.progress import Progress, Rates
from lcx.train.schedule import schedule
from lcx.train.state import TrainState
from lcx.train.step import train_step
from lcx.train.tune import abstract_params, flops, shardings
from lcx.types import Batch, Tree

TUNING = 2**32 - 1  # folded into the key of the run, as steps are, for what tuning adds to the parameters


class Experiment(NamedTuple):
    """What the loop needs from outside."""

    config: TrainConfig
    models: tuple[ModelConfig, ...]  # one per stage
    placement: Placement  # the devices
    params: Callable[[Tree], Tree]  # the model's, to start from without a checkpoint; given where each lies
    batches: Callable[[int], BatchIterator]  # stage number -> its global batches
    evaluate: Callable[
        [Tree, ModelConfig, int], None
    ]  # (the model's params, model, step): writes its results
    evaluate_every: int | None
    metadata: dict[
        str, Any
    ]  # of what it starts from: kept in every checkpoint, and a run only goes on with the same


def train(experiment: Experiment, workdir: Path) -> TrainState:
    """Runs what is left of the experiment in ``workdir`` and evaluates at the end; returns the final state.

    Checkpoints are taken every ``config.checkpoint.every`` steps, before every evaluation and at the end of stages.
    An evaluation that was cut short is repeated when the run goes on, and so is the one at the end.

    Several processes call it together, and all stop at the same step whichever of them is asked to. The first one
    writes the rows.

    Raises:
        Preempted: SIGTERM came, to this or another process; the state is saved.
        NonFiniteError: a loss or gradient was not finite; the step is not taken, and no checkpoint holds it.
        DataError: a checkpoint was made with other ``metadata``.
        StorageError: a checkpoint or a row cannot be written, or no checkpoint is intact.
    """
    config, evaluate = experiment.config, experiment.evaluate
    merged = config.tuning.merged
    experiment = experiment._replace(evaluate=lambda params, *rest: evaluate(merged(params), *rest))
    first = processes.current().first
    with (
        Checkpoints(workdir / 'checkpoints', keep=config.checkpoint.keep) as checkpoints,
        StopSignal(processes.Vote(experiment.placement.mesh)) as stop,
    ):
        state, extra = restore_or_create(experiment, checkpoints)
        step = int(state.step)
        if extra is not None and evaluates_after(experiment, step):
            with stop.at_once():
                experiment.evaluate(state.params, experiment.models[extra['stage']], step)
        with (
            Metrics(workdir, tensorboard=config.log.tensorboard, after=step, writes=first) as metrics,
            Progress(config.steps, step, shown=first) as progress,
        ):
            for stage in range(config.stage_at(step), len(config.stages)):
                loop = StageLoop(experiment, stage, checkpoints, metrics, progress, stop, workdir)
                state = loop.run(state, extra)
                extra = None
        checkpoints.wait()
        with stop.at_once():
            experiment.evaluate(state.params, experiment.models[-1], config.steps)
    return state


def restore_or_create(experiment: Experiment, checkpoints: Checkpoints) -> tuple[TrainState, dict | None]:
    """The newest checkpoint's state and its JSON, or a fresh state and None."""
    config, model = experiment.config, experiment.models[0]
    key, tuning, mesh = jax.random.key(config.seed), config.tuning, experiment.placement.mesh

    def create(params: Tree) -> TrainState:
        return states.create(params, _optimizer(config, 0), key, tuning.trains)

    abstract = jax.eval_shape(create, abstract_params(tuning, model))
    where = shardings(tuning, model, mesh)
    offload = config.optimizer.offload
    places = states.shardings(abstract, where, _optimizer(config, 0), tuning.trains, offload)
    if checkpoints.latest() is None:
        params = experiment.params(rules.shardings(boxed(model), mesh))
        params = jax.device_put(tuning.prepare(model, params, jax.random.fold_in(key, TUNING)), where)
        return jax.jit(create, out_shardings=places, donate_argnums=0)(params), None
    state, extra, step = checkpoints.restore(rules.placed(abstract, places))
    for name, value in experiment.metadata.items():
        if extra.get(name) != value:
            raise DataError(
                f'{name}: {value!r} now, but {extra.get(name)!r} in checkpoint {step}: the data changed since. '
                'Restore it, or give another --workdir.'
            )
    return state, extra


def evaluates_after(experiment: Experiment, step: int) -> bool:
    """Whether there is an evaluation between ``step`` and the next one."""
    every = experiment.evaluate_every
    return every is not None and 0 < step < experiment.config.steps and step % every == 0


def rows_here(placement: Placement, batch: int) -> np.ndarray | None:
    """The rows of a global batch that this process reads; None: all."""
    here = processes.current()
    return None if here.count == 1 else processes.rows_of_process(placement.mesh, batch, here.index)


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
        self.placement = experiment.placement
        self.config, self.model = experiment.config, experiment.models[stage]
        here = self.config.stages[stage]
        self.rows = rows_here(self.placement, here.batch)
        self.start = self.config.start_of(stage)
        self.end = self.start + here.steps
        # As numbers for the log: computed when a row is written, they would queue behind the running step.
        self.learning_rates = np.asarray(_rate(self.config, stage)(jnp.arange(self.start, self.end)))
        tuning = self.config.tuning
        self.flops = flops(tuning, self.model, here.length)
        sums = functools.partial(
            loss_sums,
            self.config.training(stage, self.model),
            z_loss=self.config.loss.z_loss,
            chunk=self.config.loss.chunk,
            length=here.length,
            placement=self.placement,
        )
        step = functools.partial(
            train_step,
            loss_sums=tuning.wrap(sums),
            optimizer=_optimizer(self.config, stage),
            accumulate=self.config.optimizer.accumulate,
            trains=tuning.trains,
        )
        self.step = states.fetched(step) if self.config.optimizer.offload else step

    def run(self, state: TrainState, extra: dict | None) -> TrainState:
        """The stage's remaining steps; ``extra`` is the JSON of the checkpoint that ``state`` came from, if any."""
        batches = self.experiment.batches(self.stage)
        step, places = int(state.step), jax.tree.map(lambda x: x.sharding, state)
        program = jax.jit(self.step, donate_argnums=0, out_shardings=(places, None))
        if extra is not None and extra['stage'] == self.stage:
            batches.set_state(extra['data'])
        rates = Rates(self.flops)
        pending: tuple[int, Batch, dict] | None = None
        self.progress.stage(self.stage, len(self.config.stages), self.config.stages[self.stage].length)
        self.stop.check()  # all there is so far is saved, and the first step may compile for minutes
        while step < self.end:
            batch = next(batches)
            with jax.set_mesh(self.placement.mesh):
                put = self.placement.put(batch, self.rows, self.config.stages[self.stage].batch)
                state, metrics = program(state, put)
            step += 1
            if step == self.start + 1:
                rules.check_placed(state, places)
            self.checkpoints.poll()
            if pending is not None:
                self.finish(*pending, state, rates)
            pending = (step, batch, metrics)
            stopping, evaluating = self.stop.seen(), evaluates_after(self.experiment, step)
            if stopping or evaluating or step == self.end or step % self.config.checkpoint.every == 0:
                self.finish(*pending, state, rates)
                pending = None
                self.save(state, step, batches)
            if stopping:
                self.checkpoints.wait()
                self.stop.check()
            if evaluating:
                with self.stop.at_once():
                    self.experiment.evaluate(state.params, self.model, step)
        return state

    def finish(self, step: int, batch: Batch, metrics: dict, state: TrainState, rates: Rates) -> None:
        """Waits for a step, makes sure that it was good, and writes its row if one is due."""
        self.look(step, batch, metrics, state)
        rates.add(metrics)
        if step % self.config.log.every == 0 or step == self.end:
            rate = float(self.learning_rates[step - 1 - self.start])
            row = {'stage': self.stage, 'learning_rate': rate, **rates.take()}
            self.metrics.write(step, row)
            self.progress.update(step, row)

    def save(self, state: TrainState, step: int, batches: BatchIterator) -> None:
        """Starts a checkpoint of ``state`` and of the position in the data."""
        extra = {
            **self.experiment.metadata,
            'stage': self.stage,
            'data': batches.get_state(),
            'model': configuration.plain(self.model),
            'tune': configuration.plain(self.config.tune),
        }
        self.checkpoints.save(step, state, extra)

    def look(self, step: int, batch: Batch, metrics: dict, state: TrainState) -> None:
        """Raises NonFiniteError, with everything needed to find the cause, if the step was bad."""
        if bool(metrics['finite']):
            return
        ids, digest = self.of_batch(batch)
        report = {
            'step': step,
            'stage': self.stage,
            'loss': str(metrics['loss']),
            'grad_norm': str(metrics['grad_norm']),
            'batch_ids': ids,
            'batch_sha256': digest,
            'parameter_norms': {
                jax.tree_util.keystr(path, simple=True, separator='.'): float(
                    np.linalg.norm(np.asarray(processes.whole(x), np.float64))
                )
                for path, x in jax.tree_util.tree_flatten_with_path(state.params)[0]
            },
        }
        path = self.workdir / 'nonfinite.json'
        if processes.current().first:
            write_atomic(path, json.dumps(report, indent=1) + '\n')
        raise NonFiniteError(
            f'step {step}: loss {report["loss"]}, gradient norm {report["grad_norm"]} on the windows '
            f'{report["batch_ids"]}. The step was not taken and is in no checkpoint; details are in {path}. '
            'What helps is a new run with a lower optimizer.learning_rate or a longer optimizer.warmup.'
        )

    def of_batch(self, batch: Batch) -> tuple[list[int], str]:
        """The windows of a global batch, and a digest of it: of its bytes, or of the digests of several processes."""
        digest = hashlib.sha256(b''.join(np.ascontiguousarray(x).tobytes() for x in batch)).hexdigest()
        if self.rows is None:
            return np.asarray(batch.ids).tolist(), digest
        own = json.dumps([self.rows.tolist(), np.asarray(batch.ids).tolist(), digest])
        told = [json.loads(text) for text in processes.current().everyone('batch', own)]
        ids = {row: window for rows, windows, _ in told for row, window in zip(rows, windows)}
        digests = ''.join(digest for *_, digest in told)
        return [ids[row] for row in sorted(ids)], hashlib.sha256(digests.encode()).hexdigest()


class StopSignal:
    """While entered, turns the first SIGTERM into a flag to look at between steps; the second ends the process.

    Inside ``at_once``, where work goes on that can be repeated, the first one raises Preempted there and then. Of
    several processes, ``seen`` and ``check`` tell all alike, who call them together; what ``at_once`` raises in one of
    them ends that one, and whoever ends it tells the others.
    """

    def __init__(self, vote: processes.Vote) -> None:
        self.asked = False
        self._vote = vote
        self._at_once = False

    def seen(self) -> bool:
        """Whether SIGTERM came, in time for a checkpoint of this step."""
        return self._vote.lagged(self.asked)

    def check(self) -> None:
        """Raises Preempted if SIGTERM came."""
        if self._vote.now(self.asked):
            self._raise()

    def _raise(self) -> None:
        raise Preempted('stopped by SIGTERM; the state is saved, and the same command continues.')

    def _check_here(self) -> None:
        if self.asked:
            self._raise()

    @contextlib.contextmanager
    def at_once(self) -> Iterator[None]:
        self._at_once = True
        try:
            self._check_here()
            yield
            self._check_here()  # what is raised in a destructor or a callback of C++ is lost
        finally:
            self._at_once = False

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
        if self._at_once:
            self._check_here()
