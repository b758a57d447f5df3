"""``lcx sweep``: run a list of experiments one after the other, skipping those that are finished.

lcx sweep --sweep=experiments/001_extend_small/sweep.py:demo --workdir=runs/demo
lcx sweep --sweep=experiments/001_extend_small/sweep.py --workdir=runs/001 --dry_run    # only show the commands

A sweep file defines ``sweep(arg) -> list of runs``; ``arg`` is what follows the colon. A run is a dict:

    name    its folder below --workdir
    verb    train or eval
    config  configuration file of a train run, with its argument
    init    name of an earlier run whose parameters it starts from or evaluates
    set     overrides: field of the configuration -> value

Every run is a command of its own, shown as it starts, that any scheduler could run instead. A run that fails ends
the sweep; the same sweep command goes on from there.
"""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from absl import flags as absl_flags

from lcx.errors import ConfigError, LcxError, Preempted, unknown
from lcx.launch import flags as shared

FIELDS = ('name', 'verb', 'config', 'init', 'set')
VERBS = ('train', 'eval')


def define(flags: absl_flags.FlagValues, argv: Sequence[str]) -> None:
    """Adds the verb's flags."""
    del argv
    shared.define_workdir(flags, 'Directory under which every run gets its own workdir.')
    absl_flags.DEFINE_string('sweep', None, 'FILE.py or FILE.py:arg that lists the runs.', flag_values=flags)
    absl_flags.DEFINE_bool('dry_run', False, 'Only print the commands.', flag_values=flags)


def run(flags: absl_flags.FlagValues, arguments: list[str]) -> None:
    """Runs what is not finished; raises RunFailed with the exit code of the first run that fails."""
    shared.no_arguments(arguments)
    root = Path(shared.required(flags, 'workdir', 'runs/001'))
    runs = load(shared.required(flags, 'sweep', 'experiments/001_extend_small/sweep.py'))
    for number, item in enumerate(runs, start=1):
        line = command(item, root)
        title = f'[{number}/{len(runs)}] {item["name"]}'
        if flags.dry_run:
            print(shlex.join(['lcx', *line]))
            continue
        done = root / item['name'] / 'done.json'
        if done.is_file() and json.loads(done.read_text())['command'] == line:
            print(f'{title}: finished before, skipped', flush=True)
            continue
        print(f'{title}: {shlex.join(["lcx", *line])}', flush=True)
        start = time.monotonic()
        code = run_child([sys.executable, '-m', 'lcx', *line])
        if code:
            raise RunFailed(item['name'], code)
        seconds = time.monotonic() - start
        done.write_text(json.dumps({'command': line, 'seconds': seconds}))
        print(f'{title}: done in {seconds:.0f} s', flush=True)


def run_child(words: list[str]) -> int:
    """The exit code of a command; when this process is told to stop, so is the command, and it is waited for."""
    child = subprocess.Popen(words)
    try:
        return child.wait()
    except (Preempted, KeyboardInterrupt):
        child.terminate()
        return child.wait()


class RunFailed(LcxError):
    """A run of the sweep ended with an error, which it has printed itself."""

    def __init__(self, name: str, code: int) -> None:
        super().__init__(
            f'sweep: run {name!r} ended with exit code {code}; the same command continues the sweep.'
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
        seen.append(name)


def command(item: Mapping[str, Any], root: Path) -> list[str]:
    """The words after ``lcx`` that start the run."""
    words = [item['verb'], f'--workdir={root / item["name"]}']
    if item['verb'] == 'train':
        words.append(f'--config={item["config"]}')
        if item.get('init'):
            words.append(f'--config.init_from={root / item["init"]}')
    else:
        words.append(f'--init={root / item["init"]}')
    return words + [f'--config.{field}={value}' for field, value in item.get('set', {}).items()]
