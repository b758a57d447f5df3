"""Tables and figures of ``lcx attention``: maps of probabilities, and attention by distance.

Rows have ``layer`` and ``head``, and a bucket of distances in tokens with the mass in it; the first tokens, where many
heads rest (sinks, arXiv:2309.17453), are apart. A table has a row for each head. The figure has a panel for each layer,
with a line for each head, or for all layers one panel with their means where lines would be too many.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from lcx.types import Row
from lcx.viz.curves import COLOURS, DPI, FAINT, INK, MARGIN, MARKERS, STYLE
from lcx.viz.tables import ABSENT, Cell, Table

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLUMN = 'mass'
LINES, PANELS = 12, 6  # at most: heads of a panel, and panels

# Inches.
PANEL_WIDTH, PANEL_HEIGHT, STRIP = 4.2, 2.1, 0.5
LEFT, BOTTOM, TOP, GAP, BETWEEN = 0.65, 0.55, 0.85, 0.62, 0.85
LEGEND = 1.4
MAP, MAP_GAP, BAR = 2.56, 0.32, 0.14
ACROSS = 3  # maps beside each other

Lines = Mapping[str, Sequence[Row]]  # by name, the rows of one head or the means of a layer, ascending


def split(rows: Sequence[Row]) -> tuple[list[Row], list[Row]]:
    """The rows of heads, and all others."""
    return [r for r in rows if COLUMN in r and 'head' in r], [r for r in rows if 'head' not in r]


def tables(rows: Sequence[Row]) -> list[Table]:
    """A table of each label and length: heads down, distances across, the most of a column marked."""
    return [_table(name, mine) for name, mine in _texts(rows).items()]


def figures(rows: Sequence[Row]) -> dict[str, Figure]:
    """Attention by distance, of each label and length, named as the tables are."""
    return {name: draw(mine) for name, mine in _texts(rows).items()}


def draw(rows: Sequence[Row]) -> Figure:
    """Mass by distance of one label and length, the first tokens apart, beside what even attention would give."""
    from matplotlib import style
    from matplotlib.figure import Figure

    panels = _panels(rows)
    names = list(dict.fromkeys(name for lines in panels.values() for name in lines))
    across = min(2, len(panels))
    down = -(-len(panels) // across)
    panel = STRIP + 0.12 + PANEL_WIDTH
    width = LEFT + across * (panel + BETWEEN) - BETWEEN + LEGEND
    height = TOP + down * (PANEL_HEIGHT + GAP) - GAP + BOTTOM
    even = evenly(rows[0]['length'], rows[0]['first'], sorted({_bucket(r) for r in rows}))
    most = 1.08 * max(*even, *(r[COLUMN] for r in rows))
    with style.context(['default', STYLE]):
        figure = Figure(figsize=(width, height), dpi=DPI, facecolor='white')
        for i, (title, lines) in enumerate(panels.items()):
            row, column = divmod(i, across)
            x = LEFT + column * (panel + BETWEEN)
            y = height - TOP - row * (PANEL_HEIGHT + GAP) - PANEL_HEIGHT
            size = PANEL_HEIGHT / height
            strip = figure.add_axes((x / width, y / height, STRIP / width, size))
            right = (x + STRIP + 0.12) / width
            axes = figure.add_axes((right, y / height, PANEL_WIDTH / width, size))
            _strip(strip, lines, names, rows[0]['first'], named=column == 0)
            _lines(axes, lines, names, even, most)
            if i + across >= len(panels):
                axes.set_xlabel('distance from query back to key (tokens)', size=9)
            axes.set_title(title, size=10, weight='bold', loc='left')
        _legend(figure, 1 - (LEGEND - 0.4) / width, 1 - TOP / height)
        words = f'{rows[0]["label"]}, {rows[0]["length"]} tokens: share of the attention of all queries'
        left = MARGIN / width
        figure.text(left, 1 - 0.2 / height, 'Attention by distance', size=11, weight='bold', va='top')
        figure.text(left, 1 - 0.4 / height, words, size=9, color=FAINT, va='top')
    return figure


def draw_maps(
    pictures: Mapping[int, np.ndarray], *, label: str, layer: int, length: int, least: float | None = None
) -> Figure:
    """Maps of heads of a layer: queries down, keys to the right, a logarithmic colour scale for all of them.

    ``pictures`` holds a square of mean probabilities by head, of a text of ``length`` tokens. Probabilities below
    ``least`` (default: a tenth of 1 / length, rounded down to a power of ten) have the darkest colour; zeros are white.
    """
    from matplotlib import colormaps, style
    from matplotlib.colors import LogNorm
    from matplotlib.figure import Figure
    from matplotlib.ticker import FuncFormatter

    across = min(ACROSS, len(pictures))
    down = -(-len(pictures) // across)
    width = LEFT + across * (MAP + MAP_GAP) + BAR + 0.6
    height = TOP + down * (MAP + GAP) - GAP + BOTTOM
    least = 10.0 ** math.floor(math.log10(0.1 / length)) if least is None else least
    with style.context(['default', STYLE]):
        figure = Figure(figsize=(width, height), dpi=DPI, facecolor='white')
        colours, scale = colormaps['cividis'].with_extremes(bad='white'), LogNorm(least, 1.0)
        for i, (head, picture) in enumerate(pictures.items()):
            row, column = divmod(i, across)
            x, y = LEFT + column * (MAP + MAP_GAP), height - TOP - row * (MAP + GAP) - MAP
            axes = figure.add_axes((x / width, y / height, MAP / width, MAP / height))
            shown = np.ma.masked_equal(picture, 0).clip(least, 1.0)
            box = (0, length, length, 0)
            drawn = axes.imshow(shown, cmap=colours, norm=scale, extent=box, interpolation='none')
            axes.set_title(f'head {head}', size=10, loc='left')
            axes.tick_params(length=2, labelsize=8, labelleft=column == 0)
            axes.spines[:].set_visible(False)  # it would hide the first tokens
            axes.locator_params(nbins=4)
            if column == 0:
                axes.set_ylabel('query (token)', size=9)
            if i + across >= len(pictures):
                axes.set_xlabel('key (token)', size=9)
        x = LEFT + across * (MAP + MAP_GAP)
        bar = figure.add_axes((x / width, (height - TOP - MAP) / height, BAR / width, MAP / height))
        figure.colorbar(drawn, cax=bar, format=FuncFormatter(lambda value, _: f'{value:g}'))
        bar.tick_params(labelsize=8)
        cell = next(iter(pictures.values())).shape[0]
        mean = f', means over cells of {-(-length // cell)} x {-(-length // cell)}' if cell < length else ''
        left = MARGIN / width
        title = f'Attention probabilities, layer {layer}'
        figure.text(left, 1 - 0.18 / height, title, size=11, weight='bold', va='top')
        words = f'{label}, {length} tokens{mean}'
        figure.text(left, 1 - 0.38 / height, words, size=9, color=FAINT, va='top')
    return figure


def evenly(length: int, first: int, bounds: Sequence[tuple[int, int]]) -> list[float]:
    """The mass in each bucket of distances if every query attended evenly to all tokens up to itself.

    Query t gives 1 / (t + 1) to each of them; the first tokens, which are apart, are left out.
    """
    share = 1.0 / np.arange(1, length + 1)
    after = np.append(np.cumsum(share[::-1])[::-1], 0.0)  # at t: the shares of query t and all that follow
    by_distance = after[
        np.minimum(np.arange(length) + first, length)
    ]  # the key t - distance is none of the first
    return [float(by_distance[start:end].sum()) / length for start, end in bounds]


def _texts(rows: Sequence[Row]) -> dict[str, list[Row]]:
    """The rows of each label and length, by a name that can be a file's."""
    groups: dict[tuple, list[Row]] = {}
    for row in rows:
        groups.setdefault((row['label'], row['length']), []).append(row)
    names = ('attention_by_distance', *(f'attention_by_distance_{i}' for i in range(2, len(groups) + 1)))
    return {name: sorted(mine, key=_order) for name, mine in zip(names, groups.values())}


