"""A report as one HTML page: tables that sort, figures inside, nothing that is fetched.

It is light or dark as the reader's system is, and prints. All that comes from results is escaped: labels are a user's
text. Figures are SVG images in data URIs, where no script of theirs could run and no names collide; a content policy
keeps the page from asking any network for anything.
"""

from __future__ import annotations

import base64
import itertools
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from html import escape

from lcx.viz.tables import Cell, Table

POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'"

STYLE = """
:root { color-scheme: light dark; --ink: #262626; --faint: #6b6b6b; --line: #ddd; --paper: #fff; --band: #f5f5f5;
  --best: #05603a; --link: #0060a8; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6e6e6; --faint: #a0a0a0; --line: #3a3a3a; --paper: #161616;
  --band: #222; --best: #6fd6a5; --link: #7cbcf5; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 1.5rem; max-width: 76rem; background: var(--paper); color: var(--ink);
  font: 15px/1.5 system-ui, "DejaVu Sans", Arial, sans-serif; }
h1 { font-size: 1.6rem; margin: 0 0 .5rem; }
h2 { font-size: 1.2rem; margin: 2.5rem 0 .75rem; padding-top: .75rem; border-top: 1px solid var(--line); }
h2 a { color: inherit; text-decoration: none; }
h3 { font-size: 1rem; margin: 1.5rem 0 .5rem; }
a { color: var(--link); }
code { font: .88em ui-monospace, "DejaVu Sans Mono", monospace; overflow-wrap: anywhere; }
nav ul { columns: 16rem; padding-left: 1.2rem; margin: .5rem 0; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: .92rem; }
td { vertical-align: top; }
th, td { padding: .25rem .7rem; border-bottom: 1px solid var(--line); text-align: right; white-space: nowrap; }
th:first-child, td:first-child, td.text, th.text { text-align: left; }
td.long { white-space: normal; min-width: 24rem; overflow-wrap: anywhere; }
thead th { border-bottom: 2px solid var(--faint); vertical-align: bottom; }
tbody tr:nth-child(even) { background: var(--band); }
td.best { font-weight: 700; color: var(--best); }
th button { all: unset; cursor: pointer; font-weight: 600; }
th button:focus-visible { outline: 2px solid var(--link); }
th[aria-sort=ascending] button::after { content: " ▲"; }
th[aria-sort=descending] button::after { content: " ▼"; }
p.caption { color: var(--faint); margin: .4rem 0 1rem; max-width: 60rem; }
figure { margin: 1rem 0; }
figure img { max-width: 100%; background: #fff; border-radius: 6px; }
@media print {
  :root { --ink: #000; --faint: #444; --line: #bbb; --paper: #fff; --band: #f5f5f5; --best: #000; --link: #000; }
  body { max-width: none; padding: 0; font-size: 10pt; }
  .wide { overflow: visible; }
  table { font-size: 8pt; }
  th, td { padding: .15rem .35rem; white-space: normal; overflow-wrap: anywhere; }
  td.long { min-width: 0; }
  th button::after { content: none !important; }
  figure, tr { break-inside: avoid; }
  h2, h3 { break-after: avoid; }
}
"""

# A click sorts by a column, another one the other way; what is not a number goes by its letters, what is absent last.
SCRIPT = """
for (const table of document.querySelectorAll('table')) {
  const heads = [...table.tHead.rows[0].cells], body = table.tBodies[0];
  heads.forEach((head, column) => head.querySelector('button').addEventListener('click', () => {
    const down = head.getAttribute('aria-sort') === 'ascending';
    const key = row => {
      const text = row.cells[column].textContent;
      const number = /^-?\\d+([.]\\d+)?(e[-+]?\\d+)?(?=\\s|%|$)/.test(text) ? parseFloat(text) : NaN;
      return { text, number, absent: text === '–' || text.startsWith('nan') };
    };
    const rows = [...body.rows].map(row => [key(row), row]);
    const numeric = rows.every(([k]) => k.absent || !Number.isNaN(k.number));
    rows.sort(([a], [b]) => {
      if (a.absent || b.absent) return a.absent - b.absent;
      const order = numeric ? a.number - b.number : a.text.localeCompare(b.text, undefined, { numeric: true });
      return down ? -order : order;
    });
    body.append(...rows.map(([, row]) => row));
    heads.forEach(other => other.removeAttribute('aria-sort'));
    head.setAttribute('aria-sort', down ? 'descending' : 'ascending');
  }));
}
"""

