"""Figures of results: one line per label, its name at the line's end, colours of Okabe and Ito (2008).

Colours are told apart by the colour-blind, markers in grey print, names by everyone. The shortest trained
length is a dashed vertical line, longer ones are dotted, and a label trained at such a one has a ring at
its value there. A dotted horizontal line is the threshold of the effective length. Bands are one standard error to each
side.
"""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from lcx.viz.results import Column, Comparison, Series, multiple

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.text import Text

COLOURS = ('#000000', '#D55E00', '#0072B2', '#009E73', '#CC79A7', '#E69F00', '#56B4E9')
MARKERS = 'osD^vP<*'
INK, FAINT = '#262626', '#737373'
STYLE = {
    'font.family': 'sans-serif',
    'font.sans-serif': ['DejaVu Sans', 'Arial', 'Helvetica', 'sans-serif'],
    'font.size': 10,
    'text.color': INK,
    'text.parse_math': False,  # a label with dollar signs is a label
    'axes.axisbelow': True,
    'axes.labelcolor': INK,
    'xtick.color': INK,
    'ytick.color': INK,
    'lines.markersize': 5.5,
    'svg.fonttype': 'none',  # text stays text
    'svg.hashsalt': 'lcx',  # the same results give the same file
}

# Inches. The axes have a fixed size; the figure grows to hold its labels.
AXES_WIDTH, AXES_HEIGHT = 5.6, 3.5
LEFT, BOTTOM, TOP = 0.5, 0.95, 0.8  # left: at least
TICK_GAP = 0.1  # from the numbers of the y axis to the axis
MARGIN = 0.12  # of text from the figure's edges
LABEL_GAP = 0.3  # from the axes to the names of the lines, bridged by a thin leader
LABEL_HEIGHT = 0.2
TICK_WIDTH = 0.5
DPI = 200


def figures(comparisons: Sequence[Comparison]) -> dict[str, Figure]:
    """A figure of each comparison that has something to show, by evaluator; none of all-zero accuracies."""
    worth = [c for c in comparisons if c.means and (not c.measure.share or any(c.means))]
    return {c.evaluator: draw(c) for c in worth}


def draw(comparison: Comparison) -> Figure:
    """The figure of a comparison: its values against length, or against position, on a log2 axis."""
    from matplotlib import style
    from matplotlib.figure import Figure

    lines = [s for s in comparison.series if np.isfinite(_points(s)[1]).any()]
    height = max(AXES_HEIGHT, LABEL_HEIGHT * len(lines))
    with style.context(['default', STYLE]):
        figure = Figure(dpi=DPI, facecolor='white')
        axes = figure.add_axes((0.1, 0.1, 0.8, 0.8))
        low, high = limits(comparison)
        axes.set_ylim(low, high)
        _frame(axes, comparison)
        for i, series in enumerate(lines):
            _line(axes, series, comparison.trained_lengths, _look(i))
        left = max(LEFT, MARGIN + inches(axes.get_yticklabels()) + TICK_GAP)
        right = left + AXES_WIDTH + _names(axes, lines, height)
        cut = '↑' * (max(comparison.means) > high) + '↓' * (min(comparison.means) < low)
        words = _titles(axes, comparison, left, cut)
        width, total = max(right, words), BOTTOM + height + TOP
        figure.set_size_inches(width, total)
        axes.set_position((left / width, BOTTOM / total, AXES_WIDTH / width, height / total))
    return figure


def render(figure: Figure, kind: str) -> bytes:
    """The bytes of a 'png' or 'svg' file, the same for the same figure."""
    from matplotlib import style

    buffer = io.BytesIO()
    metadata = {'png': {'Software': None}, 'svg': {'Date': None, 'Creator': None}}[kind]
    with style.context(['default', STYLE]):
        figure.savefig(buffer, format=kind, metadata=metadata)
    return buffer.getvalue()


