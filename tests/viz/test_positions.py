"""lcx report --positions: the table of the registry and the figure of frequencies."""

import numpy as np
import pytest
from absl import flags as absl_flags

from lcx.attention import REGIONS
from lcx.errors import ConfigError
from lcx.launch import methods, report
from lcx.models.mixers import MIXERS
from lcx.positions import ABOUT
from lcx.viz import positions


def run(*argv):
    flags = absl_flags.FlagValues()
    report.define(flags, argv)
    report.run(flags, flags(['lcx report', *argv])[1:])


def test_report_prints_the_table_and_names_the_files(tmp_path, capsys):
    run('--positions', f'--out={tmp_path / "deep"}')
    out = capsys.readouterr().out
    names = ['positions.md', 'positions.png', 'positions.svg']
    assert sorted(p.name for p in (tmp_path / 'deep').iterdir()) == names
    assert all(f'wrote {tmp_path / "deep" / name}\n' in out for name in names)
    table = (tmp_path / 'deep' / 'positions.md').read_text()
    assert out.startswith(table)
    head, rule, *rows = table.splitlines()
    names = [row.split('|')[1].strip() for row in rows]
    assert names[: len(ABOUT)] == [f'`{name}`' for name in ABOUT]
    fields = {
        **dict.fromkeys(REGIONS, 'regions'),
        **{name: 'mixer' for name in MIXERS if name != 'attention'},
    }
    assert names[len(ABOUT) :] == [f'`{name}` ({field})' for name, field in fields.items()]
    assert {line.count('|') for line in (head, rule, *rows)} == {8}
    line = next(row for row in rows if row.startswith('| `dynamic_ntk` |'))
    assert '| no | no | none | `dynamic` |' in line


def test_directories_and_positions_do_not_go_together(tmp_path):
    with pytest.raises(ConfigError, match=str(tmp_path)):
        run('--positions', str(tmp_path))


def test_curves_are_the_methods():
    base, *others = methods.curves(64)
    assert base.label == 'rope' and all(c.wavelengths.shape == (32,) for c in others)
    found = {c.label: base.wavelengths / c.wavelengths for c in others}
    np.testing.assert_allclose(found['pi'], 1 / 8)
    np.testing.assert_allclose(found['ntk'], found['dynamic_ntk'], rtol=1e-5)
    np.testing.assert_allclose(found['ntk'][[0, -1]], [1, 1 / 8])
    for ramp in ('yarn', 'ntk_by_parts', 'llama3'):
        assert found[ramp][0] == 1 and found[ramp][-1] == 1 / 8 and np.all(np.diff(found[ramp]) <= 0)
    assert set(found['p_rope']) == {0, 1}


def test_figure_shows_every_method_at_every_head_size():
    sizes = {h: methods.curves(h) for h in (8, 16)}
    figure = positions.draw(sizes, trained=4096, length=32768)
    assert len(figure.axes) == 4
    names = [text.get_text() for text in figure.legends[0].get_texts()]
    assert [name.split()[0] for name in names] == list(methods.FREQUENCIES)
    assert 'yarn (scale 1.208)' in names
    for axes, head_dim in zip(figure.axes, (8, 16, 8, 16)):
        lines = axes.get_lines()[: len(names)]
        assert all(len(line.get_xdata()) == head_dim // 2 for line in lines)
    marks = {text.get_text() for text in figure.axes[0].texts}
    assert marks == {'trained: 4k', 'in use: 32k'}
