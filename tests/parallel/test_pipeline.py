"""Schedules of a pipeline against their pictures, and what is refused. What it computes needs devices."""

import dataclasses
import functools
import re

import jax
import numpy as np
import pytest

from lcx.config import Options, make
from lcx.errors import ConfigError, UnsupportedError
from lcx.models import Decoder
from lcx.models.cache import Caches
from lcx.parallel import MeshConfig, mesh, schedules
from lcx.parallel.pipeline import check
from lcx.parallel.schedules import SCHEDULES, Schedule
from tests.models.tiny import CONFIG, changed, loss, parameters, random_batch


def picture(schedule: Schedule, stages: int) -> list[str]:
    """A line for each stage, as in the docstring."""
    slots = schedule.slot(np.arange(schedule.ticks(stages)), np.arange(stages)[:, None], stages)
    return [
        ' '.join(str(m) if live else '.' for m, live in zip(*row))
        for row in zip(slots.microbatch, slots.live)
    ]


def test_schedules_are_as_drawn():
    drawn = re.findall(r'stage \d {4}((?:[\d.] ?)+)', schedules.__doc__)
    lines = [line.strip() for line in drawn]
    assert lines == picture(Schedule(4, 1), 3) + picture(Schedule(4, 2), 3)
    assert picture(Schedule(2, 2), 3) == ['0 1 . 0 1 . .', '. 0 1 . 0 1 .', '. . 0 1 . 0 1']


@pytest.mark.parametrize('rounds', [1, 2, 5])
@pytest.mark.parametrize('microbatches', [1, 3, 4, 9])
@pytest.mark.parametrize('stages', [1, 2, 4])
def test_every_microbatch_is_on_each_stage_once_a_round_and_moves_on(stages, microbatches, rounds):
    schedule = Schedule(microbatches, rounds)
    slots = schedule.slot(np.arange(schedule.ticks(stages))[:, None], np.arange(stages), stages)
    when = {}
    for tick, stage in zip(*np.nonzero(slots.live)):
        key = int(slots.round[tick, stage]), int(stage), int(slots.microbatch[tick, stage])
        assert key not in when
        when[key] = tick
    assert len(when) == rounds * stages * microbatches
    for (number, stage, microbatch), tick in when.items():
        before = (number, stage - 1, microbatch) if stage else (number - 1, stages - 1, microbatch)
        if before in when:
            assert tick >= when[before] + 1
    assert schedule.idle(stages) == pytest.approx(1 - len(when) / slots.live.size, abs=1e-12)
    if microbatches >= stages or rounds == 1:
        formula = (stages - 1) / (rounds * microbatches + stages - 1)
        assert schedule.idle(stages) == pytest.approx(formula, abs=1e-12)


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        ({'name': 'gpip', 'microbatches': 4}, r"pipeline\.name: unknown 'gpip'\. Did you mean 'gpipe'"),
        ({'name': 'gpipe'}, r"pipeline\.microbatches: 'gpipe' needs it"),
        ({'name': 'gpipe', 'microbatches': 0}, r'pipeline\.microbatches: 0 must be at least 1\. Nearest: 1'),
        ({'name': 'circular', 'microbatches': 4, 'rounds': 0}, r'pipeline\.rounds: 0 must be at least 1'),
        ({'name': 'gpipe', 'microbatches': 4, 'rounds': 2}, r"pipeline\.rounds \(of 'gpipe'\): unknown"),
    ],
)
def test_options_are_checked_with_the_model(options, message):
    with pytest.raises(ConfigError, match=message):
        changed(pipeline=options)


def test_numbers_that_do_not_go_together():
    devices = mesh.abstract(MeshConfig(stage=4, data=2), 8)
    microbatches = make(SCHEDULES, {'name': 'gpipe', 'microbatches': 4}, 'pipeline')
    with pytest.raises(
        ConfigError,
        match=r'^rows: 6 is no multiple of mesh\.data=2 x mesh\.fsdp=1 x 4 microbatches '
        r'\(pipeline\.microbatches\)\. Nearest: rows 8, or pipeline\.microbatches 3\.$',
    ):
        check(microbatches, devices, 8, 6)
    with pytest.raises(
        ConfigError,
        match=r'^repeats of the pattern \(model\.layers\): 10 is no multiple of mesh\.stage=4\. Nearest: .* 8 or 12',
    ):
        check(microbatches, devices, 10, 8)
    with pytest.raises(
        ConfigError,
        match=r'^repeats of the pattern \(model\.layers\): 8 is no multiple of mesh\.stage=4 x 3 rounds '
        r'\(pipeline\.rounds\)\. Nearest: repeats of the pattern \(model\.layers\) 12',
    ):
        check(Schedule(4, 3), devices, 8, 8)
    check(Schedule(4, 2), devices, 8, 8)


def test_a_pipeline_wants_a_mesh_and_no_caches():
    config, batch = changed(pipeline=Options(name='gpipe', microbatches=2)), random_batch()
    with pytest.raises(
        ConfigError, match=r"pipeline: no mesh with axis 'stage' is in context; enter jax\.set_mesh"
    ):
        jax.eval_shape(functools.partial(loss, config), parameters(CONFIG), batch)
    run = functools.partial(Decoder(config).apply, caches=Caches((), ()))
    with pytest.raises(UnsupportedError, match=r"pipeline 'gpipe' fills no caches; it is for training"):
        jax.eval_shape(run, {'params': parameters(CONFIG)}, *(batch[i] for i in (0, 3, 4)))


def test_parameters_know_of_no_pipeline():
    piped = changed(pipeline=Options(name='circular', microbatches=2))
    for a, b in zip(jax.tree.leaves(parameters(piped)), jax.tree.leaves(parameters(CONFIG)), strict=True):
        np.testing.assert_array_equal(a, b)
    assert jax.tree.structure(parameters(piped)) == jax.tree.structure(parameters(CONFIG))
    assert dataclasses.replace(piped, pipeline=Options()) == CONFIG