def _order(row: Row) -> tuple[int, int, int]:
    return row['layer'], row['head'], row['bucket_start']


def _heads(rows: Sequence[Row]) -> dict[tuple[int, int], list[Row]]:
    found: dict[tuple[int, int], list[Row]] = {}
    for row in rows:
        found.setdefault((row['layer'], row['head']), []).append(row)
    return found


def _table(name: str, rows: Sequence[Row]) -> Table:
    buckets = sorted({_bucket(r) for r in rows})
    body = []
    for (layer, head), mine in _heads(rows).items():
        mass = {_bucket(r): r[COLUMN] for r in mine}
        numbers = [mine[0]['entropy'], mine[0]['first_mass'], *(mass.get(b) for b in buckets)]
        body.append([f'layer {layer}, head {head}', *(ABSENT if n is None else f'{n:.3f}' for n in numbers)])
    most = [max((line[i] for line in body if line[i] != ABSENT), default=None) for i in range(len(body[0]))]
    one = len(body) == 1
    cells = [[Cell(t, best=i > 1 and not one and t == most[i]) for i, t in enumerate(line)] for line in body]
    first = rows[0]['first']
    heads = ['head', 'entropy', f'first {first}', *map(_words, buckets)]
    caption = (
        f'{rows[0]["label"]}, {rows[0]["length"]} tokens: share of the attention of all queries, by distance in '
        f'tokens; the first {first} tokens apart, at whatever distance. Entropy in nats, a mean over queries. '
        'The most of a column is marked.'
    )
    return Table(name, tuple(heads), tuple(map(tuple, cells)), caption)


