"""Figures: the files are real, hold every label as text, and no label covers another."""

import itertools
import math
import subprocess
import sys

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg

from lcx.viz import curves
from lcx.viz.results import compare

LENGTHS = (128, 256, 512, 1024, 2048)
CURVES = {
    'RoPE': (2.58, 2.93, 3.79, 4.65, 5.3),
    'PI': (2.58, 3.28, 4.02, 4.85, 5.2),
    'NTK': (2.58, 2.59, 3.34, 4.41, 5.0),
    'YaRN $s=4$ <b>': (2.58, 2.58, 3.13, 3.92, 4.6),
    'YaRN tuned': (2.55, 2.5, 2.45, 2.6, 3.0),
}


def rows(values=CURVES, evaluator='perplexity', column='last_bits_per_byte', **more):
    return [
        {
            'evaluator': evaluator,
            'label': label,
            'length': length,
            'trained_length': 512 if 'tuned' in label else 128,
            'last': 64,
            'windows': 32,
            column: value,
            f'{column}_stderr': 0.03,
            **more,
        }
        for label, line in values.items()
        for length, value in zip(LENGTHS, line)
    ]


def draw(*args, **kwargs):
    (comparison,) = compare(rows(*args, **kwargs))
    return curves.draw(comparison)


def texts(figure):
    """The visible words of a figure with their boxes in pixels."""
    figure.canvas = FigureCanvasAgg(figure)
    figure.canvas.draw()
    axes = figure.axes[0]
    found = [*axes.texts, *axes.get_xticklabels(), *axes.get_yticklabels(), axes.xaxis.label]
    low, high = axes.get_ylim()
    return [
        (t.get_text(), t.get_window_extent())
        for t in found
        if t.get_text() and not (t in axes.get_yticklabels() and not low <= t.get_position()[1] <= high)
    ]


@pytest.mark.parametrize(
    'values',
    [
        CURVES,
        {f'method {i}': (2.5, 2.6, 3.0, 3.5, 3.6) for i in range(25)},
        {**CURVES, 'exploded': (2.6, 5.0, 20.0, 60.0, 90.0), 'NaN': (2.6, math.nan, 4.0, math.nan, math.nan)},
        {'a label that is much longer than any figure would ever like it to be': (2.0, 2.1, 2.2, 2.3, 2.4)},
        {'one point': (2.0,)},
    ],
)
def test_no_words_overlap_or_are_cut_off(values):
    figure = draw(values)
    found = texts(figure)
    assert len(found) > len(values)
    for (a, box_a), (b, box_b) in itertools.combinations(found, 2):
        assert not box_a.overlaps(box_b), (a, b)
    for text, box in found:
        assert box.x0 >= 0 and box.y0 >= 0, text
        assert box.x1 <= figure.bbox.x1 and box.y1 <= figure.bbox.y1, text


def test_files_are_reproducible_and_svg_holds_labels_as_text():
    png, svg = (curves.render(draw(), kind) for kind in ('png', 'svg'))
    assert png.startswith(b'\x89PNG') and len(png) > 20_000
    text = svg.decode()
    assert '<svg' in text
    for label in ('RoPE', 'PI', 'NTK', 'YaRN $s=4$ &lt;b&gt;', 'YaRN tuned', '○ trained', '16×'):
        assert f'>{label}</text>' in text
    assert svg == curves.render(draw(), 'svg')
    assert png == curves.render(draw(), 'png')


def test_figures_are_drawn_of_what_has_something_to_show():
    accuracy = {'evaluator': 'passkey', 'column': 'accuracy'}
    zero = compare(rows({'RoPE': (0.0,) * 5}, **accuracy))
    some = compare(rows({'RoPE': (1.0, 0.5, 0.0, 0.0, 0.0)}, **accuracy))
    nothing = compare(rows({'RoPE': (math.nan,) * 5}))
    assert list(curves.figures([*zero, *nothing])) == []
    assert list(curves.figures([*some, *compare(rows())])) == ['passkey', 'perplexity']


def test_axis_is_cut_for_an_explosion_only():
    (calm,) = compare(rows())
    (wild,) = compare(rows({**CURVES, 'exploded': (2.6, 5.0, 20.0, 60.0, 90.0)}))
    (close,) = compare(rows({'a': (2.5, 2.5, 2.5, 2.5, 3.0)}))
    assert curves.limits(calm)[1] > 5.3
    assert 5.3 < curves.limits(wild)[1] < 10
    assert curves.limits(close)[1] > 3.0
    assert 'exploded ↑ 90.00' in [text for text, _ in texts(curves.draw(wild))]


def test_line_breaks_at_what_is_not_finite():
    (comparison,) = compare(rows({'RoPE': (2.5, math.nan, 3.0, 3.5, math.inf)}))
    x, y, _ = curves._points(comparison.series[0])
    np.testing.assert_array_equal(x, [7, 8, 9, 10, 11])
    np.testing.assert_array_equal(y, [2.5, math.nan, 3.0, 3.5, math.nan])


@pytest.mark.parametrize('seed', range(5))
def test_spread_is_the_nearest_arrangement(seed):
    random = np.random.default_rng(seed)
    wanted = random.uniform(-2, 12, size=4)
    found = np.array(curves.spread(wanted, gap=1.0, low=0.0, high=10.0))
    order = np.argsort(wanted)
    assert np.all(np.diff(found[order]) >= 1 - 1e-9) and found.min() >= 0 and found.max() <= 10

    def cost(places):
        return np.sum((places - wanted) ** 2)

    for _ in range(2000):  # no allowed arrangement near or far is nearer
        other = np.empty(4)
        other[order] = np.sort(random.uniform(0, 7, size=4)) + np.arange(4)
        assert cost(found) <= cost(other) + 1e-9
        nudged = found + random.normal(scale=0.05, size=4)
        if np.all(np.diff(nudged[order]) >= 1) and nudged.min() >= 0 and nudged.max() <= 10:
            assert cost(found) <= cost(nudged) + 1e-9


def test_spread_leaves_what_fits_and_puts_the_first_of_equals_on_top():
    assert curves.spread([3.0, 1.0, 8.0], 1.0, 0.0, 10.0) == [3.0, 1.0, 8.0]
    assert curves.spread([5.0, 5.0, 5.0], 1.0, 0.0, 10.0) == [6.0, 5.0, 4.0]


def test_thin_keeps_trained_lengths_and_spaces_the_others():
    lengths = list(range(128, 4097, 128))
    assert curves.thin(lengths, first=[128], most=5) == [128, 256, 512, 1024, 2048, 4096]
    assert curves.thin([128, 256], first=[128], most=8) == [128, 256]
    assert curves.thin([128], first=[], most=8) == [128]


def test_tables_and_results_need_no_matplotlib_and_figures_no_pyplot():
    code = (
        'import sys, lcx.viz.tables, lcx.viz.curves, lcx.viz.heatmap\n'
        'assert "matplotlib" not in sys.modules\n'
        'from lcx.viz.results import compare\n'
        'rows = [dict(evaluator="p", label="a", length=n, accuracy=0.5) for n in (64, 128)]\n'
        'lcx.viz.curves.render(lcx.viz.curves.draw(*compare(rows)), "png")\n'
        'assert "matplotlib.pyplot" not in sys.modules\n'
    )
    subprocess.run([sys.executable, '-c', code], check=True)
