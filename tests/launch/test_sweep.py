"""``lcx sweep``: the commands it starts, what it refuses, and that it goes on where it stopped."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from lcx.errors import ConfigError
from lcx.launch import sweep
from lcx.launch.experiment import experiment_config, values_of
from lcx.launch.flags import load_config
from tests.running import lcx, on_corpus, rows

EXPERIMENT = 'experiments/001_extend_small/sweep.py'


def test_a_run_is_a_command():
    train = {
        'name': 'tuned',
        'verb': 'train',
        'config': 'c.py:demo',
        'init': 'base',
        'set': {'label': 'PI, tuned'},
    }
    evaluation = {'name': 'pi', 'verb': 'eval', 'init': 'base', 'set': {'model.position.name': 'pi'}}
    assert sweep.command(train, Path('w')) == [
        'train', '--workdir=w/tuned', '--config=c.py:demo', '--config.init_from=w/base', '--config.label=PI, tuned',
    ]  # fmt: skip
    assert sweep.command(evaluation, Path('w')) == [
        'eval', '--workdir=w/pi', '--init=w/base', '--config.model.position.name=pi',
    ]  # fmt: skip
    fetched = {'name': 'model', 'verb': 'convert', 'src': 'smollm2'}
    assert sweep.command(fetched, Path('w')) == ['convert', '--dst=w/model', '--src=smollm2']
    written = {'name': 'out', 'verb': 'convert', 'init': 'tuned'}
    assert sweep.command(written, Path('w')) == ['convert', '--dst=w/out', '--src=w/tuned']
    assert sweep.command({**evaluation, 'config': 'c.py'}, Path('w'))[2:4] == [
        '--config=c.py',
        '--init=w/base',
    ]


@pytest.mark.parametrize('size', ['', ':demo', ':smoke'])
def test_the_experiments_sweep_is_valid_at_every_size(size):
    runs = sweep.load(EXPERIMENT + size)
    assert runs[0]['name'] == 'base' and len(runs) == 7


@pytest.mark.parametrize(('size', 'runs'), [('full', 153), ('cpu', 153), ('demo', 24), ('smoke', 6)])
def test_the_position_zoos_sweep_is_valid_at_every_size(size, runs):
    listed = sweep.load(f'experiments/003_position_zoo/sweep.py:{size}')
    assert len(listed) == runs
    for item in listed:
        experiment_config(values_of(load_config(item['config'])))


@pytest.mark.parametrize(('size', 'runs'), [('full', 132), ('cpu', 132), ('smoke', 44), ('diagnosis', 11)])
def test_the_sweep_of_random_positions_is_valid_at_every_size(size, runs):
    listed = sweep.load(f'experiments/007_randomized_positions/sweep.py:{size}')
    assert len(listed) == runs
    for item in listed:
        experiment_config(values_of(load_config(item['config'])))


@pytest.mark.parametrize(('size', 'runs'), [('small', 5), ('medium', 19), ('full', 19)])
def test_the_sweep_of_a_pretrained_model_is_valid_and_small_is_part_of_medium(size, runs):
    listed = sweep.load(f'experiments/005_smollm2_extension/sweep.py:{size}')
    assert len(listed) == runs
    commands = [sweep.command(item, Path('w')) for item in listed]
    if size == 'small':
        more = sweep.load('experiments/005_smollm2_extension/sweep.py:medium')
        assert all(words in [sweep.command(item, Path('w')) for item in more] for words in commands)


@pytest.mark.parametrize('size', ['full', 'demo', 'smoke'])
def test_the_sweep_of_the_temperature_is_valid_at_every_size(size):
    assert len(sweep.load(f'experiments/004_mscale_ablation/sweep.py:{size}')) == 9


@pytest.mark.parametrize(
    ('runs', 'message'),
    [
        ([{'name': 'a', 'verb': 'tain', 'config': 'c'}], "'tain'. Did you mean 'train'"),
        ([{'name': 'a', 'verb': 'train'}], 'needs a config'),
        ([{'name': 'a', 'verb': 'eval'}], 'needs an init'),
        ([{'name': 'a', 'verb': 'train', 'config': 'c', 'init': 'b'}], "unknown 'b'"),
        ([{'name': 'a', 'verb': 'train', 'config': 'c'}] * 2, "'a' is empty, has a slash or is used twice"),
        ([{'name': '../a', 'verb': 'train', 'config': 'c'}], "'../a' is empty, has a slash"),
        ([{'name': 'a', 'verb': 'train', 'config': 'c', 'sett': {}}], "'sett'. Did you mean 'set'"),
        ([{'name': 'a', 'verb': 'convert'}], "'a': src goes with a convert run that has no init"),
        ([{'name': 'a', 'verb': 'train', 'config': 'c', 'src': 'm'}], "'a': src goes with a convert run"),
    ],
)
def test_a_list_that_cannot_run_is_refused_before_anything_runs(runs, message):
    with pytest.raises(ConfigError, match=message):
        sweep.check(runs)


def test_finished_runs_are_skipped_and_a_failed_one_ends_the_sweep(tmp_path, capfd):
    """Real runs: one that trains, one that cannot; a second start repeats only the latter."""
    overrides = [word.removeprefix('--config.') for word in on_corpus(tmp_path)]
    settings = dict(word.split('=', 1) for word in overrides)
    listed = [
        {'name': 'base', 'verb': 'train', 'config': 'configs/extend_small.py:smoke', 'set': settings},
        {'name': 'bad', 'verb': 'eval', 'init': 'base', 'set': {'model.position.name': 'yarm'}},
    ]
    file = tmp_path / 'sweep.py'
    file.write_text(f'def sweep(arg=""):\n    return {listed!r}\n')
    words = ('sweep', f'--sweep={file}', f'--workdir={tmp_path / "runs"}')
    assert lcx(*words) == 2
    assert "Did you mean 'yarn'" in capfd.readouterr().err
    done = json.loads((tmp_path / 'runs' / 'base' / 'done.json').read_text())
    assert done['command'][0] == 'train'
    before = rows(tmp_path / 'runs' / 'base' / 'results.jsonl')
    assert lcx(*words) == 2
    assert 'base: finished before, skipped' in capfd.readouterr().out
    assert rows(tmp_path / 'runs' / 'base' / 'results.jsonl') == before
    assert lcx(*words, '--jobs=2') == 2  # its words go to a log then
    assert f'Its words are in {tmp_path}/runs/bad.log' in capfd.readouterr().err
    assert "Did you mean 'yarn'" in (tmp_path / 'runs' / 'bad.log').read_text()


def test_several_at_a_time_wait_for_what_they_start_from(tmp_path, monkeypatch):
    """Children that only note when they begin and end."""
    file = tmp_path / 'order.txt'
    note = f"import sys, time; f = open({str(file)!r}, 'a', 1)"
    code = note + "; print('+', sys.argv[1], file=f); time.sleep(0.5); print('-', sys.argv[1], file=f)"

    def start(job, slot, jobs):
        job.workdir.mkdir(exist_ok=True)
        assert job.log.parent == tmp_path
        return subprocess.Popen([sys.executable, '-c', code, job.item['name']])

    monkeypatch.setattr(sweep, 'start', start)
    inits = {'base': None, 'b': 'base', 'c': 'base', 'd': None}
    sweep.work([sweep.Job(n, {'name': n, 'init': i}, [n], tmp_path / n) for n, i in inits.items()], jobs=2)
    order = file.read_text().split('\n')[:-1]
    assert {order[0], order[1]} == {'+ base', '+ d'} and len(order) == 8
    assert all(order.index(f'+ {name}') > order.index('- base') for name in 'bc')
    assert all((tmp_path / name / 'done.json').is_file() for name in inits)
    running = [sum(line[0] == '+' for line in order[: i + 1]) for i in range(8)]
    ended = [sum(line[0] == '-' for line in order[: i + 1]) for i in range(8)]
    assert max(r - e for r, e in zip(running, ended)) == 2
