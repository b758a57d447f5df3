"""Reading and merging results files: what counts, what is refused, what is averaged."""

import json
import math
from pathlib import Path

import pytest

from lcx.errors import DataError
from lcx.viz.results import average, compare, find, load, merge, newest, read


def row(label='rope', length=128, value=2.5, **more):
    return {
        'evaluator': 'perplexity',
        'label': label,
        'length': length,
        'last_bits_per_byte': value,
        'last': 64,
        'windows': 32,
        'trained_length': 128,
        **more,
    }


def write(workdir: Path, *rows, tail=''):
    workdir.mkdir(parents=True)
    (workdir / 'results.jsonl').write_text(''.join(json.dumps(r) + '\n' for r in rows) + tail)
    return workdir / 'results.jsonl'


def test_find_goes_to_any_depth_base_first_each_file_once(tmp_path):
    for name in ('alibi', 'base', 'deep/er/yarn', 'base/copy'):
        write(tmp_path / name, row())
    found = find([tmp_path, tmp_path / 'base', tmp_path / 'alibi'])
    names = [str(p.parent.relative_to(tmp_path)) for p in found]
    assert names == ['base', 'alibi', 'deep/er/yarn']


def test_directory_without_results_names_itself_and_the_command(tmp_path):
    with pytest.raises(DataError, match=rf'{tmp_path}: no results.jsonl .* lcx eval --workdir={tmp_path}'):
        find([tmp_path])
    with pytest.raises(DataError, match=r'no such directory.*lcx train'):
        find([tmp_path / 'absent'])
    write(tmp_path / 'empty')
    with pytest.raises(DataError, match=r'no rows yet.*lcx eval --workdir='):
        load([tmp_path])
    assert DataError.exit_code == 7


@pytest.mark.parametrize(
    'tail', ['{"evaluator": "perpl', '{"evaluator": "perplexity", "label": "a\xff', '\0' * 9]
)
def test_torn_last_line_is_ignored(tmp_path, tail):
    path = write(tmp_path / 'run', row(), row(length=256))
    with path.open('ab') as file:
        file.write(tail.encode('latin-1'))
    assert read(path) == [row(), row(length=256)]


def test_complete_last_line_without_newline_counts(tmp_path):
    path = write(tmp_path / 'run', row(), tail=json.dumps(row(length=256)))
    assert len(read(path)) == 2


@pytest.mark.parametrize(
    ('line', 'complaint'),
    [
        ('{"evaluator": "perpl', 'not JSON'),
        ('[1, 2]', 'not a row'),
        ('{"evaluator": "perplexity", "length": 128}', 'label is None; expected str'),
        ('{"evaluator": "../x", "label": "a", "length": 128}', "evaluator is '../x'; expected a name"),
        ('{"evaluator": "perplexity", "label": "a", "length": "128"}', "length is '128'; expected int"),
    ],
)
def test_damaged_line_in_the_middle_names_file_and_line(tmp_path, line, complaint):
    path = write(tmp_path / 'run', row(), tail=f'{line}\n{json.dumps(row())}\n')
    with pytest.raises(DataError) as error:
        read(path)
    assert str(error.value).startswith(f'{path}:2: {complaint}')


def test_newest_is_the_highest_step_then_the_later_line():
    rows = [
        row(value=1.0, step=2000),
        row(value=2.0, step=2000),
        row(value=3.0, step=1000),
        row(value=4.0, step=1000, length=256),
        row(value=5.0, step=1000, bucket_start=0, bucket_end=64),
    ]
    assert [r['last_bits_per_byte'] for r in newest(rows)] == [2.0, 4.0, 5.0]


