"""``lcx convert``: directories, runs and GGUF files as directories, as they are or with the positions of a method."""

import dataclasses
import json
import os
import stat

import jax
import numpy as np
import pytest

from lcx import convert
from lcx.convert import smollm2
from lcx.data import packages
from lcx.launch import origin
from lcx.models import logits
from tests.convert.families import NAMES, config_of, read, same_tensors, weights_of, write, write_golden
from tests.data import vocabulary_files
from tests.running import CONFIGS, lcx, on_corpus, rows

TEXT = "--config.eval.run=('perplexity',)"


def written(capsys, src, dst, *more) -> str:
    """Converts, and returns what is printed."""
    assert lcx('convert', f'--src={src}', f'--dst={dst}', *more) == 0
    return capsys.readouterr().out


def computed(model, params, tokens):
    return np.asarray(jax.jit(logits, static_argnums=0)(model, params, tokens))


@pytest.fixture(scope='module')
def corpus(tmp_path_factory):
    return on_corpus(tmp_path_factory.mktemp('convert'))


@pytest.fixture(scope='module')
def scratch(corpus, tmp_path_factory):
    """A run of bytes from scratch, whose theta is only in its preset."""
    workdir = tmp_path_factory.mktemp('scratch') / 'run'
    preset = ('--config.model.preset=smollm2_135m', '--config.model.vocab=257')
    assert (
        lcx('train', f'--config={CONFIGS}/base.py:smoke', f'--workdir={workdir}', *corpus, *preset, TEXT) == 0
    )
    return workdir


@pytest.fixture(scope='module')
def pretrained(tmp_path_factory):
    """A Gemma 2 of 64 ids in float16, and its tokenizer."""
    directory = tmp_path_factory.mktemp('pretrained') / 'gemma2'
    weights = {name: x.astype(np.float16) for name, x in weights_of('gemma2').items()}
    write(directory, {**config_of('gemma2'), 'dtype': 'float16'}, weights)
    vocabulary_files.letters(directory / 'tokenizer.json')
    return directory


@pytest.mark.parametrize('name', NAMES)
def test_a_directory_comes_out_as_it_went_in(name, tmp_path, capsys):
    src, dst = write_golden(tmp_path / name, name), tmp_path / 'new' / name
    said = written(capsys, src, dst)
    (config, tensors), (expected, weights) = read(dst), read(src)
    assert config == expected and f'wrote {dst}: {config["architectures"][0]}, ' in said
    same_tensors(tensors, weights)


def test_what_is_written_can_be_read_by_whom_the_umask_lets(tmp_path, capsys):
    before = os.umask(0o027)
    try:
        written(capsys, write_golden(tmp_path / 'a', 'llama'), tmp_path / 'b')
    finally:
        os.umask(before)
    assert {stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / 'b').iterdir()} == {0o640}
    assert stat.S_IMODE((tmp_path / 'b').stat().st_mode) == 0o750


@pytest.mark.parametrize('length', [None, 160])
def test_an_extension_is_written_as_transformers_spells_it(tmp_path, capsys, length):
    src, dst = write_golden(tmp_path / 'neox', 'gpt_neox'), tmp_path / 'yarn'
    more = [] if length is None else [f'--length={length}']
    said = written(capsys, src, dst, '--config.model.position.name=yarn', *more)
    assert f'for {length or 64} tokens, positions yarn' in said
    fields = read(dst)[0]
    rope = fields['rope_parameters']
    assert fields['max_position_embeddings'] == (length or 64)
    assert (rope['rope_type'], rope['factor']) == ('yarn', (length or 64) / 64)
    assert (rope['rope_theta'], rope['partial_rotary_factor']) == (1000.0, 0.25)  # what the weights know
    trained, params = convert.load(src)
    yarn = dataclasses.replace(trained, position={**trained.position, 'name': 'yarn'})
    tokens = np.random.default_rng(0).integers(0, 64, (2, length or 64), np.int32)
    np.testing.assert_array_equal(computed(*convert.load(dst), tokens), computed(yarn, params, tokens))


