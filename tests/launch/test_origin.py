"""Hugging Face directories where runs are expected: ``lcx eval``, ``train`` and ``search-factors`` on tiny ones."""

import dataclasses
import json
import shutil

import numpy as np
import pytest

from lcx import convert
from lcx.launch import origin
from lcx.train.checkpoint import Checkpoints
from tests.convert.families import write_golden
from tests.data import vocabulary_files
from tests.running import CONFIGS, digest, lcx, on_corpus, rows, steps, timeless

CONFIG = f'--config={CONFIGS}/base.py:smoke'
TEXT = ("--config.eval.run=('perplexity',)", '--config.eval.lengths=(128,)')


@pytest.fixture(scope='module')
def corpus(tmp_path_factory):
    return on_corpus(tmp_path_factory.mktemp('origin'))


@pytest.fixture(scope='module')
def models(tmp_path_factory):
    """Directories of 64 ids each: 'gemma2' and 'mistral' with a tokenizer of 29, and 'bare' without."""
    directory = tmp_path_factory.mktemp('models')
    for name in ('gemma2', 'mistral'):
        vocabulary_files.letters(write_golden(directory / name, name) / 'tokenizer.json')
    write_golden(directory / 'bare', 'mistral')
    return directory


@pytest.fixture(scope='module')
def evaluate(models, corpus):
    """``evaluate(workdir, *more)``: the rows that an evaluation of Gemma 2 adds."""

    def run(workdir, *more, name='gemma2', run=TEXT):
        before = len(rows(workdir / 'results.jsonl')) if (workdir / 'results.jsonl').exists() else 0
        words = [CONFIG, f'--init={models / name}', f'--workdir={workdir}', *corpus, *run]
        assert lcx('eval', *words, *more) == 0
        return rows(workdir / 'results.jsonl')[before:]

    return run


@pytest.fixture(scope='module')
def plain(evaluate, tmp_path_factory):
    return evaluate(tmp_path_factory.mktemp('plain') / 'run')[0]


def bits(found):
    return [row['bits_per_byte'] for row in found if 'bits_per_byte' in row]


def test_a_directory_is_evaluated_with_its_own_model_and_tokenizer(plain, models):
    """The smoke config has other sizes and bytes; neither is of this model."""
    assert (plain['position'], plain['trained_length'], plain['step'], plain['factor']) == (
        'rope',
        64,
        0,
        1.0,
    )
    assert 3 < plain['bits_per_byte'] < 7  # of 64 ids, by a model that knows nothing
    assert sorted(p.name for p in (models / 'gemma2').iterdir()) == [
        'config.json', 'model.safetensors', 'tokenizer.json',
    ]  # fmt: skip


@pytest.mark.parametrize('file', [False, True])
def test_a_position_method_of_the_command_line_or_of_the_file(evaluate, plain, tmp_path, models, file):
    """keeps the theta that the weights know, 1000: the numbers are those of the model itself with that method."""
    more = ['--config.model.position.name=pi', '--config.model.position.factor=2.0']
    if file:
        (tmp_path / 'pi.py').write_text(
            'from configs import base\n\n\ndef get_config():\n    config = base.get_config("smoke")\n'
            '    config.model.position = base.position("pi", factor=2.0)\n    return config\n'
        )
        more = [f'--config={tmp_path}/pi.py']
    (row, *_) = evaluate(tmp_path / 'run', *more)
    assert (row['position'], row['factor']) == ('pi', 2.0) and bits([row]) != bits([plain])
    saved = json.loads((tmp_path / 'run' / 'config.json').read_text())['model']
    assert saved['position'] == {'name': 'pi', 'theta': 1000.0, 'factor': 2.0}
    assert saved['source'] == json.loads((models / 'gemma2' / 'config.json').read_text())
    assert (saved['preset'], saved['width'], saved['trained_length']) == (None, 32, 64)


def test_every_kind_of_layer_takes_attention_and_regions(evaluate, plain, tmp_path):
    kinds = '--config.model.kinds.{}.attention.name=dense'
    found = evaluate(tmp_path / 'run', kinds.format('local'), kinds.format('full'))
    np.testing.assert_allclose(bits(found)[:1], bits([plain]), rtol=1e-5)
    regions = ('--config.model.kinds.full.regions.name=rerope', '--config.model.kinds.full.regions.window=16')
    found = evaluate(tmp_path / 'run', *regions)
    assert bits(found)[:1] != bits([plain])
    saved = origin.model_config(convert.read_config(write_golden(tmp_path / 'gemma3', 'gemma3')))
    assert (
        saved.kinds.local.position.get_type('factor') is float
    )  # a kind's own positions can be overridden too


