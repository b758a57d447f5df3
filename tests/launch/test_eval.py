"""``lcx eval``: a trained run under other settings, itself left as it was."""

import json

import jax
import numpy as np
import pytest

from lcx.eval.api import whole_rows
from lcx.launch import evaluation
from tests.running import CONFIGS, digest, lcx, on_corpus, rows, steps, timeless

MEASURED = ('bits_per_byte', 'last_bits_per_byte', 'ppl', 'answer_bits', 'accuracy')


@pytest.fixture(scope='module')
def command(tmp_path_factory):
    """The words of ``lcx train`` without a workdir."""
    directory = tmp_path_factory.mktemp('eval')
    return ['train', f'--config={CONFIGS}/base.py:smoke', *on_corpus(directory)]


@pytest.fixture(scope='module')
def trained(command, tmp_path_factory):
    """A run with RoPE at length 64, which evaluates at 128 and 256."""
    workdir = tmp_path_factory.mktemp('trained') / 'rope'
    assert lcx(*command, f'--workdir={workdir}') == 0
    return workdir


def contents(workdir):
    """Everything that an evaluation elsewhere must not touch."""
    names = ('config.json', 'run.json', 'results.jsonl', 'metrics.jsonl')
    return [(workdir / name).read_bytes() for name in names], digest(workdir, steps(workdir)[-1])


def numbers(found):
    """What was measured, by evaluator, length and bucket."""
    return {
        (r['evaluator'], r['length'], r.get('bucket_start')): [r[name] for name in MEASURED if name in r]
        for r in found
    }


def test_a_run_evaluates_itself_when_it_is_done(trained):
    found = rows(trained / 'results.jsonl')
    assert [(r['evaluator'], r['length']) for r in found] == [
        ('perplexity', 128), ('perplexity', 256),
        *[('perplexity_by_position', 256)] * 3,
        ('passkey', 128), ('passkey', 256),
    ]  # fmt: skip
    same = ('label', 'run', 'seed', 'step', 'split', 'trained_length', 'position', 'factor')
    assert {tuple(r[k] for k in same) for r in found} == {
        ('rope', 'rope', 0, 4, 'validation', 64, 'rope', 1.0)
    }
    # On a CPU, all that the process held: no less than Python with JAX, no more than a test may take.
    assert all(type(r['peak_bytes']) is int and 10**8 < r['peak_bytes'] < 10**11 for r in found)


def test_evaluating_again_gives_the_same_rows_but_for_prompts_that_are_done(trained):
    before, (files, weights) = rows(trained / 'results.jsonl'), contents(trained)
    assert lcx('eval', f'--workdir={trained}') == 0
    again = rows(trained / 'results.jsonl')[len(before) :]
    texts = [row for row in before if row['evaluator'] != 'passkey']
    assert [timeless(row) for row in again] == [timeless(row) for row in texts]
    after, weights_after = contents(trained)
    assert after[0] == files[0] and after[3] == files[3] and weights_after == weights


@pytest.mark.parametrize(
    ('options', 'factors'),
    [
        ({'name': 'pi'}, [2.0, 4.0]),
        ({'name': 'yarn', 'factor': 3.0}, [3.0, 3.0]),
        ({'name': 'ntk', 'original_length': 32}, [4.0, 8.0]),
    ],
)
def test_another_position_method_takes_the_factor_that_each_length_needs(trained, tmp_path, options, factors):
    before = contents(trained)
    overrides = [f'--config.model.position.{name}={value}' for name, value in options.items()]
    assert lcx('eval', f'--init={trained}', f'--workdir={tmp_path}/run', '--config.label=L', *overrides) == 0
    found = rows(tmp_path / 'run' / 'results.jsonl')
    assert {(r['label'], r['position'], r['trained_length'], r['step']) for r in found} == {
        ('L', options['name'], 64, 4)
    }
    assert {(r['length'], r['factor']) for r in found} == set(zip((128, 256), factors))
    assert contents(trained) == before
    measured, plain = numbers(found), numbers(rows(trained / 'results.jsonl'))
    assert measured.keys() == plain.keys()
    assert all(measured[key] != plain[key] for key in plain if key[0] == 'perplexity')


