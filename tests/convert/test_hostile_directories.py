"""Directories that are broken, lie, or attack: each is refused by name, at once, and nothing is written."""

import json
import struct
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from lcx import convert
from lcx.errors import ConfigError, DataError, StorageError
from tests.convert.families import config_of, weights_of, write, write_golden

INDEX = 'model.safetensors.index.json'
Q = 'model.layers.1.self_attn.q_proj.weight'


def with_weights(change):
    """A directory whose tensors are changed by ``change``, a function of the mapping."""

    def make(directory: Path) -> None:
        weights = weights_of('llama')
        change(weights)
        write(directory, config_of('llama'), weights)

    return make


def with_index(weight_map, also=lambda directory: None):
    """A directory of shards; ``weight_map`` is a mapping, or a file that is said to hold every tensor."""

    def make(directory: Path) -> None:
        write_golden(directory, 'llama')
        (directory / 'model.safetensors').rename(directory / 'a.safetensors')
        found = weight_map
        if isinstance(weight_map, str):
            found = {name: weight_map for name in weights_of('llama')}
        (directory / INDEX).write_text(json.dumps({'weight_map': found}))
        also(directory)

    return make


def with_bytes(change, name: str = 'model.safetensors'):
    """A directory with a file whose bytes are changed by ``change``."""

    def make(directory: Path) -> None:
        write_golden(directory, 'llama')
        (directory / name).write_bytes(change((directory / name).read_bytes()))

    return make


def only_pickle(directory: Path) -> None:
    write_golden(directory, 'llama')
    (directory / 'model.safetensors').unlink()
    (directory / 'pytorch_model.bin').write_bytes(b'\x80\x04c')


def without(name: str):
    def make(directory: Path) -> None:
        write_golden(directory, 'llama')
        (directory / name).unlink()

    return make


def linked(name: str):
    """A directory where ``name`` is a link to a file beside the directory."""

    def make(directory: Path) -> None:
        write_golden(directory, 'llama')
        (directory / name).rename(directory.parent / name)
        (directory / name).symlink_to(directory.parent / name)

    return make


def link_as_shard(directory: Path) -> None:
    (directory / 'a.safetensors').rename(directory.parent / 'a.safetensors')
    (directory / 'a.safetensors').symlink_to('../a.safetensors')


def twice(directory: Path) -> None:
    weights = load_file(directory / 'a.safetensors')
    save_file({Q: weights[Q], 'x': np.zeros(1, np.float32)}, directory / 'b.safetensors')


def quantised(weights) -> None:
    weights[Q] = weights[Q].astype(np.int8)


DIRECTORIES = {
    'nothing': (lambda directory: None, StorageError, 'no such directory'),
    'no config': (without('config.json'), StorageError, 'has no file config.json'),
    'no weights': (without('model.safetensors'), StorageError, f'neither model.safetensors nor {INDEX}'),
    'pickle': (only_pickle, StorageError, r'could run code .*save_pretrained\(.NEW.\)'),
    'pickle in index': (with_index('pytorch_model-1.bin'), StorageError, 'pytorch_model-1.bin: .*could run code'),
    'config garbage': (with_bytes(lambda x: x[:-9], 'config.json'), StorageError, 'malformed JSON'),
    'config of NaN': (
        with_bytes(lambda x: x.replace(b'0.03', b'NaN'), 'config.json'), StorageError, 'NaN is not JSON',
    ),
    'config list': (with_bytes(lambda x: b'[]', 'config.json'), StorageError, 'holds a list'),
    'config deep': (with_bytes(lambda x: b'[' * 10**5, 'config.json'), StorageError, 'malformed JSON'),
    'config nested': (
        with_bytes(lambda x: b'{"a":' * 40 + b'1' + b'}' * 40, 'config.json'), StorageError, 'more than 32 levels',
    ),
    'config bytes': (with_bytes(lambda x: b'\xff\xfe\x00', 'config.json'), StorageError, 'malformed JSON'),
    'config huge': (with_bytes(lambda x: b' ' * (2**24 + 1), 'config.json'), StorageError, 'larger than'),
    'config link': (linked('config.json'), StorageError, 'leaves the directory.*cp -rL'),
    'weights link': (linked('model.safetensors'), StorageError, 'leaves the directory.*cp -rL'),
    'truncated': (with_bytes(lambda x: x[:-1000]), StorageError, 'cut short'),
    'empty': (with_bytes(lambda x: b''), StorageError, 'cut short'),
    'garbage': (with_bytes(lambda x: b'\x07' * 1000), StorageError, 'not a safetensors file'),
    'header too large': (
        with_bytes(lambda x: struct.pack('<Q', 2**40) + x[8:]), StorageError, 'not a safetensors file',
    ),
    'header lies': (with_bytes(lambda x: x.replace(b'[64,32]', b'[65,32]', 1)), StorageError, 'not a safetensors'),
    'shard missing': (with_index('b.safetensors'), StorageError, 'has no file b.safetensors'),
    'shard absolute': (with_index('/etc/passwd'), StorageError, "'/etc/passwd' is not the name of a file in"),
    'shard above': (with_index('../a.safetensors'), StorageError, 'is not the name of a file in this'),
    'shard dots': (with_index('..'), StorageError, 'is not the name of a file in this'),
    'shard backslash': (with_index('..\\a.safetensors'), StorageError, 'is not the name of a file in this'),
    'shard NUL': (with_index('a.safetensors\0'), StorageError, 'is not the name of a file in this'),
    'shard number': (with_index({Q: 3}), StorageError, '3 is not the name of a file'),
    'shard link': (with_index('a.safetensors', link_as_shard), StorageError, 'leaves the directory'),
    'no weight_map': (with_index({}), StorageError, 'has no weight_map'),
    'tensor twice': (
        with_index({Q: 'a.safetensors', 'x': 'b.safetensors'}, twice), DataError, f'tensor {Q} is in a.* and b',
    ),
    'index lies': (with_index({'y': 'a.safetensors'}), DataError, 'tensor y is not in a.safetensors'),
    'tensor missing': (
        with_weights(lambda x: x.pop(Q)), DataError, f'tensor {Q} is missing. There is model.layers',
    ),
    'tensor unexpected': (
        with_weights(lambda x: x.update({Q.replace('1', '9'): x[Q]})), DataError, 'layers.9.self_.* is not expected',
    ),
    'bias unexpected': (
        with_weights(lambda x: x.update({Q.replace('weight', 'bias'): x[Q][0]})), DataError, 'bias is not expected',
    ),
    'shape': (
        with_weights(lambda x: x.update({Q: x[Q][:16]})), DataError, r'shape \[16, 32\]; config.json says \[32, 32\]',
    ),
    'quantised': (with_weights(quantised), DataError, 'holds I8; .*dequantised'),
}  # fmt: skip