def test_an_evaluation_that_was_cut_off_goes_on(evaluate, tmp_path):
    windows = ("--config.eval.run=('window_perplexity',)",)
    whole = evaluate(tmp_path / 'run', run=windows)
    path = tmp_path / 'run' / 'results.jsonl'
    path.write_text(''.join(json.dumps(row) + '\n' for row in whole[:-1]))
    again = evaluate(tmp_path / 'run', run=windows)
    assert [timeless(row) for row in again] == [timeless(row) for row in whole[-1:]]
    assert evaluate(tmp_path / 'run', run=windows) == []


@pytest.fixture(scope='module')
def command(models, corpus):
    """The words of a run that starts from Mistral's parameters, at its length."""

    def words(workdir, *more, init=models / 'mistral'):
        return [
            'train', CONFIG, f'--workdir={workdir}', f'--config.init_from={init}', *corpus, *TEXT,
            '--config.checkpoint.keep=9', *more,
        ]  # fmt: skip

    return words


LORA = ('--config.tune.name=lora', '--config.tune.rank=2')


@pytest.fixture(scope='module', params=['full', 'lora'])
def tuned(request, command, tmp_path_factory):
    workdir = tmp_path_factory.mktemp('tuned') / request.param
    more = LORA if request.param == 'lora' else ()
    assert lcx(*command(workdir, *more)) == 0
    return workdir, more


def test_a_run_from_a_directory_goes_on_bit_by_bit_and_is_evaluated(tuned, command, tmp_path, models):
    workdir, more = tuned
    shutil.copytree(workdir, tmp_path / 'run')
    shutil.rmtree(tmp_path / 'run' / 'checkpoints' / '4')
    (models / 'mistral' / 'model.safetensors').rename(models / 'weights')
    try:
        assert lcx(*command(tmp_path / 'run', *more)) == 0
    finally:
        (models / 'weights').rename(models / 'mistral' / 'model.safetensors')
    assert steps(tmp_path / 'run') == [2, 4] and digest(tmp_path / 'run', 4) == digest(workdir, 4)
    assert lcx('eval', f'--init={workdir}', f'--workdir={tmp_path}/eval') == 0
    found, expected = (rows(w / 'results.jsonl') for w in (tmp_path / 'eval', workdir))
    assert [timeless(r, run='') for r in found] == [timeless(r, run='') for r in expected]
    with Checkpoints(workdir / 'checkpoints', keep=None) as checkpoints:
        model = checkpoints.extra()['model']
    assert model['position'] == {'name': 'rope', 'theta': 1000.0} and list(model['kinds']) == ['local']


def test_a_run_goes_on_without_the_directory_if_its_tokenizer_is_elsewhere(command, models, tmp_path, capsys):
    shutil.copytree(models / 'mistral', tmp_path / 'model')
    (tmp_path / 'model' / 'tokenizer.json').rename(tmp_path / 'tokenizer.json')
    more = (f'--config.data.tokenizer={tmp_path}/tokenizer.json', '--config.eval.run=()')
    words = command(tmp_path / 'run', *more, init=tmp_path / 'model')
    assert lcx(*words) == 0
    expected = digest(tmp_path / 'run', 4)
    shutil.rmtree(tmp_path / 'model')
    shutil.rmtree(tmp_path / 'run' / 'checkpoints' / '4')
    assert lcx(*words) == 0 and digest(tmp_path / 'run', 4) == expected
    assert lcx(*command(tmp_path / 'run', init=tmp_path / 'model')) == 2
    assert f'data.tokenizer: {tmp_path}/model holds none; give the one' in capsys.readouterr().err


def test_what_a_run_from_a_directory_overrides_is_the_model_of_the_directory(command, tmp_path):
    """A value that configs/base.py has too is an override as any other: here the model's own norm_eps is 1e-6."""
    more = ('--config.model.norm_eps=1e-5', '--config.model.kinds.local.attention.name=dense')
    assert lcx(*command(tmp_path / 'run', *more, '--config.eval.run=()')) == 0
    model = json.loads((tmp_path / 'run' / 'config.json').read_text())['model']
    assert model['norm_eps'] == 1e-5 and model['kinds']['local']['attention']['name'] == 'dense'


