"""Parameters read in parts, in pieces, on several devices, and in little memory: the numbers are those of the file."""

import json
import os
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from safetensors.numpy import save_file

from lcx import convert
from lcx.compress import leaves
from lcx.convert import reader, tensors
from tests.convert.families import write_golden

ROOT = Path(__file__).parents[2]


def equal(found, expected) -> None:
    jax.tree.map(np.testing.assert_array_equal, found, expected)


@pytest.mark.parametrize('name', ['llama_bias', 'phi3_short', 'gpt_neox', 'gpt2', 'gemma2'])
def test_pieces_are_the_whole(name, tmp_path, monkeypatch):
    """Every tensor in pieces of 7 numbers at most: through heads, joined matrices and stacked layers."""
    directory = write_golden(tmp_path, name)
    _, expected = convert.load(directory)
    monkeypatch.setattr(tensors, 'PIECE', 7)
    fetched = []
    fetch = reader.Tensors.read
    monkeypatch.setattr(reader.Tensors, 'read', lambda *a: fetched.append(fetch(*a)) or fetched[-1])
    equal(convert.load(directory)[1], expected)
    # Axes whose second letter is cut have no interval of their own: then one head's worth more is read.
    assert np.median([x.size for x in fetched]) <= 7


@pytest.mark.parametrize('name', ['phi3_short', 'gpt_neox', 'gpt2', 'gemma3'])
def test_a_part_is_that_part_of_the_whole(name, tmp_path, monkeypatch):
    """What a device is given of each parameter: the first half or the last of every axis in turn."""
    directory = write_golden(tmp_path, name)
    _, params = convert.load(directory)
    whole, parts = leaves.named(params), {}
    shard = reader._shard

    def spy(found, holders, shape, dtype, index):
        path = holders[0][1].path
        parts[path] = [
            (
                axis,
                cut,
                shard(found, holders, shape, dtype, (*(slice(None),) * axis, cut, *index[axis + 1 :])),
            )
            for axis, size in enumerate(shape)
            for cut in (slice(0, (size + 1) // 2), slice(size // 2, size))
        ]
        return shard(found, holders, shape, dtype, index)

    monkeypatch.setattr(reader, '_shard', spy)
    convert.load(directory)
    assert parts.keys() == whole.keys()
    for path, cuts in parts.items():
        for axis, cut, found in cuts:
            np.testing.assert_array_equal(found, np.array(whole[path])[(*(slice(None),) * axis, cut)])


def test_dtype(tmp_path):
    """The goldens are numbers of bfloat16, so nothing is lost."""
    directory = write_golden(tmp_path, 'llama')
    (_, wide), (_, narrow) = (convert.load(directory, dtype=dtype) for dtype in ('float32', 'bfloat16'))
    assert {str(x.dtype) for x in jax.tree.leaves(narrow)} == {'bfloat16'}
    equal(jax.tree.map(lambda x: x.astype('float32'), narrow), wide)


DEVICES = """
import sys, jax, numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec as P
from lcx import convert
_, expected = convert.load(sys.argv[1])
mesh = Mesh(np.array(jax.devices()).reshape(2, 2), ('a', 'b'))
def cut(x):
    even = [axis for axis, size in enumerate(x.shape) if size % 2 == 0][-2:]
    return NamedSharding(mesh, P(*('ab'[even.index(i)] if i in even else None for i in range(x.ndim))))
shardings = jax.tree.map(cut, expected)
_, found = convert.load(sys.argv[1], shardings=shardings)
jax.tree.map(np.testing.assert_array_equal, found, expected)
assert jax.tree.map(lambda x: x.sharding, found) == shardings
_, copies = convert.load(sys.argv[1], shardings=NamedSharding(mesh, P()))
jax.tree.map(np.testing.assert_array_equal, copies, expected)
convert.save(*convert.load(sys.argv[1], shardings=shardings), sys.argv[2])
"""


def test_four_devices(tmp_path):
    directory = write_golden(tmp_path / 'in', 'phi3_short')
    flags = {'XLA_FLAGS': '--xla_force_host_platform_device_count=4', 'JAX_PLATFORMS': 'cpu'}
    words = [sys.executable, '-c', DEVICES, str(directory), str(tmp_path / 'out')]
    subprocess.run(words, env={**os.environ, **flags}, cwd=ROOT, check=True)
    files = [path / 'model.safetensors' for path in (directory, tmp_path / 'out')]
    assert files[0].read_bytes() == files[1].read_bytes()


PEAK = """
import sys, jax
from lcx import convert
def peak():
    status = dict(line.split(':', 1) for line in open('/proc/self/status'))
    return int(status['VmHWM'].split()[0]) * 1024
jax.numpy.zeros(3).block_until_ready()
convert.read_config(sys.argv[1])
before = peak()
_, params = convert.load(sys.argv[1])
print((peak() - before) / sum(x.nbytes for x in jax.tree.leaves(params)))
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path('/proc/self/status').exists(), reason='asks Linux for the peak')
def test_peak_memory_is_little_more_than_the_parameters(tmp_path):
    """A model of 330 MB, of which the interpreter's own memory is not counted: 1.07 times."""
    width, hidden, layers, vocab = 768, 2048, 8, 16384
    shapes = {'model.embed_tokens': (vocab, width), 'lm_head': (vocab, width), 'model.norm': (width,)}
    for i in range(layers):
        block = f'model.layers.{i}'
        shapes |= {f'{block}.self_attn.{name}_proj': (width, width) for name in 'qkvo'}
        shapes |= {f'{block}.mlp.{name}_proj': (hidden, width) for name in ('gate', 'up')}
        shapes |= {f'{block}.mlp.down_proj': (width, hidden)}
        shapes |= {f'{block}.{name}_layernorm': (width,) for name in ('input', 'post_attention')}
    random = np.random.default_rng(0)
    weights = {f'{name}.weight': random.standard_normal(shape, np.float32) for name, shape in shapes.items()}
    save_file(weights, tmp_path / 'model.safetensors')
    config = {
        'architectures': ['LlamaForCausalLM'], 'vocab_size': vocab, 'hidden_size': width, 'intermediate_size': hidden,
        'num_hidden_layers': layers, 'num_attention_heads': 12, 'max_position_embeddings': 2048,
    }  # fmt: skip
    (tmp_path / 'config.json').write_text(json.dumps(config))
    words = [sys.executable, '-c', PEAK, str(tmp_path)]
    ratio = float(subprocess.run(words, cwd=ROOT, check=True, capture_output=True, text=True).stdout)
    assert 0.9 < ratio < 1.3
