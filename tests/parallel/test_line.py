"""Which devices form a line."""

from lcx.parallel.line import Line


def test_lines_of_neighbours_and_of_every_second_device():
    line = Line.of(('context',), (8,))
    assert line.groups() == [[0, 1, 2, 3, 4, 5, 6, 7]]
    outer, inner = line.split(2)
    assert outer.groups() == [[0, 2, 4, 6], [1, 3, 5, 7]]
    assert inner.groups() == [[0, 1], [2, 3], [4, 5], [6, 7]]
    assert outer.size * inner.size == line.size
