"""``lcx search-factors``: from a trained run to lists that lcx eval takes, through kills and wrong flags."""

import json

import jax
import numpy as np
import pytest

from lcx.launch import factors as putting_together
from tests.running import CONFIGS, lcx, on_corpus, rows

LENGTH = 256  # of a run trained at 64


@pytest.fixture(scope='module')
def trained(tmp_path_factory):
    """A run with RoPE at length 64."""
    directory = tmp_path_factory.mktemp('search')
    words = ['train', f'--config={CONFIGS}/base.py:smoke', *on_corpus(directory)]
    assert lcx(*words, "--config.eval.run=('perplexity',)", f'--workdir={directory}/rope') == 0
    return directory / 'rope'


def search(trained, workdir, *more):
    words = (f'--init={trained}', f'--workdir={workdir}', f'--length={LENGTH}', '--population=6', *more)
    return lcx('search-factors', *words)


@pytest.fixture(scope='module')
def found(trained, tmp_path_factory):
    """The workdir of a whole search of three generations."""
    workdir = tmp_path_factory.mktemp('found') / 'factors'
    assert search(trained, workdir, '--iterations=3') == 0
    return workdir


def result(workdir):
    """What a search found, without the time it took."""
    without = [{**row, 'seconds': 0, 'run': ''} for row in rows(workdir / 'results.jsonl')]
    return without, json.loads((workdir / 'factors.json').read_text())


def test_a_row_for_each_generation_and_a_best_that_only_falls(found):
    written, best = result(found)
    assert [row['generation'] for row in written] == [0, 1, 2, 3]
    scores = [row['best_ppl'] for row in written]
    assert scores == sorted(scores, reverse=True) and all(r['mean_ppl'] >= r['best_ppl'] for r in written)
    assert best['ppl'] == scores[-1] <= min(best['known_ppl'].values())
    assert set(best['known_ppl']) == {'pi', 'ntk', 'yarn'} and best['length'] == LENGTH
    lists = best['position']['long_factor']
    assert len(lists) == 8 and lists == sorted(lists) and best['position']['short_factor'] == [1.0] * 8


def test_the_flags_it_writes_evaluate_to_what_it_found(found, trained, tmp_path):
    best = json.loads((found / 'factors.json').read_text())
    words = ('eval', f'--init={trained}', f'--workdir={tmp_path}/run', *best['flags'], '--config.label=found')
    assert lcx(*words, f'--config.eval.lengths=(64, {LENGTH})') == 0
    measured = [row for row in rows(tmp_path / 'run' / 'results.jsonl') if row['evaluator'] == 'perplexity']
    assert [(row['position'], row['label']) for row in measured] == [('longrope', 'found')] * 2
    own = [row for row in rows(trained / 'results.jsonl') if row['evaluator'] == 'perplexity']
    lengths = {row['length']: row['ppl'] for row in own}
    assert measured[1]['length'] == LENGTH and measured[1]['ppl'] != lengths[LENGTH]


def test_the_objective_is_the_perplexity_of_lcx_eval(found, trained, tmp_path, monkeypatch):
    """Searched on the split of evaluations, the best list has there the perplexity that lcx eval then measures."""
    from lcx.data import tokens

    validation = lambda config, split: open_tokens(config, 'validation')  # noqa: E731
    open_tokens = tokens.open_tokens
    monkeypatch.setattr(tokens, 'open_tokens', validation)
    assert search(trained, tmp_path / 'search', '--iterations=1') == 0
    best = json.loads((tmp_path / 'search' / 'factors.json').read_text())
    words = ('eval', f'--init={trained}', f'--workdir={tmp_path}/run', *best['flags'])
    assert lcx(*words, f'--config.eval.lengths=({LENGTH},)') == 0
    measured = rows(tmp_path / 'run' / 'results.jsonl')[0]
    np.testing.assert_allclose(measured['ppl'], best['ppl'], rtol=1e-4)