def test_the_factors_of_a_directory_are_searched(models, corpus, tmp_path):
    words = [CONFIG, f'--init={models}/mistral', f'--workdir={tmp_path}/factors', '--length=128', *corpus]
    assert lcx('search-factors', *words, '--population=4', '--iterations=1', '--config.eval.windows=1') == 0
    found = json.loads((tmp_path / 'factors' / 'factors.json').read_text())['position']
    assert (found['theta'], found['original_length'], len(found['long_factor'])) == (1000.0, 64, 4)


@pytest.fixture(scope='module')
def changed():
    """``changed(trained, *overrides)``: the position that ``lcx`` makes of a model's by overrides."""
    from absl import flags as absl_flags

    from lcx.launch import flags as shared
    from tests.models.tiny import changed as tiny

    def position(trained, *overrides):
        words = [f'--config.model.position.{word}' for word in overrides]
        model = dataclasses.replace(tiny(), position=trained, trained_length=64)
        from configs import base

        config = base.get_config()
        config.model = origin.model_config(model)
        flags = absl_flags.FlagValues()
        shared.define_overrides(flags, origin.start_anew(config, words), words, '')
        flags(['lcx', *words])
        return dict(origin.applied(model, flags.config)[1].position)

    return position


YARN = {'name': 'yarn', 'theta': 5e5, 'factor': 4.0, 'original_length': 16, 'beta_fast': 16.0}
HALF = {'name': 'rope', 'theta': 5e5, 'rotary_fraction': 0.5, 'interleaved': True}


@pytest.mark.parametrize(
    ('trained', 'overrides', 'expected'),
    [
        (YARN, (), YARN),
        (YARN, ('beta_slow=2.0',), {**YARN, 'beta_slow': 2.0}),
        (YARN, ('name=yarn', 'factor=8.0'), {**YARN, 'factor': 8.0}),
        (YARN, ('name=ntk',), {'name': 'ntk', 'theta': 5e5}),
        (YARN, ('name=ntk', 'factor=4.0'), {'name': 'ntk', 'theta': 5e5, 'factor': 4.0}),
        (YARN, ('name=rope',), {'name': 'rope', 'theta': 5e5}),
        (YARN, ('name=rope', 'theta=7.0'), {'name': 'rope', 'theta': 7.0}),
        (HALF, ('name=yarn',), {**HALF, 'name': 'yarn'}),
        (HALF, ('name=p_rope',), {'name': 'p_rope', 'theta': 5e5, 'interleaved': True}),
        (HALF, ('name=alibi',), {'name': 'alibi'}),
        (HALF, ('name=sinusoidal',), {'name': 'sinusoidal'}),  # a theta of another kind
        ({'name': 'p_rope', 'rotary_fraction': 0.75}, ('name=rope',), {'name': 'rope'}),
        (HALF, ('name=log_n',), {'name': 'log_n', 'base': HALF}),
        ({'name': 'log_n', 'base': HALF}, ('name=pi',), {**HALF, 'name': 'pi'}),
        ({'name': 'rope'}, ('name=log_n',), {'name': 'log_n'}),
    ],
)
def test_another_method_keeps_the_rotation_and_nothing_else(changed, trained, overrides, expected):
    assert changed(trained, *overrides) == expected


