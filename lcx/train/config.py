"""What training is: stages, loss, optimizer, checkpoints, as frozen dataclasses."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from lcx import config
from lcx.config import Options
from lcx.errors import ConfigError, unknown
from lcx.models import ModelConfig
from lcx.train.optimizer import OPTIMIZERS
from lcx.train.schedule import SCHEDULES
from lcx.train.tune import TUNINGS, Tuning


@dataclasses.dataclass(frozen=True)
class StageConfig:
    """Steps at one length, batch and position method; compiled once."""

    steps: int
    length: int  # T
    batch: int  # B, global
    learning_rate: float | None = None
    position: Options = Options()
    rules: Mapping[str, tuple[Options, ...]] | None = None  # by layer kind

    def __post_init__(self) -> None:
        config.positive(self, 'steps', 'length', 'batch', 'learning_rate')
        config.freeze_fields(self)

    def training(self, model: ModelConfig) -> ModelConfig:
        """``model`` while this stage trains it: ``rules`` must allow too. Evaluation keeps ``model`` itself."""
        kinds = dict(model.kinds)
        for name, rule in (self.rules or {}).items():
            if name not in kinds:
                raise ConfigError(unknown('rules', name, kinds))
            try:
                kinds[name] = dataclasses.replace(kinds[name], rule=(*kinds[name].rule, *rule))
            except ConfigError as error:
                raise ConfigError(f'rules.{name}: {error}') from None
        return dataclasses.replace(model, kinds=Options(kinds))


@dataclasses.dataclass(frozen=True)
class LossConfig:
    z_loss: float = 0.0
    chunk: int = 1024

    def __post_init__(self) -> None:
        config.positive(self, 'chunk')
        if self.z_loss < 0:
            raise ConfigError(f'z_loss: {self.z_loss} must not be negative.')


@dataclasses.dataclass(frozen=True)
class OptimizerConfig:
    name: str = 'adamw'
    learning_rate: float = 3e-3
    beta1: float = 0.9
    beta2: float = 0.95
    weight_decay: float = 0.1
    clip: float = 1.0
    schedule: str = 'cosine'
    warmup: float = 0.05
    decay: float = 0.2
    final: float = 0.1
    accumulate: int = 1
    offload: bool = False  # whether the state lies on the host between steps

    def __post_init__(self) -> None:
        config.positive(self, 'learning_rate', 'clip', 'accumulate')
        for name, choices in (('name', OPTIMIZERS), ('schedule', SCHEDULES)):
            if getattr(self, name) not in choices:
                raise ConfigError(unknown(name, getattr(self, name), choices))
        for name in ('beta1', 'beta2'):
            if not 0 <= getattr(self, name) < 1:
                raise ConfigError(f'{name}: {getattr(self, name)} must be at least 0 and below 1.')
        for name in ('warmup', 'decay', 'final'):
            if not 0 <= getattr(self, name) <= 1:
                raise ConfigError(f'{name}: {getattr(self, name)} must lie between 0 and 1.')
        if self.schedule == 'wsd' and self.warmup + self.decay > 1:
            raise ConfigError(
                f'decay: {self.decay} and warmup {self.warmup} together exceed the whole stage.'
            )
        if self.weight_decay < 0:
            raise ConfigError(f'weight_decay: {self.weight_decay} must not be negative.')


@dataclasses.dataclass(frozen=True)
class CheckpointConfig:
    every: int = 500
    keep: int = 2

    def __post_init__(self) -> None:
        config.positive(self, 'every', 'keep')


@dataclasses.dataclass(frozen=True)
class LogConfig:
    every: int = 50
    tensorboard: bool = True

    def __post_init__(self) -> None:
        config.positive(self, 'every')


@dataclasses.dataclass(frozen=True)
class TrainConfig:
    """Everything the loop reads."""

    seed: int
    stages: tuple[StageConfig, ...]
    loss: LossConfig
    optimizer: OptimizerConfig
    checkpoint: CheckpointConfig
    log: LogConfig
    tune: Options = Options(name='full')
    pipeline: Options = Options()  # empty: the layers do not lie on stages

    def __post_init__(self) -> None:
        if not self.stages:
            raise ConfigError('stages: () has nothing to train; give at least one stage.')
        for i, stage in enumerate(self.stages):
            if stage.batch % self.optimizer.accumulate:
                near = max(1, round(stage.batch / self.optimizer.accumulate)) * self.optimizer.accumulate
                raise ConfigError(
                    f'stages[{i}].batch: {stage.batch} is not a multiple of optimizer.accumulate='
                    f'{self.optimizer.accumulate}; the nearest that is: {near}.'
                )
        _ = self.tuning

    @property
    def tuning(self) -> Tuning:
        """What of the model trains."""
        return config.make(TUNINGS, self.tune, 'tune')

    def training(self, number: int, model: ModelConfig) -> ModelConfig:
        """``model`` while that stage trains it."""
        return dataclasses.replace(self.stages[number].training(model), pipeline=self.pipeline)

    @property
    def steps(self) -> int:
        """Steps of all stages together."""
        return sum(stage.steps for stage in self.stages)

    def stage_at(self, step: int) -> int:
        """The number of the stage that runs the step after ``step`` finished ones; len(stages) when all are done."""
        for i, stage in enumerate(self.stages):
            if step < stage.steps:
                return i
            step -= stage.steps
        return len(self.stages)

    def start_of(self, stage: int) -> int:
        """Steps before the stage."""
        return sum(s.steps for s in self.stages[:stage])
