"""GGUF to Hugging Face: every number where it belongs, the tokenizer, and errors that name what does not fit."""

import doctest
import json

import numpy as np
import pytest
from safetensors.numpy import load_file
from tokenizers import Tokenizer

from lcx.convert import gguf as convert
from lcx.errors import ConfigError, DataError, StorageError
from tests.convert import naive_bpe


@pytest.fixture(scope='module')
def tiny():
    """The module that writes GGUF files; tests that need it are skipped without the package gguf."""
    pytest.importorskip('gguf', reason='reading GGUF needs lcx[gguf]')
    from tests.convert import tiny_gguf

    return tiny_gguf


def converted(tiny, directory, **changes):
    convert.gguf_to_hf(tiny.write(directory / 'model.gguf', **changes), directory / 'hf')
    return directory / 'hf'


def turned(vector, position, neighbours):
    """One head rotated by RoPE with pairs that are neighbours, or halves."""
    half = len(vector) // 2
    angle = position * 100.0 ** (-np.arange(half) / half)
    pairs = vector.reshape(half, 2).T if neighbours else vector.reshape(2, half)
    x = pairs[0] * np.cos(angle) - pairs[1] * np.sin(angle)
    y = pairs[1] * np.cos(angle) + pairs[0] * np.sin(angle)
    return np.stack([x, y], 1).ravel() if neighbours else np.concatenate([x, y])


def test_half_split_turns_one_rotary_convention_into_the_other():
    rows = np.random.default_rng(0).normal(size=(2, 8))
    for head in rows:
        before = turned(head, 5, neighbours=True)
        after = turned(convert.half_split(head, 1), 5, neighbours=False)
        np.testing.assert_allclose(convert.half_split(before, 1), after, rtol=1e-12)
    by_head = np.concatenate([convert.half_split(head, 1) for head in rows])
    assert np.array_equal(convert.half_split(rows.ravel(), 2), by_head)
    assert doctest.testmod(convert).failed == 0


@pytest.mark.parametrize(('kind', 'dtype'), [('F16', 'float16'), ('F32', 'float32'), ('BF16', 'float32')])
def test_every_tensor_arrives(tiny, tmp_path, kind, dtype):
    held = load_file(converted(tiny, tmp_path, kind=kind) / 'model.safetensors')
    expected = tiny.parameters()
    assert set(held) == set(expected)
    error = {'F16': 2**-11, 'F32': 0, 'BF16': 2**-8}[kind]
    for name, array in held.items():
        assert array.dtype == dtype
        np.testing.assert_allclose(array, expected[name], rtol=error, atol=1e-7 if error else 0, err_msg=name)


@pytest.mark.parametrize('kind', ['Q8_0', 'Q4_1'])
def test_quantised_tensors_are_what_the_file_means(tiny, tmp_path, kind):
    held = load_file(converted(tiny, tmp_path, kind=kind) / 'model.safetensors')
    quantised = tiny.gguf.GGMLQuantizationType[kind]
    for name, array in tiny.parameters().items():
        if array.ndim > 1:  # rows are quantised one by one, so their order does not matter
            array = tiny.gguf.dequantize(tiny.gguf.quants.quantize(array, quantised), quantised)
        assert np.array_equal(held[name], array.astype(np.float16)), name


def test_the_configuration(tiny, tmp_path):
    config = json.loads((converted(tiny, tmp_path) / 'config.json').read_text())
    wanted = {
        'architectures': ['LlamaForCausalLM'], 'model_type': 'llama', 'hidden_size': 32, 'intermediate_size': 64,
        'num_hidden_layers': 2, 'num_attention_heads': 4, 'num_key_value_heads': 2, 'head_dim': 8,
        'rms_norm_eps': 1e-5, 'rope_parameters': {'rope_type': 'default', 'rope_theta': 100000.0},
        'max_position_embeddings': 128, 'vocab_size': 267, 'tie_word_embeddings': True, 'bos_token_id': 1,
        'eos_token_id': 2, 'dtype': 'float16',
    }  # fmt: skip
    assert {key: config[key] for key in wanted} == wanted


def test_an_output_of_its_own_and_linear_scaling(tiny, tmp_path):
    head = np.ones((267, 32), np.float32)
    keys = {'llama.rope.scaling.type': 'linear', 'llama.rope.scaling.factor': 4.0}
    directory = converted(tiny, tmp_path, tensors={'output.weight': head}, keys=keys)
    config = json.loads((directory / 'config.json').read_text())
    assert config['tie_word_embeddings'] is False
    assert config['rope_parameters'] == {'rope_type': 'linear', 'rope_theta': 100000.0, 'factor': 4.0}
    assert np.array_equal(load_file(directory / 'model.safetensors')['lm_head.weight'], head)


