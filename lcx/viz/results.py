"""What the results.jsonl files of many runs say together: one value for each label and length.

A workdir's evaluations append rows; the newest row of a (label, evaluator, length, bucket) counts, which is
the one of the highest step, then the later line. Workdirs that share a label are either seeds of one
experiment, which differ in nothing but ``seed``: they become their mean with the standard error s / sqrt(n)
over the n seeds. Or they are different experiments: the label of each is completed by its workdir.
"""

from __future__ import annotations

import dataclasses
import json
import math
import os
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from lcx.errors import DataError
from lcx.types import Row
from lcx.viz.effective import THRESHOLD
from lcx.viz.gains import with_gains

FILE = 'results.jsonl'

# Columns that tell one text of many, and the ones that count the texts of a mean.
SINGLE = {'window': 'windows', 'sample': 'samples', 'document': 'documents'}
OF_ONE = ('depth', 'place', 'text', *SINGLE)  # a mean over texts has none of these
WITHIN = (
    'bucket_start',
    'bucket_end',
    'layer',
    'head',
    'depth',
    'task',
    *SINGLE,
)  # what tells the rows of one length apart


class Measure(NamedTuple):
    """The column of a row that tables and figures show; its standard error is ``column + '_stderr'``."""

    column: str
    words: str  # completed with the fields of a row
    best: Callable[[Iterable[float]], float]  # min | max
    share: bool = False  # of 1
    digits: int = 2  # after the point, in tables
    having: str | None = None  # only of rows that have this column, too

    def of(self, row: Row) -> bool:
        """Whether it is what the row measures."""
        return self.column in row and (self.having is None or self.having in row)


# An evaluator is shown by the first of these that its rows have.
MEASURES = (
    Measure('last_bits_per_byte', 'Bits per byte over the last {last} tokens of each window', min),
    Measure(
        'bits_per_byte',
        'Bits per byte of documents, read through windows {stride} tokens apart',
        min,
        having='stride',
    ),
    Measure('bits_per_byte', 'Bits per byte by position in windows of {length} tokens', min),
    Measure('key_nats', 'LongPPL: nats per key token, those that more than {short} tokens tell', min),
    Measure(
        'gain_nats',
        'Nats per token that context beyond {short} tokens saves, over the last {last}',
        max,
        digits=3,
    ),
    Measure('token_accuracy', "Share of the answers' tokens that are right", max, share=True),
    Measure('accuracy', 'Share of answers that are right', max, share=True),
    Measure('value', 'lm-eval, {task}: {metric}', max, digits=3),
    Measure('cost', 'lm-eval, {task}: {metric}', min, digits=3),
    Measure('points', 'LongBench, {task}: {metric} of what was written', max, share=True),
    Measure(
        'score',
        'RULER, {task}: share of what an answer must hold that is in what was written',
        max,
        share=True,
    ),
)


class Column(NamedTuple):
    """A context length, or the positions ``start <= position < end`` of a window."""

    start: int | None  # None: a length
    end: int


class Value(NamedTuple):
    mean: float  # NaN where the file says null: JSON has no word for what is not finite
    stderr: float | None


@dataclass(frozen=True)
class Series:
    """One label: a line of a figure and a row of a table."""

    label: str
    trained_length: int | None
    values: Mapping[Column, Value]


@dataclass(frozen=True)
class Comparison:
    """Every label under one evaluator: all that a table or a figure shows."""

    evaluator: str
    measure: Measure
    title: str  # what the numbers are
    note: str  # which way is better, of how many windows, what the errors are
    columns: tuple[Column, ...]  # ascending
    series: tuple[Series, ...]
    threshold: float | None = None  # of shares by length: the effective length's

    @property
    def trained_lengths(self) -> list[int]:
        """The distinct trained lengths, ascending: the first is the base of all multiples."""
        return sorted({s.trained_length for s in self.series if s.trained_length})

    @property
    def means(self) -> list[float]:
        """All finite values."""
        return [v.mean for s in self.series for v in s.values.values() if math.isfinite(v.mean)]


def find(directories: Sequence[Path]) -> list[Path]:
    """The results files in and below ``directories``, each once, a run called ``base`` before its neighbours.

    A folder that has a results file is not searched deeper. Raises DataError for a directory without any.
    """
    found: dict[Path, Path] = {}
    for directory in directories:
        if not directory.is_dir():
            raise DataError(
                f'{directory}: no such directory. '
                f'Train a run into it: lcx train --config=configs/base.py --workdir={directory}'
            )
        here = []
        for folder, below, files in os.walk(directory):
            below.sort(key=lambda name: (name != 'base', name))
            if FILE in files:
                here.append(Path(folder, FILE))
                below.clear()
        if not here:
            raise DataError(
                f'{directory}: no {FILE} here or below. Evaluate a run: lcx eval --workdir={directory}'
            )
        for path in here:
            found.setdefault(path.resolve(), path)
    return list(found.values())