def test_a_factor_of_one_measures_what_rope_does(trained, tmp_path):
    pi = ('--config.model.position.name=pi', '--config.model.position.factor=1.0')
    assert lcx('eval', f'--init={trained}', f'--workdir={tmp_path}/run', *pi) == 0
    measured, plain = (
        numbers(rows(tmp_path / 'run' / 'results.jsonl')),
        numbers(rows(trained / 'results.jsonl')),
    )
    for key, expected in plain.items():
        np.testing.assert_allclose(measured[key], expected, rtol=1e-6)


def test_a_run_tuned_at_a_factor_keeps_it_at_every_length(trained, command, tmp_path):
    """From 64 to 128 with YaRN: factor 2, and 128 is then the length that the parameters know."""
    tuned = tmp_path / 'tuned'
    overrides = ('--config.model.position.name=yarn', '--config.stages[0].length=128')
    assert lcx(*command, f'--workdir={tuned}', f'--config.init_from={trained}', *overrides) == 0
    assert lcx('eval', f'--workdir={tuned}') == 0
    found = rows(tuned / 'results.jsonl')
    assert len(found) == 7 + 5
    assert {(r['position'], r['factor'], r['trained_length']) for r in found} == {('yarn', 2.0, 128)}


@pytest.mark.parametrize(
    ('override', 'message'),
    [
        (
            '--config.model.width=64',
            'embedding: the model as configured has (257, 64), but what was trained has (257, 32).',
        ),
        ('--config.eval.windws=3', "eval.windws=3: unknown 'windws'. Did you mean 'windows'?"),
        ('--config.stages[0].learning_rate=0.1', 'stages[0].learning_rate=0.1: it is None here'),
        ('--config.model.preset=small', "model.preset: 'small' has width 512, the parameters 32"),
        ('--config.model.position.name=yarm', "unknown 'yarm'. Did you mean 'yarn'?"),
        ('--config.model.position.beta_fast=2.0', "beta_fast (of 'rope')"),
    ],
)
def test_settings_that_the_parameters_cannot_have_are_refused(trained, tmp_path, capsys, override, message):
    assert lcx('eval', f'--init={trained}', f'--workdir={tmp_path}/run', override) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / 'run' / 'results.jsonl').exists()


def test_settings_of_the_evaluation_can_be_changed(trained, tmp_path):
    changes = ("--config.eval.run=('passkey',)", '--config.eval.windows=1', '--config.eval.tokens=64')
    assert lcx('eval', f'--init={trained}', f'--workdir={tmp_path}/run', *changes) == 0
    found = rows(tmp_path / 'run' / 'results.jsonl')
    assert [(r['evaluator'], r['samples']) for r in found] == [('passkey', 1)] * 2
    assert json.loads((trained / 'config.json').read_text())['eval']['windows'] == 2


@pytest.mark.parametrize(
    ('words', 'message'),
    [
        (('--workdir=w', '--config=configs/base.py'), 'eval takes the configuration of the run itself'),
        (('--config.model.position.name=pi',), 'which run? Name it'),
    ],
)
def test_flags_that_eval_cannot_use_say_what_to_give(words, message, capfd):
    assert lcx('eval', *words) == 2
    assert message in capfd.readouterr().err


def test_single_windows_go_on_where_they_were_and_other_settings_start_anew(trained, tmp_path):
    words = ['eval', f'--init={trained}', f'--workdir={tmp_path}', "--config.eval.run=('window_perplexity',)"]
    assert lcx(*words) == 0
    whole = (tmp_path / 'results.jsonl').read_text()
    assert [(r['length'], r['window']) for r in rows(tmp_path / 'results.jsonl')] == [
        (128, 0), (128, 1), (256, 0), (256, 1),
    ]  # fmt: skip
    (tmp_path / 'results.jsonl').write_text(whole[: whole.rindex('{') + 20])  # cut off in the last row
    assert lcx(*words) == 0
    again = rows(tmp_path / 'results.jsonl')
    assert [timeless(r) for r in again] == [timeless(json.loads(r)) for r in whole.splitlines()]
    assert lcx(*words) == 0 and rows(tmp_path / 'results.jsonl') == again
    assert lcx(*words, '--config.model.position.name=pi') == 0
    assert len(rows(tmp_path / 'results.jsonl')) == 8


