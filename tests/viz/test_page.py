"""The page of a report, read back with an HTML parser: well formed, escaped, complete, and without a network."""

import base64
from html.parser import HTMLParser

import pytest

from lcx.viz import page
from lcx.viz.tables import Cell, Table

HOSTILE = '<img src=x onerror="alert(1)">&\'$x$'
VOID = {'meta', 'img'}


class Reader(HTMLParser):
    """Elements with their attributes, texts by element, and whether every element is closed in order."""

    def __init__(self, text):
        super().__init__()
        self.open, self.elements, self.texts = [], [], {}
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and data.strip():
            self.texts.setdefault(self.open[-1], []).append(data)

    def of(self, tag):
        return [attributes for name, attributes in self.elements if name == tag]


def table(name='a', texts=(('x', '1.00 ±0.10'), (HOSTILE, '–')), best=(0, 1)):
    rows = tuple(tuple(Cell(t, (i, j) == best) for j, t in enumerate(line)) for i, line in enumerate(texts))
    return Table(name, ('label', '64 (1x)†'), rows, f'Caption of {name}.')


def read(*parts, title='Results', command='lcx report runs'):
    return Reader(page.render(title, command, parts))


def test_every_table_and_figure_is_there_and_whole():
    figures = {'a': b'<svg>a</svg>', 'a_by_depth': b'<svg>d</svg>', 'other': b'<svg>o</svg>'}
    parts = page.sections([table('a'), table('b')], figures)
    assert [(p.name, [t.name for t in p.tables], list(p.figures)) for p in parts] == [
        ('a', ['a'], ['a', 'a_by_depth']),
        ('b', ['b'], []),
        ('other', [], ['other']),
    ]
    found = read(*parts)
    assert found.texts['button'] == ['label', '64 (1x)†'] * 2
    assert found.texts['td'] == ['x', '1.00 ±0.10', HOSTILE, '–'] * 2
    images = [base64.b64decode(i['src'].removeprefix('data:image/svg+xml;base64,')) for i in found.of('img')]
    assert images == list(figures.values()) and [i['alt'] for i in found.of('img')] == list(figures)
    assert [c.get('class') for c in found.of('td')][:4] == ['text', 'best', 'text', None]


def test_anchors_are_distinct_and_the_contents_lead_to_them():
    names = ['a b', 'A-b', HOSTILE, '†', 'a-b-2']
    found = read(*(page.Section(name) for name in names))
    ids = [s['id'] for s in found.of('section')]
    assert len(set(ids)) == len(names) and ids[:2] == ['a-b', 'a-b-2'] and ids[3] == 'section'
    assert [a['href'] for a in found.of('a')][: len(ids)] == [f'#{i}' for i in ids]


def test_whatever_the_text_it_stays_text():
    part = page.Section(HOSTILE, [table(HOSTILE)], {HOSTILE: b'<script>'}, note=HOSTILE)
    found = read(part, title=HOSTILE, command=HOSTILE)
    assert found.texts['title'] == found.texts['h1'] == found.texts['code'] == [HOSTILE]
    assert len(found.of('img')) == len(found.of('script')) == 1
    assert all(set(attributes) <= {'alt', 'src'} for attributes in found.of('img'))


def test_nothing_is_fetched():
    text = page.render('Results', 'lcx report runs', page.sections([table()], {'a': b'<svg/>'}))
    (policy,) = [m['content'] for m in Reader(text).of('meta') if 'http-equiv' in m]
    assert policy.startswith("default-src 'none'") and 'img-src data:' in policy
    assert not any(word in text for word in ('http:', 'https:', '@import', 'url(', '<link', 'src="/'))


@pytest.mark.parametrize(
    ('texts', 'kind'),
    [
        (('1.00 ±0.10', '–', '-0.06', 'nan'), ''),
        (('12.3 (0.50×)', '3 %'), ''),
        (('405b2d234251', '12'), 'text'),
        (('2026-11-25T19:55:54+00:00',), 'text'),
        (('rope', '1'), 'text'),
        (('lcx eval ' + 'x' * 60,), 'text long'),
    ],
)
def test_columns_of_numbers_are_told_from_words(texts, kind):
    assert page._kind([Cell(t) for t in texts]) == kind


def test_a_table_without_rows_is_a_table():
    assert read(page.Section('a', [Table('a', ('x', 'y'), (), 'none')])).texts['button'] == ['x', 'y']