def read(path: Path) -> list[Row]:
    """The rows of one results file, in order.

    A last line without its newline is a write that was cut off, or is still going on, and is ignored when it
    does not parse. Raises DataError, naming file and line, for any other line that is not a row.
    """
    lines = path.read_bytes().split(b'\n')
    rows = []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            rows.append(_row(line))
        except ValueError as error:
            if number == len(lines):
                break
            raise DataError(
                f'{path}:{number}: {error}. Repair or delete the line, or evaluate the run again.'
            ) from None
    return rows


def newest(rows: Iterable[Row]) -> list[Row]:
    """Of the rows of each (label, evaluator, length, bucket, text) the one of the highest step, then the last."""
    kept: dict[tuple, Row] = {}
    for row in rows:
        key = _key(row)
        if key not in kept or row.get('step', 0) >= kept[key].get('step', 0):
            kept[key] = row
    return list(kept.values())


def load(directories: Sequence[Path], keep: Collection[str] = ()) -> list[Row]:
    """The newest rows of all runs in and below ``directories``, merged over texts and seeds. Raises DataError.

    ``keep`` is that of :func:`over_texts`.
    """
    runs = {
        path.parent: over_texts(with_gains(by_task(newest(read(path)))), keep) for path in find(directories)
    }
    if not any(runs.values()):
        folder = next(iter(runs))
        raise DataError(f'{folder / FILE}: no rows yet. Evaluate the run: lcx eval --workdir={folder}')
    return merge(runs)


def by_task(rows: Sequence[Row]) -> list[Row]:
    """Rows of an evaluator with several tasks become rows of one evaluator each, and once more of all together."""
    found = []
    for row in rows:
        if 'task' not in row or 'sample' not in row:
            found.append(row)
            continue
        rest = {k: v for k, v in row.items() if k not in ('task', 'depth')}
        found.append({**rest, 'sample': f'{row["task"]} {row.get("sample")}'})
        found.append({**row, 'evaluator': f'{row["evaluator"]}_{row["task"]}'})
    return found


def over_texts(rows: Sequence[Row], keep: Collection[str] = ()) -> list[Row]:
    """Rows of single texts become one row of each length: means and their standard errors over texts.

    With ``keep=('depth',)``, one of each length and depth.
    """
    groups: dict[tuple, list[Row]] = {}
    whole = []
    for row in rows:
        if any(name in row for name in SINGLE):
            rest = {k: v for k, v in row.items() if k not in OF_ONE or k in keep}
            groups.setdefault(_key(rest), []).append(row)
        else:
            whole.append(row)
    for group in groups.values():
        row = average(group) if len(group) > 1 else group[0]
        dropped = ('seeds', *(name for name in OF_ONE if name not in keep))
        counted = {count: len(group) for name, count in SINGLE.items() if name in row}
        row = {k: v for k, v in row.items() if k not in dropped}
        whole.append({**row, 'seed': group[-1].get('seed'), **counted})
    return whole


def merge(runs: Mapping[Path, Sequence[Row]]) -> list[Row]:
    """One list of rows from the newest rows of each workdir: seeds averaged, namesakes told apart."""
    # One label may stand for runs on several data sets, each with evaluators and seeds of its own.
    labels: dict[tuple[str, str], dict[Path, list[Row]]] = {}
    for workdir, rows in runs.items():
        for row in rows:
            labels.setdefault((row['label'], row['evaluator']), {}).setdefault(workdir, []).append(row)
    clear = {label for label, mine in labels.items() if len(mine) == 1 or _are_seeds(list(mine.values()))}
    root = os.path.commonpath([path.absolute() for path in runs])
    groups: dict[tuple, list[Row]] = {}
    for workdir, rows in runs.items():
        for row in rows:
            if (row['label'], row['evaluator']) not in clear:
                row = {**row, 'label': f'{row["label"]} ({os.path.relpath(workdir, root)})'}
            groups.setdefault(_key(row), []).append(row)
    return [average(group) if len(group) > 1 else group[0] for group in groups.values()]


def average(rows: Sequence[Row]) -> Row:
    """The mean of rows that differ by seed; errors become those over the seeds, ``seeds`` says how many.

    A column that a row does not have is a mean over the others.
    """
    every = {k: v for row in rows for k, v in row.items()}
    merged = {k: v for k, v in every.items() if k != 'seed' and not k.endswith('_stderr')}
    for column in list(merged):
        values = [math.nan if row[column] is None else row[column] for row in rows if column in row]
        if column not in WITHIN and any(isinstance(row.get(column), float) for row in rows):
            with np.errstate(invalid='ignore'):  # the deviation of infinite values is NaN
                merged[column] = float(np.mean(values))
                error = float(np.std(values, ddof=1)) / math.sqrt(len(values)) if len(values) > 1 else 0.0
                merged[f'{column}_stderr'] = error
    return {**merged, 'seeds': len(rows)}


