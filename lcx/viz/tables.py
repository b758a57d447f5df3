"""Tables of results: one structure, rendered for the terminal and as Markdown.

| label | trained at |  128 (1x)† |       256 (2x) |
| :---- | ---------: | ---------: | -------------: |
| rope  |        128 | 2.58 ±0.02 |     2.93 ±0.03 |
| yarn  |        128 | 2.58 ±0.02 | **2.58 ±0.02** |
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lcx.viz.effective import effective_length
from lcx.viz.results import Column, Comparison, Series, Value, multiple

if TYPE_CHECKING:
    import rich.table

ABSENT = '–'
TRAINED = '†'


@dataclass(frozen=True)
class Cell:
    text: str
    best: bool = False  # of its column


@dataclass(frozen=True)
class Table:
    """A rectangle of text; the first column is the label, all others are numbers."""

    name: str  # of the evaluator
    head: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    caption: str


def build(comparison: Comparison) -> Table:
    """The table of a comparison: labels down, lengths (or positions) across, the best of a column marked."""
    best = {column: _best(comparison, column) for column in comparison.columns}
    rows = []
    for series in comparison.series:
        cells = [
            Cell(series.label),
            Cell(str(series.trained_length or ABSENT)),
            *_effective(comparison, series),
        ]
        for column in comparison.columns:
            text = _text(series.values.get(column), comparison.measure.digits)
            cells.append(Cell(text, best=column in series.values and text.split()[0] == best[column]))
        rows.append(tuple(cells))
    heads = [heading(column, comparison.trained_lengths) for column in comparison.columns]
    if comparison.threshold is not None:
        heads.insert(0, 'effective')
    return Table(comparison.evaluator, ('label', 'trained at', *heads), tuple(rows), _caption(comparison))


def heading(column: Column, trained: list[int]) -> str:
    """``512 (4x)``: a length or range of positions, its end as a multiple of the shortest trained length."""
    text = str(column.end) if column.start is None else f'{column.start}–{column.end}'
    if trained:
        text += f' ({multiple(column.end, trained[0])}x)'
    return text + TRAINED if column.end in trained else text


def to_markdown(table: Table) -> str:
    """The table as GitHub Markdown, padded so that the source reads as a table too; ends with its caption."""
    body = [[_markdown(cell) for cell in row] for row in table.rows]
    head = [_escape(text) for text in table.head]
    widths = [max(3, *(len(line[i]) for line in (head, *body))) for i in range(len(head))]

    def line(texts: list[str]) -> str:
        first, *rest = (
            text.ljust(width) if i == 0 else text.rjust(width)
            for i, (text, width) in enumerate(zip(texts, widths))
        )
        return f'| {" | ".join([first, *rest])} |'

    rule = [':' + '-' * (widths[0] - 1), *('-' * (width - 1) + ':' for width in widths[1:])]
    return '\n'.join([line(head), line(rule), *map(line, body), '', table.caption, ''])


def to_rich(table: Table) -> rich.table.Table:
    """The table for a terminal."""
    from rich import box
    from rich.table import Table as RichTable
    from rich.text import Text

    result = RichTable(title=table.name, caption=table.caption, box=box.SIMPLE_HEAD, title_style='bold')
    result.title_justify = result.caption_justify = 'left'
    for i, head in enumerate(table.head):
        result.add_column(Text(head), justify='left' if i == 0 else 'right', overflow='fold')
    for row in table.rows:
        result.add_row(*(Text(cell.text, style='bold green' if cell.best else '') for cell in row))
    return result


def _best(comparison: Comparison, column: Column) -> str | None:
    """The number, as printed, that is best in the column: None where all are the same."""
    values = [s.values[column] for s in comparison.series if column in s.values]
    finite = [v.mean for v in values if math.isfinite(v.mean)]
    digits = comparison.measure.digits
    if len({_number(v.mean, digits) for v in values}) < 2 or not finite:
        return None
    return _number(comparison.measure.best(finite), digits)


def _effective(comparison: Comparison, series: Series) -> list[Cell]:
    """The cell of the effective length, if the comparison has a threshold: '<128' where no length reaches it."""
    if comparison.threshold is None:
        return []
    scores = {column.end: value.mean for column, value in series.values.items()}
    found = effective_length(scores, comparison.threshold)
    return [Cell(f'<{min(scores)}' if found is None else str(found))]


def _caption(comparison: Comparison) -> str:
    sentences = [f'{comparison.title}: {comparison.note}.']
    if any(column.end in comparison.trained_lengths for column in comparison.columns):
        sentences.append(f'{TRAINED} trained length.')
    if comparison.threshold is not None:
        sentences.append(f'Effective: the greatest length with more than {comparison.threshold:g}.')
    if comparison.measure.share and not any(comparison.means):
        sentences.append('No answer was right, at any length.')
    return ' '.join(sentences)


def _number(value: float, digits: int) -> str:
    return f'{value:.{digits}f}'


def _text(value: Value | None, digits: int) -> str:
    if value is None:
        return ABSENT
    error = '' if value.stderr is None else f' ±{value.stderr:.{digits}f}'
    return _number(value.mean, digits) + error


def _markdown(cell: Cell) -> str:
    return f'**{_escape(cell.text)}**' if cell.best else _escape(cell.text)


def _escape(text: str) -> str:
    return re.sub(r'([\\|*<])', r'\\\1', text)
