"""From a ConfigDict to checked dataclasses: the edge at which configuration ends."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from ml_collections import ConfigDict

from lcx import config as configuration
from lcx.config import Options
from lcx.data.config import DataConfig
from lcx.data.tokenizers import make_tokenizer
from lcx.errors import ConfigError, unknown
from lcx.eval import EVALUATORS, EvalConfig
from lcx.generate import GenerateConfig
from lcx.generate.policies import Room, make_policy
from lcx.launch.distributed import DistributedConfig
from lcx.models import PRESETS, ModelConfig
from lcx.parallel import MeshConfig
from lcx.parallel.schedules import SCHEDULES
from lcx.positions.extension import keep_rotation
from lcx.train.config import (
    CheckpointConfig,
    LogConfig,
    LossConfig,
    OptimizerConfig,
    StageConfig,
    TrainConfig,
)


@dataclasses.dataclass(frozen=True)
class ExperimentConfig:
    """All of configs/base.py, checked. ``model`` is the model at the length of the first stage."""

    seed: int
    init_from: str | None
    data: DataConfig
    model: ModelConfig
    loss: LossConfig
    optimizer: OptimizerConfig
    tune: Options
    stages: tuple[StageConfig, ...]
    mesh: MeshConfig
    pipeline: Options
    distributed: DistributedConfig
    eval: EvalConfig
    cache: Options
    generate: GenerateConfig
    checkpoint: CheckpointConfig
    log: LogConfig
    label: str

    def __post_init__(self) -> None:
        if not 0 <= self.seed < 2**32:
            raise ConfigError(f'seed: {self.seed} must lie between 0 and 2**32 - 1.')
        for name in self.eval.run:
            if name not in EVALUATORS:
                raise ConfigError(unknown('eval.run', name, EVALUATORS))
        make_policy(self.cache, Room(prompt=1, new=1, chunk=1))  # checks its options
        _ = self.train  # checks the stages against the optimizer
        configuration.make(SCHEDULES, self.pipeline, 'pipeline')

    @property
    def train(self) -> TrainConfig:
        """What the training loop reads."""
        pipeline = self.pipeline if self.mesh.stage > 1 else Options()
        return TrainConfig(
            self.seed,
            self.stages,
            self.loss,
            self.optimizer,
            self.checkpoint,
            self.log,
            self.tune,
            pipeline,
        )


def values_of(config: ConfigDict) -> dict[str, Any]:
    """The ConfigDict as plain dicts, lists and numbers: what config.json holds."""

    def plain(value: Any) -> Any:
        if isinstance(value, (ConfigDict, Mapping)):
            return {k: plain(v) for k, v in value.items()}
        return [plain(v) for v in value] if isinstance(value, (list, tuple)) else value

    return plain(config)


def experiment_config(values: Mapping[str, Any]) -> ExperimentConfig:
    """Checks all fields. Raises ConfigError naming the first that cannot be."""
    values = dict(values)
    stages = values.get('stages')
    first = stages[0] if isinstance(stages, (list, tuple)) and stages else {}
    vocab = make_tokenizer(values.get('data', {}).get('tokenizer')).vocab
    trained_length = first.get('length', 1) if isinstance(first, Mapping) else 1
    values['model'] = model_values(values['model'], vocab, trained_length)
    return configuration.build(ExperimentConfig, values)


def model_values(values: Mapping[str, Any], vocab: int, trained_length: int) -> dict[str, Any]:
    """The fields of a ModelConfig: the preset's where the config says None, then the tokenizer's vocabulary."""
    values = {k: v for k, v in values.items() if v is not None}
    preset = values.pop('preset', None)
    if preset is not None and preset not in PRESETS:
        raise ConfigError(unknown('model.preset', preset, PRESETS))
    sizes = PRESETS.get(preset, {})
    merged = {**sizes, 'trained_length': trained_length, **values}
    merged.setdefault('vocab', vocab)
    merged['position'] = Options(values.get('position', {})).set()
    if 'position' in sizes:
        merged['position'] = keep_rotation(merged['position'], sizes['position'])
    if type(merged['vocab']) is int and merged['vocab'] < vocab:
        raise ConfigError(
            f'model.vocab: {merged["vocab"]}, but the tokenizer has {vocab} ids; '
            'data.tokenizer must be that of the model.'
        )
    return merged


def stage_models(config: ExperimentConfig, start: ModelConfig) -> tuple[ModelConfig, ...]:
    """The model of every stage: position methods keep the factor that each stage trains with.

    ``start`` is the model whose ``trained_length`` is that of the parameters at hand.
    """
    models, model = [], start
    for i, stage in enumerate(config.stages):
        changed = stage.position.set()
        if changed:
            same = changed.get('name', model.position['name']) == model.position['name']
            position = keep_rotation({**(model.position.set() if same else {}), **changed}, model.position)
            try:
                model = dataclasses.replace(model, position=position)
            except ConfigError as error:
                raise ConfigError(f'stages[{i}].{error}') from None
        model = model.trained_at(stage.length)
        try:
            stage.training(model)
        except ConfigError as error:
            raise ConfigError(f'stages[{i}].{error}') from None
        models.append(model)
    return tuple(models)