@pytest.mark.parametrize('evaluated', [3, 8, 14])  # in the first generation, in a later one, before the last
def test_a_killed_search_goes_on_to_the_same_result(found, trained, tmp_path, monkeypatch, evaluated):
    """Killed between two evaluations, once with a row written whose generation was not saved."""
    made, count = putting_together.objective_of, []

    def objective_of(*arguments):
        objective = made(*arguments)

        def killed(params, factors):
            count.append(factors)
            if len(count) == evaluated:
                raise KeyboardInterrupt
            return objective(params, factors)

        return killed

    with monkeypatch.context() as patched:
        patched.setattr(putting_together, 'objective_of', objective_of)
        assert search(trained, tmp_path / 'factors', '--iterations=3') == 130
    assert not (tmp_path / 'factors' / 'factors.json').exists()
    path = tmp_path / 'factors' / 'results.jsonl'
    path.write_text(
        path.read_text() + json.dumps({**rows(found / 'results.jsonl')[-1], 'best_ppl': 0.0}) + '\n'
    )
    assert search(trained, tmp_path / 'factors', '--iterations=3') == 0
    assert result(tmp_path / 'factors') == result(found)


def test_a_finished_search_does_nothing_and_one_of_more_iterations_goes_on(trained, tmp_path, found):
    workdir = tmp_path / 'factors'
    assert search(trained, workdir, '--iterations=1') == search(trained, workdir, '--iterations=1') == 0
    assert len(rows(workdir / 'results.jsonl')) == 2
    assert search(trained, workdir, '--iterations=3') == 0
    assert result(workdir) == result(found)


def test_one_program_is_compiled_for_all_lists(trained, tmp_path, monkeypatch):
    traces = []

    def score(*arguments, **named):
        traces.append(1)
        return scored(*arguments, **named)

    scored = putting_together.score
    monkeypatch.setattr(putting_together, 'score', score)
    assert search(trained, tmp_path / 'factors', '--iterations=1') == 0
    assert traces == [1]


def test_layer_kinds_with_a_position_of_their_own_keep_it(trained):
    from lcx.config import Options
    from lcx.models import LayerKind
    from tests.models.tiny import changed

    local = LayerKind(position=Options(name='rope', theta=50.0))
    config = changed(kinds={'full': LayerKind(), 'local': local}, pattern=('local', 'full'), trained_length=8)
    model = putting_together.searched_model(config, 32, None)
    assert 'factors' in model.read_position('full', 32).init(None)
    assert not jax.tree.leaves(model.read_position('local', 32).init(None))


@pytest.mark.parametrize(
    ('more', 'message'),
    [
        (('--length=100',), '--length: 100 is not a power of two; the next is 128'),
        (('--length=64',), '--length: 64 does not exceed the original length, 64 tokens'),
        (('--length=-1',), '--length: -1 is not a power of two'),
        (('--population=3',), '--population: 3 must be at least 4'),
        (('--iterations=0',), '--iterations: 0 must be at least 1'),
        (('--attention_factor=0',), '--attention_factor: 0.0 must be greater than 0'),
        (('--config.model.position.name=yarn',), "unknown 'yarn'"),
        (('--config.data.source=task:copy', '--config.data.files=()'), "data.source: 'task:copy' is a task"),
        (('--config=x.py',), 'search-factors takes the configuration of the run itself'),
        (('--poplation=8',), "Did you mean '--population'?"),
        (('more',), "'more' is not a flag"),
    ],
)
def test_a_wrong_command_line_is_explained(trained, tmp_path, capsys, more, message):
    assert search(trained, tmp_path / 'new', *more) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / 'new').exists()


@pytest.mark.parametrize('missing', ['--init', '--workdir', '--length'])
def test_flags_that_are_missing_are_named(trained, tmp_path, capsys, missing):
    given = {'--init': trained, '--workdir': tmp_path / 'new', '--length': 128}
    words = [f'{name}={value}' for name, value in given.items() if name != missing]
    assert lcx('search-factors', *words) == 2
    assert f'{missing} is required' in capsys.readouterr().err


def test_another_search_in_the_same_workdir_is_refused(found, trained, capsys):
    assert search(trained, found, '--iterations=3', '--config.eval.windows=3') == 2
    assert 'windows: 2 -> 3' in capsys.readouterr().err


def test_a_state_that_cannot_be_read_is_said(trained, tmp_path, capsys):
    (tmp_path / 'factors').mkdir()
    (tmp_path / 'factors' / 'search.json').write_text('{"generation": 1')
    assert search(trained, tmp_path / 'factors') == 5
    assert 'search.json: cannot be read' in capsys.readouterr().err