def _bucket(row: Row) -> tuple[int, int]:
    return row['bucket_start'], row['bucket_end']


def _words(bucket: tuple[int, int]) -> str:
    start, end = bucket
    return str(start) if end == start + 1 else f'{start}–{end - 1}'


def _panels(rows: Sequence[Row]) -> dict[str, Lines]:
    """The lines of each panel, by its title."""
    by_layer: dict[int, dict[str, list[Row]]] = {}
    for (layer, head), mine in _heads(rows).items():
        by_layer.setdefault(layer, {})[f'head {head}'] = mine
    if len(by_layer) <= PANELS and all(len(lines) <= LINES for lines in by_layer.values()):
        return {f'layer {layer}': lines for layer, lines in by_layer.items()}
    means = {f'layer {layer}': _mean(list(lines.values())) for layer, lines in by_layer.items()}
    return {'means over heads': means}


def _mean(heads: Sequence[Sequence[Row]]) -> list[Row]:
    """The rows of a layer, means over its heads."""
    columns = (COLUMN, 'first_mass')
    return [{**rows[0], **{c: sum(r[c] for r in rows) / len(rows) for c in columns}} for rows in zip(*heads)]


def _look(name: str, names: Sequence[str]) -> dict:
    """Of a line among ``names``; where they are more than looks, by a scale of colours."""
    i = names.index(name)
    if len(names) <= LINES:
        dashes = '-' if i < len(COLOURS) else '--'
        return {'color': COLOURS[i % len(COLOURS)], 'marker': MARKERS[i % len(MARKERS)], 'linestyle': dashes}
    from matplotlib import colormaps

    return {'color': colormaps['cividis'](i / (len(names) - 1)), 'marker': 'o', 'linestyle': '-'}


def _strip(axes: Axes, lines: Lines, names: Sequence[str], first: int, named: bool) -> None:
    """The mass on the first tokens, a mark for each line, from 0 to 1."""
    for name, rows in lines.items():
        look = {k: v for k, v in _look(name, names).items() if k != 'linestyle'}
        x = (names.index(name) + 0.5) / len(names)
        axes.plot(x, rows[0]['first_mass'], markeredgecolor='white', markeredgewidth=0.5, **look)
    axes.set_xlim(-0.1, 1.1)
    axes.set_ylim(0, 1)
    axes.set_xticks([0.5], [f'first {first}'])
    axes.tick_params(length=0, labelsize=8)
    axes.grid(axis='y', color='#E5E5E5', linewidth=0.8)
    axes.spines[['right', 'top']].set_visible(False)
    axes.spines[['left', 'bottom']].set_color('#B3B3B3')
    if named:
        axes.set_ylabel('share of attention', size=9)


def _lines(axes: Axes, lines: Lines, names: Sequence[str], even: Sequence[float], most: float) -> None:
    bounds = [_bucket(r) for r in next(iter(lines.values()))]
    places = range(len(bounds))
    axes.plot(places, even, color=FAINT, linewidth=1.0, linestyle=':', label='even')
    for name, mine in lines.items():
        look = {'linewidth': 1.3, 'markersize': 4, 'markeredgecolor': 'white', 'markeredgewidth': 0.4}
        axes.plot(places, [r[COLUMN] for r in mine], label=name, **look, **_look(name, names))
    axes.set_ylim(0, most)
    axes.set_xticks(list(places), [_ticks(b) for b in bounds], rotation=0)
    axes.tick_params(length=0, labelsize=7.5, colors=INK)
    axes.yaxis.tick_right()
    axes.grid(axis='y', color='#E5E5E5', linewidth=0.8)
    axes.spines[['left', 'right', 'top']].set_visible(False)
    axes.spines['bottom'].set_color('#B3B3B3')


def _ticks(bucket: tuple[int, int]) -> str:
    """Where the bucket begins: '64', '8k'."""
    start = bucket[0]
    return f'{start // 1024}k' if start >= 1024 else str(start)


def _legend(figure: Figure, x: float, y: float) -> None:
    entries: dict[str, object] = {}
    for axes in figure.axes:
        for handle, name in zip(*axes.get_legend_handles_labels()):
            entries.setdefault(name, handle)
    entries['even'] = entries.pop('even')  # last
    if len(entries) > LINES + 1:  # a scale of colours: its ends tell
        names = list(entries)
        entries = {name: entries[name] for name in (names[0], names[len(names) // 2], names[-2], names[-1])}
    handles = list(entries.values())
    look = {'loc': 'upper left', 'bbox_to_anchor': (x, y), 'frameon': False, 'fontsize': 8.5}
    figure.legend(handles, list(entries), **look)