NUMBER = re.compile(r'(–|nan|-?inf|-?\d+(\.\d+)?(e[-+]?\d+)?)(\s|%|$)')  # how cells of numbers begin
LONG = 60  # characters of a cell, beyond which it may break into lines


@dataclass(frozen=True)
class Section:
    """A heading of the contents list with its tables, and figures by name as the bytes of SVG files."""

    name: str
    tables: Sequence[Table] = ()
    figures: Mapping[str, bytes] = field(default_factory=dict)
    note: str = ''


def sections(tables: Sequence[Table], figures: Mapping[str, bytes]) -> list[Section]:
    """A section of each table, with the figure of its name and those 'by' something; others have one of their own."""
    owner = {name: _owner(name, tables) for name in figures}
    found = [Section(t.name, (t,), {n: f for n, f in figures.items() if owner[n] == t.name}) for t in tables]
    return [*found, *(Section(name, (), {name: f}) for name, f in figures.items() if owner[name] is None)]


def render(title: str, command: str, parts: Sequence[Section]) -> str:
    """The page."""
    anchors = _anchors([part.name for part in parts])
    contents = '\n'.join(f'<li><a href="#{a}">{escape(p.name)}</a></li>' for a, p in zip(anchors, parts))
    body = '\n'.join(_section(anchor, part) for anchor, part in zip(anchors, parts))
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="{escape(POLICY)}">
<title>{escape(title)}</title>
<style>{STYLE}</style>
</head>
<body>
<h1>{escape(title)}</h1>
<p>Made by <code>{escape(command)}</code>. A click on the head of a column sorts by it.</p>
<nav aria-label="Contents"><ul>
{contents}
</ul></nav>
<main>
{body}
</main>
<script>{SCRIPT}</script>
</body>
</html>
"""


def _section(anchor: str, part: Section) -> str:
    pieces = [f'<h2><a href="#{anchor}">{escape(part.name)}</a></h2>']
    if part.note:
        pieces.append(f'<p class="caption">{escape(part.note)}</p>')
    for table in part.tables:
        if table.name != part.name:
            pieces.append(f'<h3>{escape(table.name)}</h3>')
        pieces.append(_table(table))
    for name, svg in part.figures.items():
        image = base64.b64encode(svg).decode()
        pieces.append(f'<figure><img alt="{escape(name)}" src="data:image/svg+xml;base64,{image}"></figure>')
    return f'<section id="{anchor}">\n' + '\n'.join(pieces) + '\n</section>'


def _table(table: Table) -> str:
    columns = list(zip(*table.rows))
    kinds = [_kind(column) for column in columns] or [''] * len(table.head)
    heads = ''.join(
        f'<th scope="col"{_class("text" if kind else "")}><button type="button">{escape(text)}</button></th>'
        for text, kind in zip(table.head, kinds)
    )
    rows = '\n'.join(
        '<tr>' + ''.join(_cell(cell, kind) for cell, kind in zip(row, kinds)) + '</tr>' for row in table.rows
    )
    return (
        f'<div class="wide"><table>\n<thead><tr>{heads}</tr></thead>\n<tbody>\n{rows}\n</tbody>\n</table></div>\n'
        f'<p class="caption">{escape(table.caption)}</p>'
    )


def _cell(cell: Cell, kind: str) -> str:
    names = f'{kind} {"best" if cell.best else ""}'.strip()
    return f'<td{_class(names)}>{escape(cell.text)}</td>'


def _kind(column: Sequence[Cell]) -> str:
    """'' of numbers, 'text' of anything else, 'text long' where it may break."""
    if max(len(cell.text) for cell in column) > LONG:
        return 'text long'
    return '' if all(NUMBER.match(cell.text) for cell in column) else 'text'


def _class(names: str) -> str:
    return f' class="{names}"' if names else ''


def _owner(figure: str, tables: Sequence[Table]) -> str | None:
    """The table that a figure belongs to: of its name, or of the beginning of its name before '_by_'."""
    names = {table.name for table in tables}
    if figure in names:
        return figure
    before = figure.rpartition('_by_')[0]
    return before if before in names else None


def _anchors(names: Sequence[str]) -> list[str]:
    """A distinct id for each name, of letters, digits and hyphens."""
    found: list[str] = []
    for name in names:
        base = re.sub(r'[^a-z0-9]+', '-', name.lower()).strip('-') or 'section'
        tried = (base if n == 1 else f'{base}-{n}' for n in itertools.count(1))
        found.append(next(anchor for anchor in tried if anchor not in found))
    return found