@pytest.mark.parametrize('name', DIRECTORIES)
def test_is_refused(name, tmp_path):
    make, kind, message = DIRECTORIES[name]
    make(tmp_path / 'model')
    before = sorted(tmp_path.rglob('*'))
    with pytest.raises(kind, match=message):
        convert.load(tmp_path / 'model')
    assert sorted(tmp_path.rglob('*')) == before


@pytest.mark.parametrize('suffix', ['.bin', '.pt', '.pth', '.pkl', '.ckpt'])
def test_a_pickle_is_refused_by_its_name(suffix, tmp_path):
    (tmp_path / f'weights{suffix}').write_bytes(b'')
    with pytest.raises(StorageError, match='could run code'):
        convert.load(tmp_path / f'weights{suffix}')


def test_an_unknown_dtype_is_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"dtype: unknown 'float16'.*bfloat16, float32"):
        convert.load(write_golden(tmp_path, 'llama'), dtype='float16')


def test_tied_output_may_be_stored_if_it_is_the_same(tmp_path):
    """Some files hold both; transformers does not tie those that differ."""
    config, weights = config_of('llama_bias'), weights_of('llama_bias')
    twice = {**weights, 'lm_head.weight': weights['model.embed_tokens.weight']}
    _, params = convert.load(write(tmp_path / 'same', config, twice))
    assert 'output' not in params
    twice['lm_head.weight'] = twice['lm_head.weight'] + 1
    with pytest.raises(DataError, match=r'lm_head.weight differs from .*tie_word_embeddings'):
        convert.load(write(tmp_path / 'other', config, twice))


def test_constants_of_old_files_and_names_of_the_bare_model_are_known(tmp_path):
    """GPT-2 on the hub has masks as tensors, and no 'transformer.' before the names; Pythia has masks of bytes."""
    weights = {name.removeprefix('transformer.'): x for name, x in weights_of('gpt2').items()}
    weights |= {
        'h.0.attn.bias': np.ones((1, 1, 32, 32), np.float32),
        'h.0.attn.masked_bias': np.float32(-1e4)[None],
    }
    _, found = convert.load(write(tmp_path / 'bare', config_of('gpt2'), weights))
    _, expected = convert.load(write_golden(tmp_path / 'plain', 'gpt2'))
    for a, b in zip(np.array(found['embedding']), np.array(expected['embedding'])):
        np.testing.assert_array_equal(a, b)
    weights = weights_of('gpt_neox') | {
        'gpt_neox.layers.0.attention.bias': np.ones((1, 1, 64, 64), bool),
        'gpt_neox.layers.0.attention.rotary_emb.inv_freq': np.ones(1, np.float32),
    }
    convert.load(write(tmp_path / 'pythia', config_of('gpt_neox'), weights))
