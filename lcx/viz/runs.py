"""What runs are: tables of what they cost, in which settings they differ, and how they were started.

Read from results.jsonl and, where they lie beside it, config.json and run.json; a results file of many runs, as
experiments keep it, tells of each by its column ``run``. A file that is not there, or is no JSON, says nothing.
"""

from __future__ import annotations

import json
import os
import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lcx.types import Row
from lcx.viz.results import find, newest, read
from lcx.viz.tables import ABSENT, Cell, Table


@dataclass(frozen=True)
class Run:
    """One run: its newest rows, its resolved configuration, and its starts, the newest one last."""

    name: str
    rows: Sequence[Row]
    config: Mapping[str, Any]
    attempts: Sequence[Mapping[str, Any]]


def load(directories: Sequence[Path]) -> list[Run]:
    """The runs in and below ``directories``. Raises DataError as :func:`lcx.viz.results.find` and ``read`` do."""
    paths = find(directories)
    root = os.path.commonpath([path.parent.absolute() for path in paths])
    found = []
    for path in paths:
        groups: dict[str, list[Row]] = {}
        for row in newest(read(path)):
            groups.setdefault(str(row.get('run', path.parent.name)), []).append(row)
        own = os.path.relpath(path.parent.absolute(), root)
        config, record = (_json(path.parent / name) for name in ('config.json', 'run.json'))
        attempts = record.get('attempts')
        attempts = [a for a in attempts if isinstance(a, dict)] if isinstance(attempts, list) else []
        for name, rows in groups.items():
            alone = len(groups) == 1 and own != '.'
            found.append(Run(own if alone else name, rows, config, attempts))
    return found


def tables(runs: Sequence[Run]) -> list[Table]:
    """Those of the module that have something to say."""
    return [table for table in (costs(runs), differences(runs), starts(runs)) if table is not None]


def costs(runs: Sequence[Run]) -> Table:
    """A row for each run: what it is, and the time and memory of its evaluations."""
    body = []
    for run in runs:
        rows = [r for r in run.rows if 'implementation' not in r]  # of those, seconds are of one call
        seconds = [r['seconds'] for r in rows if isinstance(r.get('seconds'), (int, float))]
        peaks = [r['peak_bytes'] for r in rows if isinstance(r.get('peak_bytes'), int)]
        body.append(
            [
                run.name,
                *(
                    _either(run.rows, c)
                    for c in ('label', 'seed', 'step', 'position', 'trained_length', 'evaluator')
                ),
                f'{sum(seconds):.1f}' if seconds else ABSENT,
                f'{max(peaks) / 1e6:.0f}' if peaks else ABSENT,
            ]
        )
    head = ('run', 'label', 'seed', 'step', 'position', 'trained at', 'evaluators', 'seconds', 'peak MB')
    caption = 'Seconds and peak memory (MB) of the evaluations, compilation included.'
    return _table('costs', head, body, caption)


def differences(runs: Sequence[Run]) -> Table | None:
    """The fields of config.json that are not the same in all runs; None with fewer than two files."""
    known = {run.name: flat(run.config) for run in runs if run.config}
    if len(known) < 2:
        return None
    fields, same = _varying(list(known.values()))
    body = [[name, *(_shown(config.get(field)) for field in fields)] for name, config in known.items()]
    caption = f'Fields of config.json that differ; {same} others are the same in all {len(known)} runs.'
    return _table('settings that differ', ('run', *fields), body, caption)


def starts(runs: Sequence[Run]) -> Table | None:
    """The newest start of each run: what differs as columns, what does not in the caption; None without run.json."""
    known = {run.name: run.attempts for run in runs if run.attempts}
    if not known:
        return None
    facts = {name: _facts(attempts[-1]) for name, attempts in known.items()}
    fields, _ = _varying(list(facts.values()))
    one = next(iter(facts.values()))
    same = '; '.join(f'{k} {_shown(v)}' for k, v in one.items() if k not in fields and v is not None)
    body = [
        [
            name,
            str(attempts[-1].get('started', ABSENT)),
            str(len(attempts)),
            *(_shown(facts[name].get(field)) for field in fields),
            command(attempts[-1].get('command')),
        ]
        for name, attempts in known.items()
    ]
    caption = 'The newest start of each run, and how many there were.' + (f' In all: {same}.' if same else '')
    return _table('starts', ('run', 'started', 'starts', *fields, 'command'), body, caption)


def flat(value: Any, path: str = '') -> dict[str, Any]:
    """The leaves of nested mappings, and of lists of them, by path: 'stages[0].length'. A list of values is a leaf.

    >>> flat({'a': {'b': 1}, 'c': [{'d': 2}], 'e': [3, 4]})
    {'a.b': 1, 'c[0].d': 2, 'e': [3, 4]}
    """
    if isinstance(value, Mapping) and value:
        pairs = [(f'{path}.{k}' if path else str(k), v) for k, v in value.items()]
    elif isinstance(value, list) and any(isinstance(v, Mapping) for v in value):
        pairs = [(f'{path}[{i}]', v) for i, v in enumerate(value)]
    else:
        return {path: value}
    return {k: v for name, part in pairs for k, v in flat(part, name).items()}


def command(words: Any) -> str:
    """A command line to copy, the program without its directory."""
    if not isinstance(words, list) or not words:
        return ABSENT
    program, *rest = map(str, words)
    return shlex.join(['lcx' if program.endswith('__main__.py') else os.path.basename(program), *rest])


def _facts(attempt: Mapping[str, Any]) -> dict[str, Any]:
    """What a start's numbers may depend on; neither host nor process."""
    devices = attempt.get('devices')
    devices = ', '.join(f'{n} x {kind}' for kind, n in devices.items()) if isinstance(devices, dict) else None
    versions = attempt.get('versions')
    git = attempt.get('git')
    return {
        'git': re.sub(r'^([0-9a-f]{12})[0-9a-f]+', r'\1', git) if isinstance(git, str) else None,
        'devices': devices,
        **(versions if isinstance(versions, dict) else {}),
    }


def _varying(found: Sequence[Mapping[str, Any]]) -> tuple[list[str], int]:
    """The keys under which not all mappings have the same value, and how many others there are."""
    keys = list(dict.fromkeys(key for mapping in found for key in mapping))
    varying = [key for key in keys if len({json.dumps(m.get(key), sort_keys=True) for m in found}) > 1]
    return varying, len(keys) - len(varying)


def _either(rows: Sequence[Row], column: str) -> str:
    values = dict.fromkeys(str(row[column]) for row in rows if row.get(column) is not None)
    return ', '.join(values) or ABSENT


def _shown(value: Any) -> str:
    if value is None:
        return ABSENT
    return value if isinstance(value, str) else json.dumps(value)


def _table(name: str, head: Sequence[str], body: Sequence[Sequence[str]], caption: str) -> Table:
    return Table(name, tuple(head), tuple(tuple(map(Cell, line)) for line in body), caption)


def _json(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding='utf-8'))
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}
