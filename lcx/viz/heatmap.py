"""Where in a context a number is found: shares of right answers by depth and length, a panel for each label.

Depth 0 % is the beginning of the text and on top. Every cell has its number; the colours, cividis of Nuñez, Anderton
and Renslow (2018), look alike to those who see all colours and to most who do not. Right of the dashed line contexts
are longer than the label was trained at.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lcx.types import Row
from lcx.viz.curves import DPI, FAINT, INK, MARGIN, STYLE, inches
from lcx.viz.results import multiple

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.text import Text

COLUMN = 'accuracy'
MOST = 3  # panels beside each other

# Inches.
CELL_WIDTH, CELL_HEIGHT = 0.56, 0.32
LEFT, BOTTOM, TOP = 0.75, 0.25, 0.6
ABOVE, BELOW, BETWEEN = 0.48, 0.42, 0.3  # a panel's names, its ticks, and the gap to the next one


@dataclass(frozen=True)
class Panel:
    """One label; values are means by (depth, length)."""

    label: str
    trained_length: int | None
    values: Mapping[tuple[float, int], float]


def figures(rows: Sequence[Row]) -> dict[str, Figure]:
    """A figure of each evaluator with depths, by name: ``needle_by_depth``; none where no answer was right.

    ``rows`` are those of :func:`lcx.viz.results.load` with ``keep=('depth',)``.
    """
    evaluators: dict[str, list[Row]] = {}
    for row in rows:
        if row.get('depth') is not None and isinstance(row.get(COLUMN), float):
            evaluators.setdefault(row['evaluator'], []).append(row)
    return {
        f'{name}_by_depth': draw(mine)
        for name, mine in evaluators.items()
        if any(row[COLUMN] > 0 for row in mine)
    }


def draw(rows: Sequence[Row]) -> Figure:
    """The figure of one evaluator's rows, each a mean at a label, length and depth."""
    from matplotlib import style
    from matplotlib.figure import Figure

    panels = [
        Panel(
            label,
            next(r.get('trained_length') for r in rows if r['label'] == label),
            {(r['depth'], r['length']): r[COLUMN] for r in rows if r['label'] == label},
        )
        for label in dict.fromkeys(r['label'] for r in rows)
    ]
    lengths, depths = (sorted({r[name] for r in rows}) for name in ('length', 'depth'))
    across = min(MOST, len(panels))
    with style.context(['default', STYLE]):
        figure = Figure(dpi=DPI, facecolor='white')
        drawn, names = [], []
        for i, panel in enumerate(panels):
            axes = figure.add_axes((0, 0, 1, 1), label=str(i))
            drawn.append(axes)
            names += _panel(axes, panel, lengths, depths, first=i % across == 0)
        words = _titles(figure, rows)
        _place(figure, drawn, across, (len(lengths), len(depths)), names, words)
    return figure


def _panel(
    axes: Axes, panel: Panel, lengths: Sequence[int], depths: Sequence[float], first: bool
) -> list[Text]:
    """Draws the cells and returns the words above them."""
    from matplotlib import colormaps

    colours = colormaps['cividis']
    for y, depth in enumerate(depths):
        for x, length in enumerate(lengths):
            value = panel.values.get((depth, length), math.nan)
            known = math.isfinite(value)
            box = {'facecolor': colours(value) if known else '#EDEDED', 'edgecolor': 'white', 'linewidth': 2}
            axes.add_patch(_rectangle(x, y, box))
            ink = FAINT if not known else 'white' if value < 0.55 else INK
            words = f'{value:.2f}' if known else '–'
            axes.text(x, y, words, ha='center', va='center_baseline', size=8.5, color=ink)
    axes.set_xlim(-0.5, len(lengths) - 0.5)
    axes.set_ylim(len(depths) - 0.5, -0.5)
    trained = panel.trained_length
    axes.set_xticks(range(len(lengths)), [_tick(length, trained) for length in lengths])
    axes.set_yticks(range(len(depths)), [f'{100 * depth:g} %' for depth in depths])
    axes.tick_params(length=0, labelsize=8.5, pad=3, labelleft=first)
    axes.spines[:].set_visible(False)
    known = sum(length <= (trained or 0) for length in lengths)
    if 0 < known < len(lengths):
        axes.axvline(known - 0.5, color='white', linewidth=3.5, zorder=3)
        axes.axvline(
            known - 0.5,
            -0.03,
            1.03,
            color=INK,
            linewidth=1.5,
            linestyle=(0, (3, 1.5)),
            zorder=4,
            clip_on=False,
        )
    at = {'xy': (0, 1), 'xycoords': 'axes fraction', 'textcoords': 'offset points'}
    note = f'trained at {trained}' if trained else 'trained length unknown'
    return [
        axes.annotate(panel.label, xytext=(2, 19), weight='bold', size=10, **at),
        axes.annotate(note, xytext=(2, 7), size=8.5, color=FAINT, **at),
    ]


def _rectangle(x: int, y: int, look: Mapping):
    from matplotlib.patches import Rectangle

    return Rectangle((x - 0.5, y - 0.5), 1, 1, **look)


def _tick(length: int, trained: int | None) -> str:
    name = f'{length // 1024}k' if length >= 8192 and length % 1024 == 0 else str(length)
    return f'{name}\n{multiple(length, trained)}×' if trained else name


def _titles(figure: Figure, rows: Sequence[Row]) -> list[Text]:
    counts = sorted({r['samples'] for r in rows if 'samples' in r})
    note = 'by length of the context and depth of the needle'
    if counts:
        note += f', {" or ".join(map(str, counts))} samples a cell'
    if any('seeds' in r for r in rows):
        note += f', means over {" or ".join(str(n) for n in sorted({r.get("seeds", 1) for r in rows}))} seeds'
    title = figure.text(
        0, 0, f'Share of answers that are right: {rows[0]["evaluator"]}', weight='bold', size=11
    )
    return [title, figure.text(0, 0, note, size=9, color=FAINT)]


def _place(
    figure: Figure,
    drawn: Sequence[Axes],
    across: int,
    cells: tuple[int, int],
    names: Sequence[Text],
    words: Sequence[Text],
) -> None:
    """Gives the figure the size that its panels and words need, and them their places."""
    wide, high = cells[0] * CELL_WIDTH, cells[1] * CELL_HEIGHT
    step_x = max(wide, inches(names)) + BETWEEN
    step_y = ABOVE + high + BELOW
    down = -(-len(drawn) // across)
    width = max(LEFT + across * step_x - BETWEEN + MARGIN, MARGIN + inches(words) + MARGIN)
    height = TOP + down * step_y + BOTTOM
    figure.set_size_inches(width, height)
    for i, axes in enumerate(drawn):
        row, column = divmod(i, across)
        x, y = LEFT + column * step_x, height - TOP - row * step_y - ABOVE - high
        axes.set_position((x / width, y / height, wide / width, high / height))
        if column == 0:
            axes.set_ylabel('depth', size=9)
        if i + across >= len(drawn):
            axes.set_xlabel('context length (tokens)', size=9)
    for text, y in zip(words, (0.26, 0.48)):
        text.set_position((MARGIN / width, 1 - y / height))
