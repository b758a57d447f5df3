"""What runs are: cost, settings that differ, and starts, from the files of workdirs."""

import json

import pytest

from lcx.viz import runs


def attempt(**more):
    return {
        'started': '2026-01-01T00:00:00+00:00',
        'command': ['/home/me/lcx/__main__.py', 'eval', '--config.label=a b'],
        'git': '0123456789abcdef0123456789abcdef01234567-dirty',
        'versions': {'python': '3.11.7', 'jax': '0.10.2'},
        'devices': {'cpu': 1},
        'host': 'secret',
        'pid': 7,
        **more,
    }


def row(**more):
    common = {'label': 'a', 'evaluator': 'perplexity', 'length': 64, 'seconds': 1.5, 'peak_bytes': 2_000_000}
    return {**common, 'seed': 0, 'step': 10, **more}


def write(directory, rows, config=None, attempts=None):
    directory.mkdir(parents=True)
    (directory / 'results.jsonl').write_text(''.join(json.dumps(r) + '\n' for r in rows))
    if config is not None:
        (directory / 'config.json').write_text(json.dumps(config))
    if attempts is not None:
        (directory / 'run.json').write_text(json.dumps({'attempts': attempts}))


def texts(table):
    return [[cell.text for cell in line] for line in table.rows]


def test_three_tables_of_two_runs(tmp_path):
    config = {
        'seed': 0,
        'model': {'position': {'name': 'rope'}},
        'stages': [{'length': 64}],
        'lengths': [1, 2],
    }
    write(
        tmp_path / 'base',
        [row(run='base'), row(run='base', length=128, peak_bytes=9_000_000)],
        config,
        [attempt()],
    )
    other = {**config, 'model': {'position': {'name': 'yarn', 'factor': 4.0}}, 'stages': [{'length': 128}]}
    newest = attempt(versions={'python': '3.11.7', 'jax': '0.11.0'}, started='2026-01-02T00:00:00+00:00')
    write(tmp_path / 'yarn', [row(run='yarn', label='b', position='yarn')], other, [attempt(), newest])
    costs, settings, starts = runs.tables(runs.load([tmp_path]))
    assert texts(costs) == [
        ['base', 'a', '0', '10', '–', '–', 'perplexity', '3.0', '9'],
        ['yarn', 'b', '0', '10', 'yarn', '–', 'perplexity', '1.5', '2'],
    ]
    assert settings.head == ('run', 'model.position.name', 'stages[0].length', 'model.position.factor')
    assert texts(settings) == [['base', 'rope', '64', '–'], ['yarn', 'yarn', '128', '4.0']]
    assert '2 others are the same in all 2 runs' in settings.caption
    assert starts.head == ('run', 'started', 'starts', 'jax', 'command')
    assert texts(starts)[1] == [
        'yarn',
        '2026-01-02T00:00:00+00:00',
        '2',
        '0.11.0',
        "lcx eval '--config.label=a b'",
    ]
    assert 'In all: git 0123456789ab-dirty; devices 1 x cpu; python 3.11.7.' in starts.caption
    assert not any('secret' in str(table) for table in (costs, settings, starts))


def test_a_file_of_many_runs_tells_of_each(tmp_path):
    write(tmp_path / 'x', [row(run='one'), row(run='two', label='b'), row(run='two', label='b', length=128)])
    (costs,) = runs.tables(runs.load([tmp_path / 'x']))
    assert [(line[0], line[7]) for line in texts(costs)] == [('one', '1.5'), ('two', '3.0')]


def test_seconds_of_one_call_are_no_cost(tmp_path):
    write(tmp_path / 'x', [row(implementation='dense')])
    assert texts(runs.costs(runs.load([tmp_path])))[0][7] == '–'


@pytest.mark.parametrize('content', ['{"attempts": 3}', '[1]', '{', '{"attempts": ["x", {}]}'])
def test_broken_facts_are_left_out(tmp_path, content):
    write(tmp_path / 'x', [row()])
    for name in ('config.json', 'run.json'):
        (tmp_path / 'x' / name).write_text(content)
    tables = runs.tables(runs.load([tmp_path]))
    assert [t.name for t in tables] == ['costs', *(['starts'] if '{}' in content else [])]


def test_leaves_by_path():
    nested = {'a': {'b': 1, 'c': {}}, 'd': [{'e': [1, 2]}, {'e': None}]}
    assert runs.flat(nested) == {'a.b': 1, 'a.c': {}, 'd[0].e': [1, 2], 'd[1].e': None}
