"""lcx report, from the command line's arguments to the files."""

import json

import pytest
from absl import flags as absl_flags

from lcx.errors import ConfigError, DataError, StorageError
from lcx.launch import report


def report_on(*argv):
    flags = absl_flags.FlagValues()
    report.define(flags, argv)
    report.run(flags, flags(['lcx report', *argv])[1:])


@pytest.fixture
def runs(tmp_path):
    for name, offset in (('base', 0.5), ('yarn', 0.0)):
        common = {'label': name, 'run': name, 'seed': 0, 'step': 10, 'trained_length': 64}
        rows = []
        for i, length in enumerate((64, 128)):
            score = {'last_bits_per_byte': 2.0 + i * offset, 'last': 16, 'windows': 2}
            rows.append({'evaluator': 'perplexity', 'length': length, **score})
            rows.append({'evaluator': 'passkey', 'length': length, 'accuracy': 0.0, 'samples': 2})
            rows.append({'evaluator': 'novel', 'length': length, 'elegance': 1.0})
        (tmp_path / name).mkdir()
        lines = [json.dumps({**common, **row}) + '\n' for row in rows]
        (tmp_path / name / 'results.jsonl').write_text(''.join(lines))
    return tmp_path


def test_report_prints_tables_and_names_the_files(runs, capsys):
    report_on(str(runs))
    out = capsys.readouterr().out
    table = """\
| label | trained at | 64 (1x)† | 128 (2x) |
| :---- | ---------: | -------: | -------: |
| base  |         64 |     2.00 |     2.50 |
| yarn  |         64 |     2.00 | **2.00** |
"""
    assert table in out and '\x1b' not in out
    assert 'novel: not shown; its rows have none of the columns last_bits_per_byte' in out
    folder = runs / 'figures'
    names = {'report.html', 'report.md', 'perplexity.png', 'perplexity.svg'}
    assert {p.name for p in folder.iterdir()} == names  # all-zero accuracy has no figure
    assert all(f'wrote {folder / name}\n' in out for name in names)
    text = (folder / 'report.md').read_text()
    assert table in text and f'`lcx report {runs}`' in text
    assert '![perplexity](perplexity.png)' in text and 'passkey.png' not in text
    assert 'No answer was right, at any length.' in text


def test_depths_have_a_figure_of_their_own(runs):
    row = {'label': 'base', 'evaluator': 'needle', 'length': 64, 'accuracy': 1.0, 'trained_length': 64}
    with (runs / 'base' / 'results.jsonl').open('a') as file:
        for depth in (0.0, 0.5):
            file.write(json.dumps({**row, 'depth': depth, 'sample': 0, 'text': 'x'}) + '\n')
    report_on(str(runs))
    names = {'needle.png', 'needle.svg', 'needle_by_depth.png', 'needle_by_depth.svg'}
    assert names <= {p.name for p in (runs / 'figures').iterdir()}
    text = (runs / 'figures' / 'report.md').read_text()
    assert '![needle_by_depth](needle_by_depth.png)' in text and '| 1.00 ±0.00 |' in text


def test_the_page_has_all_of_it_and_what_the_runs_are(runs):
    for name in ('base', 'yarn'):
        (runs / name / 'config.json').write_text(json.dumps({'model': {'position': name, 'width': 8}}))
    report_on(str(runs))
    text = (runs / 'figures' / 'report.html').read_text()
    assert all(f'<section id="{name}">' in text for name in ('perplexity', 'passkey', 'runs'))
    assert text.count('src="data:image/svg+xml;base64,') == 1
    assert '>model.position</button>' in text and 'model.width' not in text
    assert 'novel: not shown; its rows have none of the columns' in text


def test_many_directories_write_to_report_here_or_where_asked(runs, monkeypatch):
    monkeypatch.chdir(runs)
    report_on('base', 'yarn')
    assert (runs / 'report' / 'report.md').exists()
    report_on('base', 'yarn', '--out=elsewhere/deep')
    assert (runs / 'elsewhere' / 'deep' / 'perplexity.svg').exists()


def test_second_report_replaces_the_first(runs):
    report_on(str(runs))
    before = {path.name: path.read_bytes() for path in (runs / 'figures').iterdir()}
    report_on(str(runs))
    assert {path.name: path.read_bytes() for path in (runs / 'figures').iterdir()} == before


def test_errors_name_the_way_out(runs, tmp_path):
    with pytest.raises(ConfigError, match='lcx report runs'):
        report_on()
    with pytest.raises(DataError, match='no such directory'):
        report_on(str(tmp_path / 'absent'))
    (runs / 'file').write_text('')
    with pytest.raises(StorageError, match=f'--out={runs}/file/x: cannot write'):
        report_on(str(runs), f'--out={runs}/file/x')
