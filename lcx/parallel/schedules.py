"""When each stage of a pipeline works on what: GPipe (arXiv 1811.06965), and the circular schedule.

Rows of a batch are cut into M microbatches, the repeats of the layers into S stages. Three stages, four microbatches,
a column for each tick; '.' is idle:

    gpipe              stage 0    0 1 2 3 . .
                       stage 1    . 0 1 2 3 .
                       stage 2    . . 0 1 2 3

    circular,          stage 0    0 1 2 3 0 1 2 3 . .      every stage has R groups of repeats that are not neighbours:
    two rounds         stage 1    . 0 1 2 3 0 1 2 3 .      group r S + s is on stage s in round r (the interleaved
                       stage 2    . . 0 1 2 3 0 1 2 3      schedule of arXiv 2104.04473, forward)

Idle slots are 1 - R M / ticks of all, gpipe having one round:

    ticks = R M + S - 1        M >= S or R = 1: (S - 1) / (R M + S - 1) is idle
    ticks = R S + M - 1        M < S: a round begins when its first microbatch is through the one before

A tick of the circular schedule is 1/R as long, so the S - 1 idle ones cost 1/R; it sends R times as much between
stages, and its groups to the stages that compute them (:mod:`lcx.parallel.pipeline`).
"""

from __future__ import annotations

from typing import Any, NamedTuple

from lcx.errors import ConfigError


class Slot(NamedTuple):
    """What a stage does in a tick. Idle ones name a round and a microbatch that there are, too."""

    round: Any
    microbatch: Any
    live: Any


class Schedule(NamedTuple):
    """``microbatches`` go round the stages ``rounds`` times."""

    microbatches: int  # M
    rounds: int  # R

    def period(self, stages: int) -> int:
        """Ticks from the beginning of a round to that of the next."""
        return max(self.microbatches, stages)

    def ticks(self, stages: int) -> int:
        """Slots of each stage."""
        return (self.rounds - 1) * self.period(stages) + self.microbatches + stages - 1

    def idle(self, stages: int) -> float:
        """The part of all slots in which nothing useful is computed."""
        return 1 - self.rounds * self.microbatches / self.ticks(stages)

    def slot(self, tick: Any, stage: Any, stages: int) -> Slot:
        """The slot of a stage; both numbers may be arrays, on the device too."""
        since = tick - stage
        number, microbatch = since // self.period(stages), since % self.period(stages)
        live = (since >= 0) & (number < self.rounds) & (microbatch < self.microbatches)
        return Slot(number * live, microbatch * live, live)


def gpipe(*, microbatches: int) -> Schedule:
    """Every stage has neighbouring repeats, and microbatches pass once."""
    return _checked(Schedule(microbatches, 1))


def circular(*, microbatches: int, rounds: int = 2) -> Schedule:
    """Every stage has ``rounds`` groups of repeats."""
    return _checked(Schedule(microbatches, rounds))


SCHEDULES = {'gpipe': gpipe, 'circular': circular}


def _checked(schedule: Schedule) -> Schedule:
    for name, value in schedule._asdict().items():
        if value < 1:
            raise ConfigError(f'{name}: {value} must be at least 1. Nearest: 1.')
    return schedule