def test_seeds_become_mean_and_standard_error():
    runs = {
        Path('runs/a'): [row(value=2.0, seed=0, last_bits_per_byte_stderr=9.0)],
        Path('runs/b'): [row(value=3.0, seed=1, last_bits_per_byte_stderr=9.0)],
        Path('runs/c'): [row(value=7.0, seed=2, last_bits_per_byte_stderr=9.0)],
    }
    (merged,) = merge(runs)
    assert merged['last_bits_per_byte'] == pytest.approx(4.0)
    assert merged['last_bits_per_byte_stderr'] == pytest.approx(math.sqrt(7 / 3))  # s^2 = (4 + 1 + 9) / 2
    assert (merged['label'], merged['seeds'], merged['length']) == ('rope', 3, 128)
    assert compare([merged])[0].note == 'lower is better, 32 windows, ± standard error over 3 seeds'


@pytest.mark.parametrize(
    'other',
    [
        {'seed': 0},
        {'seed': None},
        {'seed': 1, 'trained_length': 512},
        {'seed': 1, 'position': 'yarn'},
    ],
)
def test_namesakes_that_are_not_seeds_stay_apart(other):
    first = row(seed=0, position='rope')
    runs = {Path('runs/a'): [first], Path('runs/b/c'): [{**first, **other}], Path('runs/d'): [row('pi')]}
    assert [r['label'] for r in merge(runs)] == ['rope (a)', 'rope (b/c)', 'pi']


def test_seed_that_diverged_is_not_averaged_away():
    merged = average([row(value=None, seed=0), row(value=2.0, seed=1)])
    assert math.isnan(merged['last_bits_per_byte'])
    (comparison,) = compare([row(value=None), row(length=256)])
    assert math.isnan(comparison.series[0].values[comparison.columns[0]].mean)


def test_compare_takes_positions_of_the_longest_windows_only():
    rows = [
        {'evaluator': 'by_position', 'label': 'rope', 'length': length, 'bits_per_byte': 2.0, **bucket}
        for length in (128, 256)
        for bucket in ({'bucket_start': 64, 'bucket_end': length}, {'bucket_start': 0, 'bucket_end': 64})
    ]
    (comparison,) = compare(rows)
    assert comparison.columns == ((0, 64), (64, 256))
    assert comparison.title == 'Bits per byte by position in windows of 256 tokens'
    assert comparison.note == 'lower is better'


def test_tasks_are_compared_together_and_one_by_one(tmp_path):
    def sample(task, number, score, **more):
        about = {'label': 'rope', 'evaluator': 'ruler', 'length': 1024, 'text': f'{task}{number}'}
        return {**about, 'task': task, 'sample': number, 'score': score, 'prediction': '6835271', **more}

    samples = [('vt', (1.0, 0.5)), ('cwe', (0.0, 0.3))]
    write(tmp_path / 'run', *(sample(t, i, score) for t, scores in samples for i, score in enumerate(scores)))
    together, vt, cwe = compare(load([tmp_path]))
    assert [c.evaluator for c in (together, vt, cwe)] == ['ruler', 'ruler_vt', 'ruler_cwe']
    assert [c.means for c in (together, vt, cwe)] == [pytest.approx([m]) for m in (0.45, 0.75, 0.15)]
    assert together.title.startswith('RULER, all tasks') and '4 samples' in together.note
    assert vt.title.startswith('RULER, vt: share') and '2 samples' in vt.note


def test_titles_name_tasks_and_metrics():
    about = {'label': 'rope', 'length': 1024}
    found = compare(
        [
            {**about, 'evaluator': 'harness_a_acc', 'task': 'a', 'metric': 'acc', 'value': 0.5},
            {**about, 'evaluator': 'harness_b_ppl', 'task': 'b', 'metric': 'ppl', 'cost': 5.0},
            {
                **about,
                'evaluator': 'longbench_trec',
                'task': 'trec',
                'metric': 'classification',
                'points': 0.5,
            },
        ]
    )
    assert [(c.title, c.measure.best) for c in found] == [
        ('lm-eval, a: acc', max),
        ('lm-eval, b: ppl', min),
        ('LongBench, trec: classification of what was written', max),
    ]
