"""Attention by distance as tables and figures, and maps of probabilities."""

import numpy as np
import pytest

from lcx.viz import attention, curves

BUCKETS = ((0, 1), (1, 2), (2, 4), (4, 8))


def rows(layers=(0, 3), heads=(1, 2), **more):
    common = {
        'label': 'a',
        'evaluator': 'attention',
        'length': 8,
        'first': 4,
        'entropy': 1.5,
        'first_mass': 0.4,
    }
    return [
        {**common, 'layer': layer, 'head': head, 'bucket_start': a, 'bucket_end': b, 'mass': mass, **more}
        for layer in layers
        for head in heads
        for (a, b), mass in zip(BUCKETS, (0.3, 0.1 * head, 0.1, 0.0))
    ]


def test_rows_of_heads_are_told_from_others():
    other = {'label': 'a', 'evaluator': 'passkey', 'length': 8, 'accuracy': 1.0}
    assert attention.split([*rows(), other]) == (rows(), [other])


def test_a_table_has_a_row_for_each_head_and_marks_the_most():
    (table,) = attention.tables(rows())
    assert table.name == 'attention_by_distance'
    assert table.head == ('head', 'entropy', 'first 4', '0', '1', '2–3', '4–7')
    assert [line[0].text for line in table.rows][:2] == ['layer 0, head 1', 'layer 0, head 2']
    assert [cell.text for cell in table.rows[1]][1:] == ['1.500', '0.400', '0.300', '0.200', '0.100', '0.000']
    assert [line[4].best for line in table.rows] == [False, True, False, True]
    assert 'a, 8 tokens' in table.caption


def test_labels_and_lengths_have_tables_and_figures_of_their_own():
    mine = [*rows(), *rows(label='b'), *rows(length=16)]
    names = ['attention_by_distance', 'attention_by_distance_2', 'attention_by_distance_3']
    assert [t.name for t in attention.tables(mine)] == names == list(attention.figures(mine))


def test_a_panel_for_each_layer_or_one_of_means():
    figure = attention.draw(rows())
    titles = [axes.get_title(loc='left') for axes in figure.axes]
    assert titles == ['', 'layer 0', '', 'layer 3']
    lines = {line.get_label(): line for line in figure.axes[1].get_lines()}
    assert list(lines) == ['even', 'head 1', 'head 2']
    np.testing.assert_allclose(lines['head 2'].get_ydata(), [0.3, 0.2, 0.1, 0.0])
    figure = attention.draw(rows(layers=range(20)))
    assert [axes.get_title(loc='left') for axes in figure.axes] == ['', 'means over heads']
    lines = {line.get_label(): line for line in figure.axes[1].get_lines()}
    assert len(lines) == 21
    np.testing.assert_allclose(lines['layer 7'].get_ydata(), [0.3, 0.15, 0.1, 0.0])
    assert curves.render(figure, 'png') == curves.render(attention.draw(rows(layers=range(20))), 'png')


@pytest.mark.parametrize('length', [3, 8, 13])
def test_even_attention_by_its_definition(length):
    t = np.arange(length)
    far = t[:, None] - t
    p = np.where((far >= 0) & (t >= 4), 1 / (t[:, None] + 1), 0)
    bounds = ((0, 1), (1, 2), (2, 4), (4, 8), (8, 16))
    expected = [p[(a <= far) & (far < b)].sum() / length for a, b in bounds]
    np.testing.assert_allclose(attention.evenly(length, 4, bounds), expected, atol=1e-12)


def test_maps_are_logarithmic_white_where_nothing_is_and_say_their_cells():
    picture = np.tril(np.full((4, 4), 0.25, np.float32))
    figure = attention.draw_maps({2: picture, 5: picture}, label='$x$ <b>', layer=1, length=8)
    assert [axes.get_title(loc='left') for axes in figure.axes[:2]] == ['head 2', 'head 5']
    shown = figure.axes[0].get_images()[0]
    assert shown.norm.vmin == 0.01 and shown.norm.vmax == 1.0
    assert shown.get_array().mask[0].tolist() == [False, True, True, True]
    assert figure.axes[0].get_xlabel() and figure.axes[1].get_ylabel() == ''
    assert '$x$ <b>, 8 tokens, means over cells of 2 x 2' in [text.get_text() for text in figure.texts]
    assert b'$x$ &lt;b&gt;' in curves.render(figure, 'svg')