def test_needles_go_on_where_they_were(trained, tmp_path, capfd, monkeypatch):
    words = ['eval', f'--init={trained}', f'--workdir={tmp_path}', "--config.eval.run=('needle',)"]
    words += [
        '--config.eval.lengths=(256, 512)',
        '--config.eval.depths=(0.0, 1.0)',
        '--config.eval.samples=2',
    ]
    assert lcx(*words) == 0
    whole = rows(tmp_path / 'results.jsonl')
    cells = [(r['length'], r['sample'], r['depth']) for r in whole]
    assert cells == [(n, i, d) for n in (256, 512) for i in (0, 1) for d in (0.0, 1.0)]
    assert all(r['accuracy'] == 0.0 and r['answer_bits'] > 8 for r in whole)  # of a model that knows nothing
    lines = (tmp_path / 'results.jsonl').read_text().splitlines(keepends=True)
    (tmp_path / 'results.jsonl').write_text(''.join(lines[:5]))
    capfd.readouterr()
    monkeypatch.setattr(evaluation, 'WORTH_A_LINE', 0.0)
    assert lcx(*words) == 0
    assert [timeless(r) for r in rows(tmp_path / 'results.jsonl')] == [timeless(r) for r in whole]
    shown = [line for line in capfd.readouterr().err.splitlines() if 'needle' in line]
    assert len(shown) == 3
    assert 'rope: needle, length 512, depth 1, sample 0: accuracy 0.000, answer_bits ' in shown[0]


LENGTH = '--config.eval.lengths=(512,)'
THREE = (LENGTH, "--config.eval.run=('window_perplexity', 'needle', 'perplexity')")


@pytest.fixture(scope='module')
def uncached(trained, tmp_path_factory):
    workdir = tmp_path_factory.mktemp('uncached')
    assert lcx('eval', f'--init={trained}', f'--workdir={workdir}', *THREE) == 0
    return workdir


def scores(workdir):
    """The rows without what an evaluation through a cache has of its own."""
    own = ('of', 'cache', 'cache_bytes', 'run')
    return [
        timeless({k: v for k, v in row.items() if k not in own}) for row in rows(workdir / 'results.jsonl')
    ]


