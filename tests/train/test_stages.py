"""Stages: which one runs when, what the model of each is, and what cannot be trained."""

import dataclasses

import numpy as np
import pytest
from ml_collections import ConfigDict

from configs import base
from lcx.attention import both, causal, same_segment, shifted_groups
from lcx.errors import ConfigError
from lcx.launch.experiment import experiment_config, stage_models, values_of
from lcx.train.config import (
    CheckpointConfig,
    LogConfig,
    LossConfig,
    OptimizerConfig,
    StageConfig,
    TrainConfig,
)
from lcx.types import Where


def config(*steps, batch=4, **optimizer):
    stages = tuple(StageConfig(steps=n, length=64 << i, batch=batch) for i, n in enumerate(steps))
    return TrainConfig(0, stages, LossConfig(), OptimizerConfig(**optimizer), CheckpointConfig(), LogConfig())


def test_steps_belong_to_stages_in_turn():
    three = config(2, 1, 3)
    assert three.steps == 6
    assert [three.start_of(i) for i in range(4)] == [0, 2, 3, 6]
    assert [three.stage_at(step) for step in range(8)] == [0, 0, 1, 2, 2, 2, 3, 3]


@pytest.mark.parametrize(
    ('make', 'message'),
    [
        (lambda: config(), 'stages: () has nothing to train; give at least one stage.'),
        (lambda: config(0), 'steps: 0 must be greater than 0.'),
        (
            lambda: config(1, 1, batch=6, accumulate=4),
            'stages[0].batch: 6 is not a multiple of optimizer.accumulate=4; the nearest that is: 8.',
        ),
        (lambda: config(1, accumulate=0), 'accumulate: 0 must be greater than 0.'),
        (lambda: config(1, clip=0.0), 'clip: 0.0 must be greater than 0.'),
        (lambda: config(1, beta2=1.0), 'beta2: 1.0 must be at least 0 and below 1.'),
        (lambda: config(1, warmup=1.1), 'warmup: 1.1 must lie between 0 and 1.'),
        (lambda: config(1, weight_decay=-0.1), 'weight_decay: -0.1 must not be negative.'),
        (
            lambda: config(1, schedule='wsd', warmup=0.5, decay=0.6),
            'decay: 0.6 and warmup 0.5 together exceed the whole stage.',
        ),
        (
            lambda: config(1, schedule='linear'),
            "schedule: unknown 'linear'. Choices: constant, cosine, wsd.",
        ),
        (lambda: LossConfig(z_loss=-1.0), 'z_loss: -1.0 must not be negative.'),
        (lambda: LossConfig(chunk=0), 'chunk: 0 must be greater than 0.'),
        (lambda: StageConfig(steps=1, length=8, batch=1, learning_rate=0.0), 'learning_rate: 0.0 must be'),
        (lambda: CheckpointConfig(keep=0), 'keep: 0 must be greater than 0.'),
        (lambda: LogConfig(every=-1), 'every: -1 must be greater than 0.'),
    ],
)
def test_what_cannot_be_trained_is_said(make, message):
    with pytest.raises(ConfigError) as error:
        make()
    assert message in str(error.value)


def test_decay_counts_for_the_schedule_that_reads_it_alone():
    config(1, schedule='cosine', warmup=0.9, decay=0.9)


def experiment(*stages, **position):
    values = base.get_config()
    values.stages = stages
    values.model.position = base.position(**position)
    return experiment_config(values_of(values))


def test_a_stage_keeps_the_factor_that_it_trains_with():
    """YaRN from 128 to 512 is tuned at factor 4, and what follows extends the 512."""
    longer = base.stage(1, 512, 4, position=ConfigDict({'name': 'yarn'}))
    here = experiment(base.stage(1, 128, 4), longer, base.stage(1, 512, 2))
    short, extended, same = stage_models(here, here.model)
    assert short == here.model and dict(short.position) == {'name': 'rope'}
    assert dict(extended.position) == {'name': 'yarn', 'original_length': 128, 'factor': 4.0}
    assert extended.trained_length == 512
    assert same == extended


def test_fields_of_a_stage_that_differ_leave_the_others_of_the_same_method():
    higher = base.stage(1, 256, 4, position=ConfigDict({'theta': 5e4}))
    here = experiment(base.stage(1, 128, 4), higher, name='rope', theta=1e4, interleaved=True)
    first, second = stage_models(here, here.model)
    assert dict(first.position) == {'name': 'rope', 'theta': 1e4, 'interleaved': True}
    assert dict(second.position) == {'name': 'rope', 'theta': 5e4, 'interleaved': True}


def test_the_first_stage_extends_the_parameters_it_starts_from():
    """Parameters trained at 128 that go on at 512 with PI are interpolated by 4 from the first step."""
    here = experiment(base.stage(1, 512, 4), name='pi')
    (model,) = stage_models(here, dataclasses.replace(here.model, trained_length=128))
    assert model.position['factor'] == 4.0 and model.trained_length == 512


def test_an_error_of_a_stage_names_the_stage():
    wrong = base.stage(1, 256, 4, position=ConfigDict({'name': 'pi', 'beta_fast': 2.0}))
    here = experiment(base.stage(1, 128, 4), wrong)
    with pytest.raises(ConfigError, match=r"stages\[1\].position.beta_fast \(of 'pi'\): unknown 'beta_fast'"):
        stage_models(here, here.model)


GROUPS = {'full': ({'name': 'shifted_groups', 'size': 32},)}


def test_rules_of_a_stage_hold_while_it_trains_and_for_no_model_that_is_evaluated():
    here = experiment(base.stage(1, 128, 4, rules=GROUPS), base.stage(1, 256, 4))
    models = stage_models(here, here.model)
    assert [m.kinds['full'].rule for m in models] == [here.model.kinds['full'].rule] * 2
    first, second = (s.training(m) for s, m in zip(here.stages, models))
    expected = both(both(causal, shifted_groups(32)), same_segment)
    where = Where.plain(1, 128, 128, heads=2)
    np.testing.assert_array_equal(first.kinds['full'].read_rule().allow(where), expected.allow(where))
    assert dataclasses.replace(first, kinds=models[0].kinds) == models[0]  # and nothing else differs
    assert second == models[1]


@pytest.mark.parametrize(
    ('rules', 'message'),
    [
        ({'ful': GROUPS['full']}, r"stages\[1\].rules: unknown 'ful'. Did you mean 'full'?"),
        ({'full': GROUPS['full'][0]}, r'stages\[1\].rules.full: .* expected a tuple'),
        (
            {'full': ({'name': 'shifted_groups', 'size': 31},)},
            r'stages\[1\].rules.full: rule\[1\].size: 31 must be even',
        ),
    ],
)
def test_an_error_of_a_stages_rules_names_the_stage(rules, message):
    with pytest.raises(ConfigError, match=message):
        here = experiment(base.stage(1, 128, 4), base.stage(1, 256, 4, rules=rules))
        stage_models(here, here.model)