def limits(comparison: Comparison) -> tuple[float, float]:
    """The y axis. One label that explodes does not flatten the others: it leaves at the top.

    A value is cut if it is more than twice the least and, from the least, more than three times as far as the
    upper quartile. Where higher is better, one that breaks down leaves at the bottom: from the highest it is more than
    three times as far as the lower quartile, and than the highest is from 0.
    """
    if comparison.measure.share:
        return -0.03, 1.03
    values = np.array(comparison.means)
    if comparison.measure.best is max:
        high = values.max()
        cut = high - max(3 * (high - np.quantile(values, 0.25)), 3 * abs(high))
        low = values[values >= cut].min()
        margin = 0.06 * (high - low) or 0.1
        return float(low - margin), float(high + margin)
    low = values.min()
    cut = low + max(3 * (np.quantile(values, 0.75) - low), low)
    high = values[values <= cut].max()
    margin = 0.06 * (high - low) or 0.1
    return float(low - margin), float(high + margin)


def spread(wanted: Sequence[float], gap: float, low: float, high: float) -> list[float]:
    """The places nearest to ``wanted`` (least squares) that are ``gap`` apart and inside [low, high].

    Less ``gap`` times the rank, the places need only ascend: isotonic regression, by pooling neighbours.
    Needs (n - 1) * gap <= high - low.
    """
    order = sorted(range(len(wanted)), key=lambda i: (wanted[i], -i))  # of equals the first is on top
    pools: list[list[float]] = []  # each pool takes the mean of its members
    for rank, i in enumerate(order):
        pools.append([wanted[i] - rank * gap])
        while len(pools) > 1 and np.mean(pools[-2]) >= np.mean(pools[-1]):
            pools[-2:] = [pools[-2] + pools[-1]]
    level = [float(np.mean(pool)) for pool in pools for _ in pool]
    top = high - (len(wanted) - 1) * gap
    places = [0.0] * len(wanted)
    for rank, i in enumerate(order):
        places[i] = min(max(level[rank], low), top) + rank * gap
    return places


def _x(column: Column) -> float:
    """Where a column is on the log2 axis: a length at itself, positions in the middle of their range."""
    if column.start is None:
        return math.log2(column.end)
    return math.log2(column.end * max(column.start, column.end / 2)) / 2


def _points(series: Series) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """x, y and the error of y, ascending in x; NaN, which breaks the line, where a value is not finite."""
    values = [series.values[c] for c in sorted(series.values, key=_x)]
    y = np.array([v.mean if math.isfinite(v.mean) else math.nan for v in values])
    error = np.array([v.stderr or 0.0 for v in values])
    return np.array(sorted(map(_x, series.values))), y, error


def _end(series: Series) -> tuple[float, float]:
    """The last point of a line."""
    x, y, _ = _points(series)
    last = np.flatnonzero(np.isfinite(y))[-1]
    return float(x[last]), float(y[last])


def _look(i: int) -> dict:
    return {
        'color': COLOURS[i % len(COLOURS)],
        'marker': MARKERS[i % len(MARKERS)],
        'linestyle': '-' if i < len(COLOURS) else '--',
    }


def _line(axes: Axes, series: Series, trained: list[int], look: dict) -> None:
    x, y, error = _points(series)
    axes.fill_between(x, y - error, y + error, color=look['color'], alpha=0.15, linewidth=0)
    axes.plot(x, y, linewidth=1.6, markeredgecolor='white', markeredgewidth=0.5, **look)
    own = [(_x(c), v.mean) for c, v in series.values.items() if c == (None, series.trained_length)]
    if own and series.trained_length != trained[0]:
        axes.plot(*own[0], marker='o', markersize=11, markerfacecolor='none', markeredgecolor=look['color'])


def _names(axes: Axes, lines: Sequence[Series], height: float) -> float:
    """Writes each line's name beside its end; returns the inches that the names take right of the axes."""
    low, high = axes.get_ylim()
    right = axes.get_xlim()[1]
    ends = [_end(series) for series in lines]
    y_inch, x_inch = (high - low) / height, (right - axes.get_xlim()[0]) / AXES_WIDTH
    places = spread([y for _, y in ends], LABEL_HEIGHT * y_inch, low, high)
    x_name = right + LABEL_GAP * x_inch
    last = max(x for x, _ in ends)
    names = []
    for i, (series, (x, y), place) in enumerate(zip(lines, ends, places)):
        look, text = _look(i), series.label
        if low <= y <= high:
            dashes = '-' if x == last else ':'  # of a line that ends early: not to be read as data
            leader = [x, x_name - 0.06 * x_inch], [y, place]
            axes.plot(*leader, dashes, color=look['color'], linewidth=0.7, clip_on=False)
        else:
            text += f' {"↑" if y > high else "↓"} {y:.2f}'
        axes.plot(x_name, place, color=look['color'], marker=look['marker'], clip_on=False)
        names.append(axes.text(x_name + 0.1 * x_inch, place, text, va='center_baseline'))
    return LABEL_GAP + 0.1 + inches(names) + MARGIN