def test_layers_of_a_kind_can_have_positions_of_their_own(tmp_path, capsys):
    """Gemma 3: the layers with a window keep their RoPE while the others are extended, or the other way round."""
    src = write_golden(tmp_path / 'gemma3', 'gemma3')
    before = read(src)[0]['rope_parameters']
    written(capsys, src, tmp_path / 'a', '--config.model.position.name=yarn', '--length=128')
    after = read(tmp_path / 'a')[0]['rope_parameters']
    assert (
        after['sliding_attention'] == before['sliding_attention'] and after['full_attention']['factor'] == 2.0
    )
    pi = ('--config.model.kinds.local.position.name=pi', '--config.model.kinds.local.position.factor=3.0')
    written(capsys, src, tmp_path / 'b', *pi)
    after = read(tmp_path / 'b')[0]['rope_parameters']
    theta = before['sliding_attention']['rope_theta']
    assert after['sliding_attention'] == {'rope_type': 'linear', 'factor': 3.0, 'rope_theta': theta}
    assert after['full_attention'] == before['full_attention']


def test_other_types_and_architectures(tmp_path, capsys):
    src = write_golden(tmp_path / 'llama', 'llama')
    more = ('--dtype=bfloat16', '--architecture=MistralForCausalLM')
    assert ': MistralForCausalLM, ' in written(capsys, src, tmp_path / 'mistral', *more)
    config, tensors = read(tmp_path / 'mistral')
    assert config['architectures'] == ['MistralForCausalLM'] and config['dtype'] == 'bfloat16'
    assert {str(x.dtype) for x in tensors.values()} == {'bfloat16'}


def test_a_run_from_scratch(scratch, corpus, tmp_path, capsys):
    """The directory is evaluated as the run itself was."""
    said = written(capsys, scratch, tmp_path / 'new')
    assert ': LlamaForCausalLM, 0.1 MB, no tokenizer, for 64 tokens, positions rope' in said
    assert read(tmp_path / 'new')[0]['rope_parameters'] == {'rope_type': 'default', 'rope_theta': 100000.0}
    found = origin.find(scratch)
    model, params = convert.load(tmp_path / 'new')
    tokens = np.arange(128, dtype=np.int32)[None] % 257
    np.testing.assert_array_equal(
        computed(model, params, tokens), computed(found.model, found.params(found.model), tokens)
    )
    words = [
        f'--init={tmp_path}/new',
        f'--config={CONFIGS}/base.py:smoke',
        f'--workdir={tmp_path}/eval',
        TEXT,
    ]
    assert lcx('eval', *words, *corpus) == 0
    again, expected = (rows(w / 'results.jsonl') for w in (tmp_path / 'eval', scratch))
    assert [r['bits_per_byte'] for r in again] == [r['bits_per_byte'] for r in expected]


def test_a_theta_that_was_only_in_the_preset_goes_with_another_method(scratch, tmp_path, capsys):
    written(capsys, scratch, tmp_path / 'new', '--config.model.position.name=yarn', '--length=256')
    rope = read(tmp_path / 'new')[0]['rope_parameters']
    assert (rope['rope_theta'], rope['factor'], rope['original_max_position_embeddings']) == (
        100000.0,
        4.0,
        64,
    )