@pytest.mark.parametrize(
    ('code', 'words', 'message'),
    [
        (2, ('eval', '{text}', '--init={bare}'),
         'data.tokenizer: {bare} holds none; give the one that the model was trained with'),
        (2, ('eval', '{text}', '--init={bare}', '--config.data.tokenizer=bytes'),
         'model.vocab: 64, but the tokenizer has 257 ids; data.tokenizer must be that of the model.'),
        (2, ('eval', '{text}', '--init={gemma2}', '--config.data.tokenizer=bytes'),
         "data.tokenizer: 'bytes' has 257 ids, but that of the model, in {gemma2}, has 29."),
        (2, ('train', '{text}', '--config.init_from={bare}'), 'data.tokenizer: {bare} holds none'),
        (2, ('search-factors', '{text}', '--init={bare}', '--length=128'), 'data.tokenizer: {bare} holds none'),
        (2, ('eval', '--init={here}/none'), "init: '{here}/none' is neither a workdir with checkpoints nor a Hugging"),
        (2, ('eval', '{text}', '--init={gemma2}', '--config.model.kinds.globl.mixer.name=cope'),
         "model.kinds.globl.mixer.name=cope: unknown 'globl'. "),
        (2, ('eval', '{text}', '--init={gemma2}', '--config.model.position.beta_fast=2.0'), "beta_fast (of 'rope')"),
        (2, ('eval', '{text}', '--init={gemma2}', '--config.model.width=16'), 'model as configured has (64, 16)'),
        (2, ('eval', '{text}', '--init={gemma2}', '--config.model.preset=small'), "preset: 'small' has width 512"),
        (2, ('eval', '{text}', '--workdir={gemma2}'), 'is a Hugging Face directory, in which nothing is written'),
        (2, ('train', '{text}', '--config.init_from={gemma2}', '--workdir={gemma2}'), 'in which nothing is written'),
        (2, ('eval', '--config={kinds}', '--init={mistral}'), "(of the model in the directory): unknown 'full'"),
        (2, ('eval', '--config={here}/broken.py', '--init={mistral}'), 'lcx: out of ideas'),
        (2, ('train', '{text}', '--config.init_from={gemma2}', '--config.model.activation=silu'),
         "model.activation: 'silu', but the parameters of init_from have 'gelu_tanh'."),
        (5, ('eval', '{text}', '--init={pickle}'), 'weights as a pickle, which could run code and is not read.'),
        (5, ('train', '{text}', '--config.init_from={pickle}'), 'weights as a pickle'),
        (2, ('eval', '{text}', '--init'), 'Missing value for flag --init'),
    ],
)  # fmt: skip
def test_what_cannot_be_is_said_before_anything_is_made(models, tmp_path, capsys, code, words, message):
    places = {'here': tmp_path, 'text': CONFIG, 'kinds': tmp_path / 'kinds.py', 'pickle': tmp_path / 'pickle'}
    places |= {path.name: path for path in models.iterdir()}
    shutil.copytree(models / 'gemma2', places['pickle'])
    (places['pickle'] / 'model.safetensors').rename(places['pickle'] / 'pytorch_model.bin')
    (tmp_path / 'broken.py').write_text('raise RuntimeError("out of ideas")\n')
    places['kinds'].write_text(
        'from configs import base\n\n\ndef get_config():\n    config = base.get_config()\n'
        '    config.model.kinds.full.attention.name = "dense"\n    return config\n'
    )
    before = sorted([*tmp_path.rglob('*.*'), *models.rglob('*')])
    given = [word.format(**places) for word in words]
    new = [f'--workdir={tmp_path}/new'] if not any(w.startswith('--workdir') for w in given) else []
    assert lcx(given[0], *new, *given[1:]) == code
    assert message.format(**places) in capsys.readouterr().err
    assert sorted([*tmp_path.rglob('*.*'), *models.rglob('*')]) == before
    assert not (tmp_path / 'new').exists()


def test_a_rotation_that_would_be_lost_is_asked_for(command, corpus, tmp_path, capsys):
    """A run has a config of its own, so that a run from it must say the same, or that it wants another."""
    theta = '--config.model.position.theta=500.0'
    words = ['train', CONFIG, *corpus, '--config.eval.run=()']
    assert lcx(*words, f'--workdir={tmp_path}/a', theta) == 0
    assert lcx(*words, f'--workdir={tmp_path}/b', f'--config.init_from={tmp_path}/a') == 2
    said = capsys.readouterr().err
    assert (
        'model.position.theta: the parameters of init_from were trained with 500.0; give that, or another.'
        in said
    )
    assert lcx(*words, f'--workdir={tmp_path}/b', f'--config.init_from={tmp_path}/a', theta) == 0


def test_a_stage_and_a_preset_keep_the_rotation_too():
    from configs import base
    from lcx.launch.experiment import experiment_config, stage_models, values_of

    config = base.get_config()
    config.model.preset = 'smollm2_135m'
    config.stages = (base.stage(1, 256, 1), base.stage(1, 512, 1, position={'name': 'pi'}))
    experiment = experiment_config(values_of(config))
    first, second = stage_models(experiment, experiment.model)
    assert first.position == {'name': 'rope', 'theta': 100000.0}
    assert dict(second.position) == {'name': 'pi', 'theta': 100000.0, 'factor': 2.0, 'original_length': 256}
    config.model.position.name = 'yarn'
    assert experiment_config(values_of(config)).model.position['theta'] == 100000.0