@pytest.mark.parametrize('pre', ['smollm', 'gpt-2'])
def test_the_tokenizer(tiny, tmp_path, pre):
    directory = converted(tiny, tmp_path, keys={'tokenizer.ggml.pre': pre})
    tokenizer = Tokenizer.from_file(str(directory / 'tokenizer.json'))
    vocab = {token: number for number, token in enumerate(tiny.TOKENS)}
    merges = [tuple(merge.split(' ')) for merge in tiny.MERGES]
    for text in (
        'hello thello 12 x12',
        'tabs\t\n  and  spaces ',
        "it's 3.14, 春眠不觉晓",
        'def f(x_1):\n\treturn 12',
    ):
        ids = tokenizer.encode(text).ids
        assert ids == naive_bpe.encode(text, vocab, merges, digits_apart=pre == 'smollm')
        assert tokenizer.decode(ids) == text
    assert tokenizer.encode('a<|im_end|><extra>').ids == [vocab['a'], 2, 3]
    assert tokenizer.decode([2, vocab['hello'], 3]) == 'hello<extra>'
    config = json.loads((directory / 'tokenizer_config.json').read_text())
    assert (config['bos_token'], config['eos_token']) == ('<|im_start|>', '<|im_end|>')


MATRIX = np.ones((4, 32), np.float32)


@pytest.mark.parametrize(
    ('changes', 'message'),
    [
        ({'architecture': 'gpt2'}, "architecture 'gpt2'; only llama"),
        ({'keys': {'llama.block_count': None}}, r'the key llama\.block_count is missing'),
        ({'keys': {'tokenizer.ggml.tokens': None}}, r'the key tokenizer\.ggml\.tokens is missing'),
        (
            {'keys': {'llama.attention.head_count': [4, 4]}},
            r'head_count is \[4, 4\], not one positive whole number',
        ),
        ({'keys': {'llama.embedding_length': 'wide'}}, "embedding_length is 'wide', not one positive whole"),
        ({'keys': {'llama.rope.dimension_count': 4}}, r'llama\.rope\.dimension_count is 4; only 8'),
        ({'keys': {'llama.expert_count': 8}}, r'llama\.expert_count is 8; only 0'),
        ({'keys': {'llama.rope.scaling.type': 'yarn'}}, "scaling.type is 'yarn'; only none and linear"),
        (
            {'keys': {'llama.feed_forward_length': 96}},
            r'blk\.0\.ffn_gate\.weight has the shape \(64, 32\) instead',
        ),
        ({'keys': {'llama.block_count': 3}}, r'the tensor blk\.2\.attn_norm\.weight is missing'),
        ({'tensors': {'output_norm.weight': None}}, r'the tensor output_norm\.weight is missing'),
        ({'tensors': {'rope_freqs.weight': MATRIX}}, r'rope_freqs\.weight is of no plain Llama.*Llama 3\.1'),
        (
            {'tensors': {'blk.0.attn_q.bias': MATRIX}},
            r'the tensor blk\.0\.attn_q\.bias is of no plain Llama model',
        ),
        (
            {'tensors': {'output.weight': np.full((267, 32), np.inf, 'f')}},
            r'output\.weight holds numbers that are',
        ),
        ({'keys': {'tokenizer.ggml.model': 'llama'}}, "tokenizer.ggml.model is 'llama'; only 'gpt2'"),
        ({'keys': {'tokenizer.ggml.pre': 'qwen2'}}, "tokenizer.ggml.pre is 'qwen2'; known are gpt-2, smollm"),
        ({'keys': {'tokenizer.ggml.merges': ['x yz']}}, r'tokenizer\.ggml\.merges do not fit the tokens'),
        ({'keys': {'tokenizer.ggml.token_type': [1]}}, 'token_type is not one number for each'),
        ({'keys': {'tokenizer.ggml.bos_token_id': 999}}, r'bos_token_id is 999, not a token'),
    ],
)
def test_what_does_not_fit_is_named(tiny, tmp_path, changes, message):
    with pytest.raises(DataError, match=message):
        converted(tiny, tmp_path, **changes)
    assert [path.name for path in tmp_path.iterdir()] == ['model.gguf']


@pytest.mark.parametrize('keep', [0, 3, 100, 5000, -100])
def test_a_damaged_file(tiny, tmp_path, keep):
    path = tiny.write(tmp_path / 'model.gguf')
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(DataError, match='is not a complete GGUF file'):
        convert.gguf_to_hf(path, tmp_path / 'hf')
    with pytest.raises(DataError, match='cannot be read: No such file'):
        convert.gguf_to_hf(tmp_path / 'none.gguf', tmp_path / 'hf')


def test_a_place_that_cannot_be_written(tiny, tmp_path):
    (tmp_path / 'file').write_text('')
    with pytest.raises(StorageError, match='Choose another directory'):
        convert.gguf_to_hf(tiny.write(tmp_path / 'model.gguf'), tmp_path / 'file' / 'hf')


def test_without_the_package(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__('sys').modules, 'gguf', None)
    with pytest.raises(ConfigError, match=r"pip install 'lcx\[gguf\]'"):
        convert.gguf_to_hf(tmp_path / 'model.gguf', tmp_path / 'hf')