@pytest.mark.parametrize('tune', ['full', 'lora'])
def test_a_pretrained_model_that_was_tuned(pretrained, corpus, tmp_path, capsys, tune):
    """Adapters merged, in float32, whatever the directory has; architecture, ids and tokenizer are the directory's."""
    words = [
        f'--config={CONFIGS}/base.py:smoke',
        f'--workdir={tmp_path}/run',
        f'--config.init_from={pretrained}',
    ]
    yarn = ('--config.model.position.name=yarn', '--config.stages[0].length=128')
    more = [*corpus, *yarn, f'--config.tune.name={tune}', '--config.optimizer.learning_rate=0.01']
    assert lcx('train', *words, *more, '--config.eval.run=()') == 0
    said = written(capsys, tmp_path / 'run', tmp_path / 'new')
    assert ': Gemma2ForCausalLM, 0.1 MB, its tokenizer, for 128 tokens, positions yarn' in said
    config, tensors = read(tmp_path / 'new')
    expected = config_of('gemma2')
    assert all(config[name] == expected[name] for name in ('bos_token_id', 'layer_types', 'sliding_window'))
    assert (config['rope_parameters']['rope_theta'], config['rope_parameters']['factor']) == (1000.0, 2.0)
    assert {str(x.dtype) for x in tensors.values()} == {'float32'} and config['dtype'] == 'float32'
    changed = {name for name, x in weights_of('gemma2').items() if np.abs(tensors[name] - x).max() > 1e-3}
    name = 'model.layers.1.self_attn.{}_proj.weight'
    assert {name.format('q'), name.format('v')} <= changed and (name.format('k') in changed) == (
        tune == 'full'
    )
    assert (tmp_path / 'new' / 'tokenizer.json').read_bytes() == (pretrained / 'tokenizer.json').read_bytes()
    found = origin.find(tmp_path / 'run')
    tokens = np.random.default_rng(0).integers(0, 64, (1, 128), np.int32)
    np.testing.assert_array_equal(
        computed(*convert.load(tmp_path / 'new'), tokens),
        computed(found.model, found.params(found.model), tokens),
    )


def test_a_gguf_file(tmp_path, capsys):
    pytest.importorskip('gguf', reason='reading GGUF needs lcx[gguf]')
    from tests.convert import tiny_gguf

    file = tiny_gguf.write(tmp_path / 'tiny.gguf', 'F32')
    (tmp_path / 'new').mkdir()
    said = written(capsys, file, tmp_path / 'new')
    assert ': LlamaForCausalLM, 0.1 MB, its tokenizer, for 128 tokens, positions rope' in said
    same_tensors(read(tmp_path / 'new')[1], tiny_gguf.parameters())
    for word in ('--length=256', '--dtype=float32', '--config.model.position.name=pi'):
        assert lcx('convert', f'--src={file}', f'--dst={tmp_path}/other', word) == 2
        assert f'{word}: a GGUF file is converted as it is; convert what is' in capsys.readouterr().err
    assert lcx('convert', f'--src={file}', f'--dst={tmp_path}/new') == 5  # which is in use now
    assert not (tmp_path / 'other').exists()


def test_a_model_by_its_name(pretrained, tmp_path, monkeypatch, capsys):
    """Out of the cache, without network; and nothing is fetched for a command that cannot be, or to show help."""
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path))
    monkeypatch.setattr(packages.subprocess, 'run', lambda *_, **__: pytest.fail('the network was asked'))
    assert lcx('convert', '--help', '--src=smollm2') == 0
    assert lcx('convert', '--src=smollm2') == 2
    assert '--dst is required' in capsys.readouterr().err
    cached = smollm2.default_cache() / smollm2.NAME
    cached.parent.mkdir(parents=True)
    cached.symlink_to(pretrained, target_is_directory=True)
    assert lcx('convert', '--src', 'smollm2', '--dst', tmp_path / 'new') == 0
    same_tensors(read(tmp_path / 'new')[1], read(pretrained)[1])
    assert (tmp_path / 'new' / 'tokenizer.json').is_file()