def test_through_a_cache_that_forgets_nothing_the_scores_are_the_same(trained, uncached, tmp_path):
    words = ['eval', f'--init={trained}', f'--workdir={tmp_path}', '--config.eval.cached=True', *THREE]
    assert lcx(*words) == 0
    for row, plain in zip(scores(tmp_path), scores(uncached), strict=True):
        assert row.keys() == plain.keys()
        for name, value in plain.items():
            assert row[name] == (pytest.approx(value, abs=1e-4) if isinstance(value, float) else value)
    found = rows(tmp_path / 'results.jsonl')
    # A slot has a key and a value of 16 numbers in each of two layers, a position and a segment.
    each = {(row['cache'], row['cache_bytes'] // row['length']) for row in found}
    assert each == {('full', 2 * 2 * 16 * 4 + 8)}
    assert not any('cache' in row for row in rows(uncached / 'results.jsonl'))
    assert lcx(*words) == 0  # single windows and needles are done
    more = rows(tmp_path / 'results.jsonl')[len(found) :]
    assert {row['evaluator'] for row in more} == {'perplexity', 'perplexity_by_position'}


def test_through_a_cache_that_forgets_the_scores_are_others(trained, uncached, tmp_path):
    streaming = ('--config.cache.name=streaming', '--config.cache.window=32', '--config.eval.cached=True')
    windows = "--config.eval.run=('window_perplexity',)"
    assert lcx('eval', f'--init={trained}', f'--workdir={tmp_path}', LENGTH, windows, *streaming) == 0
    found, plain = rows(tmp_path / 'results.jsonl'), rows(uncached / 'results.jsonl')[:2]
    assert {row['cache'] for row in found} == {'streaming'}
    assert all(row['cache_bytes'] < (32 + 4 + 2 + 1) * 300 for row in found)
    assert not {row['of'] for row in found} & {row['of'] for row in plain}
    for row, other in zip(found, plain, strict=True):
        assert row['text'] == other['text'] and row['last_nats'] != other['last_nats']
        assert row['last_nats'] == pytest.approx(other['last_nats'], abs=1.0)


@pytest.mark.parametrize(
    ('words', 'message'),
    [
        (('--config.cache.tokens=64',), 'cache.tokens: 64 cannot hold a prompt of 128 and 0 new tokens'),
        (('--config.cache.name=streaming', '--config.cache.window=0'), 'cache.window: 0 must be at least 1'),
    ],
)
def test_a_cache_that_cannot_be_is_refused_before_anything_is_scored(
    trained, tmp_path, capfd, words, message
):
    once = ('--config.eval.cached=True', "--config.eval.run=('perplexity',)")
    assert lcx('eval', f'--init={trained}', f'--workdir={tmp_path}', *once, *words) == 2
    assert message in capfd.readouterr().err
    path = tmp_path / 'results.jsonl'
    assert not path.exists() or not path.read_text()


def test_a_model_writes_answers_which_are_scored(trained, tmp_path, capfd):
    tasks = "--config.eval.ruler.tasks=('vt', 'niah_single_1')"
    short = '--config.eval.lengths=(2048,)', '--config.eval.samples=1', '--config.eval.last=16'
    words = [
        'eval',
        f'--init={trained}',
        f'--workdir={tmp_path}',
        "--config.eval.run=('ruler',)",
        tasks,
        *short,
    ]
    assert lcx(*words) == 0
    found = rows(tmp_path / 'results.jsonl')
    assert [(r['evaluator'], r['task'], r['sample'], r['score']) for r in found] == [
        ('ruler', 'vt', 0, 0.0),
        ('ruler', 'niah_single_1', 0, 0.0),  # of a model that knows nothing
    ]
    assert all(isinstance(r['prediction'], str) and r['seconds'] > 0 for r in found)
    assert {r['cache'] for r in found} == {'full'}
    assert lcx(*words) == 0 and len(rows(tmp_path / 'results.jsonl')) == 2  # both are done
    assert lcx(*words, '--config.cache.name=streaming') == 0  # but not through another cache
    assert [r['cache'] for r in rows(tmp_path / 'results.jsonl')] == ['full'] * 2 + ['streaming'] * 2
    assert lcx(*words[:-4], "--config.eval.ruler.tasks=('vt', 'niah')", *short) == 2
    assert "eval.ruler.tasks: unknown 'niah'" in capfd.readouterr().err


def test_the_peak_starts_anew_with_each_length_alone(monkeypatch):
    resets, apply = [], evaluation.renewing_peak(lambda params, batch: batch)
    monkeypatch.setattr(evaluation.memory, 'reset_peak', lambda: resets.append(1))
    counts = []
    for shape in ((2, 8), (2, 8), (1, 8), (1, 16), (1, 16), (4, 8)):
        ids = np.zeros((shape[0], shape[1] + 1), np.int32)
        assert apply(None, whole_rows(ids)).tokens.shape == shape
        counts.append(len(resets))
    assert counts == [1, 1, 1, 2, 2, 3]


class Accelerator:
    """A device with a memory of its own."""

    platform = 'gpu'

    def __init__(self, stats):
        self.memory_stats = lambda: stats


def test_memory_of_accelerators_is_that_of_the_fullest_or_unknown(monkeypatch):
    full, other, silent = (Accelerator(x) for x in ({'peak_bytes_in_use': 7}, {'peak_bytes_in_use': 5}, None))
    for devices, expected in (((other, full), 7), ((other, silent), None)):
        monkeypatch.setattr(jax, 'local_devices', lambda devices=devices: devices)
        assert evaluation.peak_bytes() == expected


def test_the_file_that_was_written_is_told_even_if_every_row_was_quick(trained, tmp_path, capfd):
    once = "--config.eval.run=('window_perplexity',)", '--config.eval.lengths=(128,)'
    words = ['eval', f'--init={trained}', f'--workdir={tmp_path}', *once]
    assert lcx(*words) == 0
    assert capfd.readouterr().out == f'wrote {tmp_path}/results.jsonl\n'
    assert lcx(*words) == 0
    assert capfd.readouterr().out == f'nothing to do: {tmp_path}/results.jsonl has all rows\n'


def test_an_evaluation_ends_with_its_report_if_asked(trained, tmp_path, capfd):
    words = f'--init={trained}', f'--workdir={tmp_path}/out', '--config.eval.report=True'
    assert lcx('eval', *words, "--config.eval.run=('perplexity',)") == 0
    out = capfd.readouterr().out
    assert out.index('wrote') < out.index('| label |') and f'wrote {tmp_path}/out/figures/report.html' in out
    assert (tmp_path / 'out' / 'figures' / 'perplexity.png').stat().st_size > 1000


def test_documents_and_key_tokens_of_a_judge(trained, tmp_path, capfd):
    run = "--config.eval.run=('sliding_perplexity', 'document_bits', 'longppl')"
    judge = f'--config.eval.longppl.judge={trained}', '--config.eval.longppl.alpha=-100.0'
    words = ['eval', f'--init={trained}', f'--workdir={tmp_path}', run, *judge]
    words += ['--config.eval.longppl.beta=-100.0']
    assert lcx(*words, '--config.model.position.name=pi', '--config.eval.sliding.most=300') == 0
    found = rows(tmp_path / 'results.jsonl')
    texts = [(name, n) for name in ('sliding_perplexity', 'document_bits') for n in (128, 256)]
    cells = [(r['evaluator'], r['length']) for r in found]
    assert cells == [*texts, ('longppl', 256), ('longppl', 256)]  # of the one document, and of two windows
    assert [r['targets'] for r in found[:4]] == [299, 299, 300, 300]
    assert all(0 < r['bits_per_byte'] < 12 for r in found[:4])
    assert {r['key_tokens'] for r in found[4:]} == {256 - 127}  # all that have more than the short context
    assert {r['judge'] for r in found[4:]} == {str(trained)}
    assert lcx(*words[:-3], f'--config.eval.longppl.judge={tmp_path}') == 2
    assert 'eval.longppl.judge: ' in capfd.readouterr().err


def test_a_task_of_lm_eval_runs_from_the_command_line(trained, tmp_path, capfd):
    pytest.importorskip('lm_eval', reason='lm-eval is not installed: pip install lcx[eval]')
    questions = [{'q': 'The sky is', 'a': [' blue', ' green'], 'gold': i % 2} for i in range(4)]
    (tmp_path / 'q.jsonl').write_text(''.join(json.dumps(q) + '\n' for q in questions))
    (tmp_path / 'tiny.yaml').write_text(
        'task: lcx_tiny\ndataset_path: json\ntest_split: test\noutput_type: multiple_choice\n'
        f'dataset_kwargs: {{data_files: {{test: {tmp_path}/q.jsonl}}}}\n'
        'doc_to_text: q\ndoc_to_choice: a\ndoc_to_target: gold\n'
        'metric_list: [{metric: acc, aggregation: mean, higher_is_better: true}]\n'
    )
    words = ['eval', f'--init={trained}', f'--workdir={tmp_path}/run', '--config.eval.run=harness']
    words += ['--config.eval.harness.tasks=lcx_tiny', f'--config.eval.harness.include={tmp_path}']
    assert lcx(*words) == 0
    (row,) = rows(tmp_path / 'run' / 'results.jsonl')
    assert (row['evaluator'], row['length'], row['value'], row['samples']) == (
        'harness_lcx_tiny_acc',
        256,
        0.5,
        4,
    )
    assert 'rope: harness_lcx_tiny_acc, length 256, task lcx_tiny: value 0.500 ±' in capfd.readouterr().err
    assert lcx(*words) == 0 and len(rows(tmp_path / 'run' / 'results.jsonl')) == 1
