"""Heat maps by depth and length: every cell shows its own number, words do not overlap, trained lengths are marked."""

import itertools
import json

import pytest
from matplotlib import colormaps
from matplotlib.backends.backend_agg import FigureCanvasAgg

from lcx.viz import curves, heatmap, results, tables

LENGTHS, DEPTHS = (1024, 2048, 4096, 8192), (0.0, 0.25, 0.5, 1.0)
LABELS = {
    'RoPE': 2048,
    'PI, untuned $x$': 16384,
    'a label that is longer than its panel is wide': 512,
    'NTK': None,
}


def rows(labels=LABELS):
    """Means at every label, length and depth, each another, but one that is missing."""
    return [
        {
            'evaluator': 'needle', 'label': label, 'trained_length': trained, 'length': length, 'depth': depth,
            'accuracy': round((1 + i + 5 * j + 23 * k) / 100, 2), 'samples': 8,
        }
        for k, (label, trained) in enumerate(labels.items())
        for j, length in enumerate(LENGTHS)
        for i, depth in enumerate(DEPTHS)
        if (label, length, depth) != ('NTK', 8192, 0.5)
    ]  # fmt: skip


def words(figure):
    figure.canvas = FigureCanvasAgg(figure)
    figure.canvas.draw()
    found = list(figure.texts)
    for axes in figure.axes:
        ticks = [*axes.get_xticklabels(), *axes.get_yticklabels()]
        found += [*axes.texts, *(t for t in ticks if t.get_visible()), axes.xaxis.label, axes.yaxis.label]
    return [(t.get_text(), t.get_window_extent()) for t in found if t.get_text()]


@pytest.mark.parametrize('count', [1, 2, 4])
def test_no_words_overlap_or_are_cut_off(count):
    figure = heatmap.draw(rows(dict(list(LABELS.items())[-count:])))
    found = words(figure)
    for (a, box_a), (b, box_b) in itertools.combinations(found, 2):
        assert not box_a.overlaps(box_b), (a, b)
    for text, box in found:
        assert box.x0 >= 0 and box.y0 >= 0, text
        assert box.x1 <= figure.bbox.x1 and box.y1 <= figure.bbox.y1, text


def test_cells_have_their_numbers_and_colours_and_depth_zero_is_on_top():
    figure = heatmap.draw(rows())
    assert len(figure.axes) == 4
    for axes, label in zip(figure.axes, LABELS):
        mine = {(r['length'], r['depth']): r['accuracy'] for r in rows() if r['label'] == label}
        texts = {t.get_position(): t.get_text() for t in axes.texts[: len(LENGTHS) * len(DEPTHS)]}
        boxes = {(p.get_x() + 0.5, p.get_y() + 0.5): p.get_facecolor() for p in axes.patches}
        for (x, length), (y, depth) in itertools.product(enumerate(LENGTHS), enumerate(DEPTHS)):
            value = mine.get((length, depth))
            assert texts[x, y] == ('–' if value is None else f'{value:.2f}')
            if value is not None:
                assert boxes[x, y] == colormaps['cividis'](value)
        assert axes.get_ylim()[0] > axes.get_ylim()[1]
    for axes in (figure.axes[0], figure.axes[3]):  # the first of each row
        assert [t.get_text() for t in axes.get_yticklabels()] == ['0 %', '25 %', '50 %', '100 %']
    assert [text for text, _ in words(figure)][1] == (
        'by length of the context and depth of the needle, 8 samples a cell'
    )


def test_a_line_stands_where_contexts_become_longer_than_the_trained_length():
    figure = heatmap.draw(rows())
    places = [{line.get_xdata()[0] for line in axes.get_lines()} for axes in figure.axes]
    assert places == [{1.5}, set(), set(), set()]  # 2048; beyond all; before all; unknown
    notes = [axes.texts[-1].get_text() for axes in figure.axes]
    assert notes == ['trained at 2048', 'trained at 16384', 'trained at 512', 'trained length unknown']
    ticks = [t.get_text() for t in figure.axes[0].get_xticklabels()]
    assert ticks == ['1024\n0.5×', '2048\n1×', '4096\n2×', '8k\n4×']


def test_figures_are_of_rows_with_depths_that_have_something_to_show():
    nothing = [{**r, 'evaluator': 'other', 'accuracy': 0.0} for r in rows()]
    without = [{k: v for k, v in r.items() if k != 'depth'} | {'evaluator': 'passkey'} for r in rows()]
    found = heatmap.figures([*rows(), *nothing, *without])
    assert list(found) == ['needle_by_depth']
    png, svg = (curves.render(found['needle_by_depth'], kind) for kind in ('png', 'svg'))
    assert png.startswith(b'\x89PNG') and '>PI, untuned $x$</text>' in svg.decode()
    assert svg == curves.render(heatmap.figures(rows())['needle_by_depth'], 'svg')


def single(**changes):
    """A row as the evaluator gives it."""
    row = {
        'evaluator': 'needle',
        'label': 'L',
        'length': 64,
        'depth': 0.1,
        'sample': 0,
        'text': 'abc',
        'place': 7,
    }
    return {**row, 'accuracy': 1.0, 'seed': 0, 'trained_length': 64, 'peak_bytes': 9, **changes}


def write(folder, found):
    folder.mkdir()
    (folder / 'results.jsonl').write_text(''.join(json.dumps(row) + '\n' for row in found))


def test_samples_become_means_by_length_and_by_length_and_depth(tmp_path):
    right = {(0.1, 0): 1.0, (0.1, 1): 0.0, (0.7, 0): 1.0, (0.7, 1): 1.0}
    made = [single(depth=d, sample=i, accuracy=a) for (d, i), a in right.items()]
    write(tmp_path / 'a', [single(accuracy=0.0), *made, single(length=128)])  # the first is an older one
    whole, longer = results.load([tmp_path])
    assert (whole['length'], whole['samples'], whole['accuracy']) == (64, 4, 0.75)
    assert whole['accuracy_stderr'] == pytest.approx(0.25)  # sqrt(3 / 4 * 1 / 4 / 3)
    assert not {'depth', 'sample', 'text', 'place', 'depth_stderr', 'windows'} & set(whole)
    assert (longer['length'], longer['samples'], longer['accuracy']) == (128, 1, 1.0)
    by_depth = results.load([tmp_path], keep=('depth',))
    cells = [(r['length'], r['depth'], r['accuracy'], r['samples']) for r in by_depth]
    assert cells == [(64, 0.1, 0.5, 2), (64, 0.7, 1.0, 2), (128, 0.1, 1.0, 1)]
    (comparison,) = results.compare([whole, longer])
    assert tables.build(comparison).rows[0][3].text == '0.75 ±0.25'


def test_seeds_are_averaged_cell_by_cell(tmp_path):
    for seed, accuracy in enumerate((1.0, 0.0, 0.5)):
        write(tmp_path / str(seed), [single(seed=seed, accuracy=accuracy), single(seed=seed, depth=0.7)])
    cells = results.load([tmp_path], keep=('depth',))
    assert [(r['depth'], r['accuracy'], r['seeds']) for r in cells] == [(0.1, 0.5, 3), (0.7, 1.0, 3)]
    figure = heatmap.draw(cells)
    assert 'means over 3 seeds' in figure.texts[1].get_text()
    (row,) = results.load([tmp_path])
    assert row['accuracy'] == pytest.approx(0.75) and row['seeds'] == 3