def compare(rows: Sequence[Row], threshold: float = THRESHOLD) -> list[Comparison]:
    """A Comparison of each evaluator whose rows have one of the MEASURES, in the order found.

    Of an evaluator that scores positions inside windows, the longest windows are compared. ``threshold`` is that of
    the effective length, which shares at several lengths have, unless all are 0.
    """
    evaluators: dict[str, list[Row]] = {}
    for row in rows:
        evaluators.setdefault(row['evaluator'], []).append(row)
    comparisons = []
    for evaluator, mine in evaluators.items():
        measure = next((m for m in MEASURES if any(m.of(row) for row in mine)), None)
        if measure is None:
            continue
        mine = [row for row in mine if measure.column in row]
        if any('bucket_end' in row for row in mine):
            longest = max(row['length'] for row in mine)
            mine = [row for row in mine if row['length'] == longest]
        comparison = _comparison(evaluator, measure, mine)
        if measure.share and any(comparison.means) and len(comparison.columns) > 1:
            comparison = dataclasses.replace(comparison, threshold=threshold)
        comparisons.append(comparison)
    return comparisons


def multiple(length: int, trained: int) -> str:
    """``length`` in units of the trained length, to three digits: '0.5', '4', '1024'."""
    ratio = length / trained
    return f'{ratio:.3g}' if ratio < 1000 else f'{ratio:.0f}'


def _comparison(evaluator: str, measure: Measure, rows: Sequence[Row]) -> Comparison:
    labels: dict[str, dict[Column, Value]] = {}
    trained: dict[str, int | None] = {}
    for row in rows:
        mean = row[measure.column]
        value = Value(math.nan if mean is None else mean, row.get(f'{measure.column}_stderr'))
        labels.setdefault(row['label'], {})[_column(row)] = value
        trained[row['label']] = row.get('trained_length')
    return Comparison(
        evaluator=evaluator,
        measure=measure,
        title=measure.words.format_map(_Fields(rows)),
        note=_note(measure, rows),
        columns=tuple(sorted({_column(row) for row in rows}, key=lambda column: column.end)),
        series=tuple(Series(label, trained[label], values) for label, values in labels.items()),
    )


class _Fields(dict):
    """The columns of rows as words, for a title."""

    def __init__(self, rows: Sequence[Row]) -> None:
        super().__init__(task=_either(rows, 'task') or 'all tasks')
        self.rows = rows

    def __missing__(self, column: str) -> str:
        return _either(self.rows, column)


def _note(measure: Measure, rows: Sequence[Row]) -> str:
    unit = next((u for u in SINGLE.values() if any(u in row for row in rows)), None)
    parts = ['lower is better' if measure.best is min else 'higher is better']
    if unit:
        parts.append(f'{_either(rows, unit)} {unit}')
    if any('seeds' in row for row in rows):
        single = f' where there are several, over {unit or "windows"} elsewhere'
        mixed = single if any('seeds' not in row for row in rows) else ''
        parts.append(f'± standard error over {_either(rows, "seeds")} seeds{mixed}')
    elif any(row.get(f'{measure.column}_stderr') is not None for row in rows):
        parts.append(f'± standard error over {unit or "windows"}')
    return ', '.join(parts)


def _row(line: bytes) -> dict[str, Any]:
    """The row of one line, or a ValueError that says what is wrong with it."""
    try:
        row = json.loads(line)
    except ValueError:
        raise ValueError('not JSON') from None
    if not isinstance(row, dict):
        raise ValueError('not a row of named columns')
    for column, kind in (('evaluator', str), ('label', str), ('length', int)):
        if not isinstance(row.get(column), kind):
            raise ValueError(f'{column} is {row.get(column)!r}; expected {kind.__name__}')
    if '/' in row['evaluator']:  # it becomes the name of a file
        raise ValueError(f'evaluator is {row["evaluator"]!r}; expected a name')
    return row


def _key(row: Row) -> tuple:
    place = (row.get(name) for name in WITHIN)
    return row['label'], row['evaluator'], row['length'], *place


def _column(row: Row) -> Column:
    return Column(row.get('bucket_start'), row.get('bucket_end', row['length']))


def _are_seeds(runs: Sequence[Sequence[Row]]) -> bool:
    """Whether runs of one label are one experiment: alike but for the seed, and each of another seed."""
    seeds = [{row.get('seed') for row in rows} for rows in runs]
    distinct = set.union(*seeds)
    alike = {(row.get('position'), row.get('trained_length')) for rows in runs for row in rows}
    return len(alike) == 1 and None not in distinct and sum(map(len, seeds)) == len(distinct)


def _either(rows: Sequence[Row], column: str) -> str:
    """The values of a column as words: '32', or '16 or 32' where rows differ."""
    return ' or '.join(str(v) for v in sorted({row[column] for row in rows if column in row}))
