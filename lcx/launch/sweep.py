"""``lcx sweep``: run a list of experiments, one after the other or several at a time, skipping those that are finished.

lcx sweep --sweep=experiments/001_extend_small/sweep.py:demo --workdir=runs/demo
lcx sweep --sweep=experiments/003_position_zoo/sweep.py:cpu --workdir=runs/zoo --jobs=2    # two at a time
lcx sweep --sweep=experiments/001_extend_small/sweep.py --workdir=runs/001 --dry_run    # only show the commands

A sweep file defines ``sweep(arg) -> list of runs``; ``arg`` is what follows the colon. A run is a dict:

    name    its folder below --workdir
    verb    train, eval or convert
    config  configuration file, with its argument, of a train run or of an eval run on a Hugging Face directory
    init    name of an earlier run whose parameters it starts from, evaluates or writes
    src     of a convert run without init: what lcx convert takes, such as smollm2
    set     overrides: field of the configuration -> value

Every run is a command of its own, shown as it starts, that any scheduler could run instead. A run that fails ends
the sweep; the same sweep command goes on from there.
"""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from absl import flags as absl_flags

from lcx.errors import ConfigError, LcxError, unknown
from lcx.launch import flags as shared

FIELDS = ('name', 'verb', 'config', 'init', 'src', 'set')
VERBS = ('train', 'eval', 'convert')


def define(flags: absl_flags.FlagValues, argv: Sequence[str]) -> None:
    """Adds the verb's flags."""
    del argv
    shared.define_workdir(flags, 'Directory under which every run gets its own workdir.')
    absl_flags.DEFINE_string('sweep', None, 'FILE.py or FILE.py:arg that lists the runs.', flag_values=flags)
    absl_flags.DEFINE_integer(
        'jobs',
        1,
        'Runs at a time; more than one share the cores and write to WORKDIR/RUN.log.',
        flag_values=flags,
    )
    absl_flags.DEFINE_bool('dry_run', False, 'Only print the commands.', flag_values=flags)


def run(flags: absl_flags.FlagValues, arguments: list[str]) -> None:
    """Runs what is not finished; raises RunFailed with the exit code of the first run that fails."""
    shared.no_arguments(arguments)
    root = Path(shared.required(flags, 'workdir', 'runs/001'))
    runs = load(shared.required(flags, 'sweep', 'experiments/001_extend_small/sweep.py'))
    if flags.jobs < 1:
        raise ConfigError(f'jobs: {flags.jobs} must be at least 1.')
    if flags.dry_run:
        for item in runs:
            print(shlex.join(['lcx', *command(item, root)]))
        return
    waiting = []
    for number, item in enumerate(runs, start=1):
        job = Job(f'[{number}/{len(runs)}] {item["name"]}', item, command(item, root), root / item['name'])
        if job.is_done():
            print(f'{job.title}: finished before, skipped', flush=True)
        else:
            waiting.append(job)
    work(waiting, flags.jobs)


class Job(NamedTuple):
    """One run of the sweep."""

    title: str
    item: Mapping[str, Any]
    words: list[str]  # after ``lcx``
    workdir: Path

    @property
    def log(self) -> Path:
        """Where the run's words go when several run at a time."""
        return self.workdir.with_name(f'{self.workdir.name}.log')

    def is_done(self) -> bool:
        """Whether this very command has finished."""
        done = self.workdir / 'done.json'
        return done.is_file() and json.loads(done.read_text())['command'] == self.words