def _frame(axes: Axes, comparison: Comparison) -> None:
    """Axes, ticks and the marks of trained lengths."""
    trained = comparison.trained_lengths
    lengths = sorted({c.end for c in comparison.columns} | set(trained))
    rings = [c.end for c in comparison.columns if c.start is None and c.end in trained[1:]]
    ticks = thin(lengths, first=trained, most=int(AXES_WIDTH / TICK_WIDTH))
    x = [_x(c) for c in comparison.columns] + [math.log2(length) for length in lengths]
    pad = 0.04 * (max(x) - min(x)) or 0.5
    axes.set_xlim(min(x) - pad, max(x) + pad)
    axes.set_xticks([math.log2(t) for t in ticks], [_tick(t, trained, rings) for t in ticks])
    axes.tick_params(length=0, labelsize=9, pad=6)
    axes.grid(axis='y', color='#E5E5E5', linewidth=0.8)
    axes.spines[['left', 'right', 'top']].set_visible(False)
    axes.spines['bottom'].set_color('#B3B3B3')
    if comparison.threshold is not None:
        axes.axhline(comparison.threshold, color=FAINT, linewidth=0.9, linestyle=(0, (1, 3)), zorder=1)
    for length in trained:
        dashes = '--' if length == trained[0] else ':'
        axes.axvline(math.log2(length), color=FAINT, linewidth=0.9, linestyle=dashes, zorder=1)


def thin(lengths: Sequence[int], first: Sequence[int], most: int) -> list[int]:
    """At most about ``most`` evenly spaced lengths on a log axis, those of ``first`` before all others."""
    span = math.log2(lengths[-1] / lengths[0]) or 1.0
    kept: list[int] = []
    for length in [*first, *reversed(lengths)]:
        if all(abs(math.log2(length / other)) >= span / most for other in kept):
            kept.append(length)
    return sorted(kept)


def _tick(length: int, trained: Sequence[int], rings: Sequence[int]) -> str:
    name = f'{length // 1024}k' if length >= 8192 and length % 1024 == 0 else str(length)
    if trained:
        name += f'\n{multiple(length, trained[0])}×'
    if length in trained:
        name += '\n○ trained' if length in rings else '\ntrained'
    return name


def _titles(axes: Axes, comparison: Comparison, left: float, cut: str) -> float:
    """Says above the axes, ``left`` inches from the figure's edge, what is shown; returns the inches it takes.

    ``cut`` has the arrows of values that are not shown.
    """
    positions = comparison.columns[0].start is not None
    axes.set_xlabel('position in the window (tokens)' if positions else 'context length (tokens)', size=9)
    line = '' if comparison.threshold is None else f', dotted: {comparison.threshold:g}'
    note = comparison.note + line + (f', axis cut: {cut} values beyond it' if cut else '')
    at = {'xy': (0, 1), 'xycoords': 'axes fraction', 'textcoords': 'offset points'}
    start = 72 * (MARGIN - left)  # points from the axes
    title = axes.annotate(comparison.title, xytext=(start, 32), weight='bold', size=11, **at)
    subtitle = axes.annotate(note, xytext=(start, 16), size=9, color=FAINT, **at)
    return MARGIN + inches([title, subtitle]) + MARGIN


def inches(texts: Sequence[Text]) -> float:
    """The width of the widest text."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    figure = texts[0].figure
    renderer = FigureCanvasAgg(figure).get_renderer()
    return max(text.get_window_extent(renderer).width for text in texts) / figure.dpi
