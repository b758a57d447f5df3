"""``lcx attention``: from a run and a text to figures, rows and their report; and what it refuses."""

import io

import numpy as np
import pytest

from tests.running import CONFIGS, lcx, on_corpus, rows

TEXT = 'the sky of the key is the token of the window, and the sun is the length of the grass'


@pytest.fixture(scope='module')
def trained(tmp_path_factory):
    directory = tmp_path_factory.mktemp('attention')
    words = ['train', f'--config={CONFIGS}/base.py:smoke', *on_corpus(directory)]
    assert lcx(*words, '--config.eval.run=()', f'--workdir={directory}/rope') == 0
    return directory / 'rope'


def look(trained, workdir, *more, prompt=TEXT):
    return lcx('attention', f'--init={trained}', f'--workdir={workdir}', f'--prompt={prompt}', *more)


def test_figures_rows_and_a_report_of_them(trained, tmp_path, capsys):
    assert look(trained, tmp_path / 'heads', '--layers=1', '--heads=1,0', '--config.label=<me>') == 0
    out = capsys.readouterr().out
    assert '| layer 1, head 0 |' in out and '**' in out
    names = {f'{n}.{k}' for n in ('attention_layer_1', 'attention_by_distance') for k in ('png', 'svg')}
    folder = tmp_path / 'heads' / 'figures'
    assert {path.name for path in folder.iterdir()} == names
    assert all(f'wrote {folder / name}' in out for name in names)
    written = rows(tmp_path / 'heads' / 'results.jsonl')
    assert {(r['layer'], r['head']) for r in written} == {(1, 0), (1, 1)}
    assert {(r['evaluator'], r['label'], r['length']) for r in written} == {('attention', '<me>', len(TEXT))}
    mine = [r for r in written if r['head'] == 1]
    np.testing.assert_allclose(sum(r['mass'] for r in mine) + mine[0]['first_mass'], 1, atol=1e-5)
    assert [r['bucket_end'] for r in mine] == [1, 2, 4, 8, 16, 32, 64, 128]
    assert lcx('report', tmp_path / 'heads') == 0
    out = capsys.readouterr().out
    assert '| layer 1, head 1 |' in out and 'not shown' not in out
    page = (folder / 'report.html').read_text()
    assert 'layer 1, head 1' in page and '&lt;me&gt;, 85 tokens' in page and '<me>' not in page


def test_the_text_of_a_file_is_cut_and_layers_have_a_default(trained, tmp_path):
    file = tmp_path / 'text.txt'
    file.write_text(TEXT)
    words = (f'--init={trained}', f'--workdir={tmp_path}/heads', f'--prompt_file={file}', '--tokens=9')
    assert lcx('attention', *words, '--heads=all') == 0
    written = rows(tmp_path / 'heads' / 'results.jsonl')
    assert {r['length'] for r in written} == {9} and {r['layer'] for r in written} == {0, 1}


@pytest.mark.parametrize(
    ('more', 'message'),
    [
        (('--layers=0,7',), "--layers: '7' is none of the model: it has 0 to 1"),
        (('--layers=-1',), "--layers: '-1' is none of the model"),
        (('--heads=x',), "--heads: 'x' is none of the model: it has 0 to "),
        (('--prompt=a',), '--prompt: the text has 1 token(s); it must have at least 2'),
        (('--prompt_file=a',), 'give one of them'),
        (('--tokens=0',), '--tokens'),
        (('--layer=1',), "Did you mean '--layers'?"),
        (('more',), "'more' is not a flag"),
    ],
)
def test_a_wrong_command_line_is_explained(trained, tmp_path, capsys, more, message):
    assert look(trained, tmp_path / 'new', *more) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / 'new').exists()


def test_a_text_may_come_through_stdin(trained, tmp_path, monkeypatch):
    monkeypatch.setattr('sys.stdin', io.TextIOWrapper(io.BytesIO(TEXT.encode())))
    words = (f'--init={trained}', f'--workdir={tmp_path}/heads', '--layers=0', '--heads=0')
    assert lcx('attention', *words) == 0
    assert {r['length'] for r in rows(tmp_path / 'heads' / 'results.jsonl')} == {len(TEXT)}