def work(waiting: list[Job], jobs: int) -> None:
    """Runs all of ``waiting``, at most ``jobs`` at a time, each after the run that it starts from.

    One at a time, a run writes to this terminal; several write to logs beside their workdirs, and share the cores.
    When one fails, or this process is told to stop, those that run are stopped too, and waited for.
    """
    slots, running = list(range(jobs)), {}
    try:
        while waiting or running:
            unfinished = {job.item['name'] for job in [*waiting, *(job for job, _, _ in running.values())]}
            ready = [job for job in waiting if job.item.get('init') not in unfinished]
            for job in ready[: len(slots)]:
                waiting.remove(job)
                slot = slots.pop(0)
                print(f'{job.title}: {shlex.join(["lcx", *job.words])}', flush=True)
                running[slot] = job, start(job, slot, jobs), time.monotonic()
            slot = next((s for s, (_, child, _) in running.items() if child.poll() is not None), None)
            if slot is None:
                time.sleep(0.1)
                continue
            job, child, since = running.pop(slot)
            slots.append(slot)
            if child.returncode:
                raise RunFailed(job, child.returncode, logged=jobs > 1)
            seconds = time.monotonic() - since
            (job.workdir / 'done.json').write_text(json.dumps({'command': job.words, 'seconds': seconds}))
            print(f'{job.title}: done in {seconds:.0f} s', flush=True)
    finally:
        for _, child, _ in running.values():
            child.terminate()
        for _, child, _ in running.values():
            child.wait()


def start(job: Job, slot: int, jobs: int) -> subprocess.Popen:
    """The process of a run, on the cores of its slot."""
    words = [sys.executable, '-m', 'lcx', *job.words]
    if jobs == 1:
        return subprocess.Popen(words)
    job.log.parent.mkdir(parents=True, exist_ok=True)
    with open(job.log, 'ab') as log:
        child = subprocess.Popen(words, stdout=log, stderr=subprocess.STDOUT)
    if hasattr(os, 'sched_setaffinity'):
        cores = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(child.pid, cores[slot::jobs] or cores)
    return child


class RunFailed(LcxError):
    """A run of the sweep ended with an error, which it has printed itself, or written to its log."""

    def __init__(self, job: Job, code: int, *, logged: bool) -> None:
        where = f' Its words are in {job.log}.' if logged else ''
        super().__init__(
            f'sweep: run {job.item["name"]!r} ended with exit code {code}; the same command continues the sweep.{where}'
        )
        self.exit_code = code if 0 < code < 128 else 1


def load(file: str) -> list[dict[str, Any]]:
    """The checked list of runs of ``FILE.py[:arg]``; raises ConfigError naming what is wrong."""
    path, _, argument = file.partition(':')
    try:
        runs = shared.load_module('sweep', path).sweep(argument)
    except LcxError:
        raise
    except ValueError as error:
        raise ConfigError(f'sweep: {path}: {error}') from error
    check(runs)
    return runs


def check(runs: Sequence[Mapping[str, Any]]) -> None:
    """Raises ConfigError for a run that could not be started, before any is."""
    seen: list[str] = []
    for item in runs:
        for key in item:
            if key not in FIELDS:
                raise ConfigError(unknown(f'sweep: run {item.get("name")!r}', key, FIELDS))
        name, verb = item.get('name'), item.get('verb')
        if not name or '/' in name or name in seen:
            raise ConfigError(f'sweep: run name {name!r} is empty, has a slash or is used twice.')
        if verb not in VERBS:
            raise ConfigError(unknown(f'sweep: run {name!r}: verb', verb, VERBS))
        if verb == 'train' and 'config' not in item:
            raise ConfigError(f'sweep: run {name!r}: a train run needs a config.')
        if item.get('init') is not None and item['init'] not in seen:
            raise ConfigError(unknown(f'sweep: run {name!r}: init (an earlier run)', item['init'], seen))
        if verb == 'eval' and item.get('init') is None:
            raise ConfigError(f'sweep: run {name!r}: an eval run needs an init.')
        if (verb == 'convert' and item.get('init') is None) != (item.get('src') is not None):
            raise ConfigError(
                f'sweep: run {name!r}: src goes with a convert run that has no init, and only there.'
            )
        seen.append(name)


def command(item: Mapping[str, Any], root: Path) -> list[str]:
    """The words after ``lcx`` that start the run."""
    verb, init = item['verb'], item.get('init')
    origin = None if init is None else root / init
    words = [verb, f'--{"dst" if verb == "convert" else "workdir"}={root / item["name"]}']
    if item.get('config'):
        words.append(f'--config={item["config"]}')
    if verb == 'convert':
        words.append(f'--src={origin or item["src"]}')
    elif origin is not None:
        words.append(f'--config.init_from={origin}' if verb == 'train' else f'--init={origin}')
    return words + [f'--config.{field}={value}' for field, value in item.get('set', {}).items()]