@pytest.mark.parametrize(
    ('code', 'words', 'message'),
    [
        (2, ('--dst={here}/new',), '--src is required, for example --src=smollm2'),
        (2, ('--src={llama}',), '--dst is required, for example --dst=models/smollm2'),
        (5, ('--src={llama}', '--dst={llama}'), 'llama: exists and is not empty; choose another place, or remove it.'),
        (2, ('--src={here}/nowhere', '--dst={here}/new'), "src: '{here}/nowhere' is neither a workdir"),
        (7, ('--src={here}/nowhere.gguf', '--dst={here}/new'), 'nowhere.gguf cannot be read: No such file'),
        (2, ('--src={llama}', '--dst={here}/new', '--dtype=int8'), 'dtype=int8: value should be one of'),
        (2, ('--src={llama}', '--dst={here}/new', '--length=0'), 'flag --length=0: 0 is not a positive integer.'),
        (2, ('--src={llama}', '--dst={here}/new', '--architecture=LamaForCausalLM'), "mean 'LlamaForCausalLM'?"),
        (2, ('--src={llama}', '--dst={here}/new', '--config.eval.windows=3'), 'convert writes a model, and reads only'),
        (2, ('--config.model.width=3',), 'which run? Name it, for example --src=runs/base'),
        (2, ('--src={llama}', '--dst={here}/new', '--config.model.width=16'),
         'embedding: the model as configured has (64, 16), but what was trained has (64, 32).'),
        (2, ('--src={llama}', '--dst={here}/new', '--config.model.position.name=t5'),
         'position_full/table: the model as configured has (32, 4), but what was trained has none.'),
        (2, ('--src={llama}', '--dst={here}/new', '--config.model.position.name=alibi'),
         "LlamaForCausalLM cannot be written: name: unknown 'alibi'"),
        (2, ('--src={llama}', '--dst={here}/new', '--config.model.kinds.full.regions.name=rerope',
             '--config.model.kinds.full.regions.window=8'), 'kinds.full.regions: \'rerope\' has no place'),
        (2, ('--src={llama}', '--dst={here}/new', '--length=128', '--config.model.position.name=dynamic_ntk'),
         '--length: 128 has no place in the architecture with these positions, but 64 has; leave it out.'),
        (2, ('--src={llama}', '--dst={here}/new', '--config.model.position.beta_fast=2.0'), "beta_fast (of 'llama3')"),
        (2, ('--src={llama}', '--dst={here}/new', '--config.model.kinds.ful.attention.name=dense'), "mean 'full'?"),
        (5, ('--src={pickle}', '--dst={here}/new'), 'weights as a pickle, which could run code and is not read.'),
        (5, ('--src={torn}', '--dst={here}/new'), 'config.json: malformed JSON'),
        (2, ('--src={other}', '--dst={here}/new'), "architectures: unknown 'BertModel'"),
        (2, ('--src={scratch}', '--dst={here}/new', '--config.model.position.name=alibi'),
         'no architecture of transformers has a place for this model'),
        (2, ('--src={scratch}', '--dst={here}/new', f'--config={CONFIGS}/base.py'),
         'convert takes the configuration of the run itself'),
    ],
)  # fmt: skip
def test_what_cannot_be_written_is_said_and_leaves_nothing(scratch, tmp_path, capsys, code, words, message):
    places = {'here': tmp_path, 'scratch': scratch}
    for name in ('llama', 'pickle', 'torn', 'other'):
        places[name] = write_golden(tmp_path / name, 'llama')
    (places['pickle'] / 'model.safetensors').rename(places['pickle'] / 'pytorch_model.bin')
    (places['torn'] / 'config.json').write_text('{"architectures": ["Lla')
    (places['other'] / 'config.json').write_text(json.dumps({'architectures': ['BertModel']}))
    before = sorted(path.relative_to(tmp_path) for path in tmp_path.rglob('*'))
    assert lcx('convert', *(word.format(**places) for word in words)) == code
    said = capsys.readouterr().err
    assert said.startswith('lcx: ') and message.format(**places) in said
    assert sorted(path.relative_to(tmp_path) for path in tmp_path.rglob('*')) == before
