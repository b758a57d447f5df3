"""Writing: complete or not at all, in the types and sizes asked for."""

import json
import os

import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import load_file

from lcx import convert
from lcx.errors import ConfigError, StorageError
from tests.convert.families import config_of, read, same_tensors, weights_of, write, write_golden


@pytest.fixture(scope='module')
def model(tmp_path_factory):
    return convert.load(write_golden(tmp_path_factory.mktemp('in'), 'llama'))


def test_an_existing_target_is_refused(model, tmp_path):
    (tmp_path / 'full').mkdir()
    (tmp_path / 'full' / 'notes').touch()
    with pytest.raises(StorageError, match='exists and is not empty'):
        convert.save(*model, tmp_path / 'full')
    with pytest.raises(StorageError, match='exists and is not empty'):
        convert.save(*model, tmp_path / 'full' / 'notes')
    (tmp_path / 'empty').mkdir()
    convert.save(*model, tmp_path / 'empty')
    assert sorted(os.listdir(tmp_path)) == ['empty', 'full']


def test_a_failure_leaves_nothing(model, tmp_path, monkeypatch):
    def full(*_, **__):
        raise OSError(28, 'No space left on device')

    monkeypatch.setattr('lcx.convert.writer.save_file', full)
    with pytest.raises(StorageError, match=r'out: cannot be written: .*No space left'):
        convert.save(*model, tmp_path / 'out')
    assert os.listdir(tmp_path) == []


def test_parameters_of_another_model_are_refused(model, tmp_path):
    config, params = model
    with pytest.raises(ConfigError, match=r'embedding: the parameters have shape \(32, 64\)'):
        convert.save(config, {**params, 'embedding': params['embedding'].T}, tmp_path / 'out')
    with pytest.raises(ConfigError, match='more: the parameters have shape'):
        convert.save(config, {**params, 'more': params['embedding']}, tmp_path / 'out')


def test_dtype_and_size_of_shards_are_checked(model, tmp_path):
    with pytest.raises(ConfigError, match="dtype: unknown 'int8'"):
        convert.save(*model, tmp_path / 'out', dtype='int8')
    with pytest.raises(ConfigError, match='max_shard_bytes: 0 must be'):
        convert.save(*model, tmp_path / 'out', max_shard_bytes=0)
    config, params = model
    large = {**params, 'embedding': params['embedding'] + 1e6}
    with pytest.raises(ConfigError, match='float16 cannot hold all numbers'):
        convert.save(config, large, tmp_path / 'out', dtype='float16')
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize('dtype', ['bfloat16', 'float16'])
def test_dtype(model, tmp_path, dtype):
    convert.save(*model, tmp_path / 'out', dtype=dtype)
    tensors = load_file(tmp_path / 'out' / 'model.safetensors') if dtype == 'float16' else None
    assert json.loads((tmp_path / 'out' / 'config.json').read_text())['dtype'] == dtype
    _, params = convert.load(tmp_path / 'out')
    expected = np.array(model[1]['embedding']).astype(np.dtype(getattr(ml_dtypes, dtype, dtype)))
    np.testing.assert_array_equal(params['embedding'], expected.astype(np.float32))
    assert tensors is None or {x.dtype for x in tensors.values()} == {np.dtype('float16')}


def test_shards_hold_at_most_the_size_asked_for_and_are_read_again(model, tmp_path):
    convert.save(*model, tmp_path / 'out', max_shard_bytes=20_000)
    index = json.loads((tmp_path / 'out' / 'model.safetensors.index.json').read_text())
    shards = sorted((tmp_path / 'out').glob('*.safetensors'))
    assert shards[0].name == f'model-00001-of-{len(shards):05d}.safetensors' and len(shards) > 3
    sizes = [sum(x.nbytes for x in load_file(path).values()) for path in shards]
    assert max(sizes) <= 20_000 and index['metadata']['total_size'] == sum(sizes)
    for path in shards:
        assert {name for name, file in index['weight_map'].items() if file == path.name} == set(
            load_file(path)
        )
    same_tensors(read(tmp_path / 'out')[1], weights_of('llama'))
    convert.save(*convert.load(tmp_path / 'out'), tmp_path / 'again')
    same_tensors(read(tmp_path / 'again')[1], weights_of('llama'))


def test_the_origin_gives_types_and_tokenizer(tmp_path):
    """Matrices in bfloat16 and norms in float32 come back so, whatever config.json says."""
    weights = {
        name: x if 'norm' in name else x.astype(ml_dtypes.bfloat16) for name, x in weights_of('llama').items()
    }
    origin = write(tmp_path / 'in', config_of('llama'), weights)
    for name in ('tokenizer.json', 'vocab.json', 'README.md'):
        (origin / name).write_text(name)
    convert.save(*convert.load(origin), tmp_path / 'out', origin=origin)
    written = {path.name for path in (tmp_path / 'out').iterdir()}
    assert written == {'config.json', 'model.safetensors', 'tokenizer.json', 'vocab.json'}
    assert (tmp_path / 'out' / 'tokenizer.json').read_text() == 'tokenizer.json'
    files = [path / 'model.safetensors' for path in (origin, tmp_path / 'out')]
    assert files[0].read_bytes() == files[1].read_bytes()
    _, expected = convert.load(origin)
    convert.save(*convert.load(origin), tmp_path / 'plain')  # config.json says float32
    _, wide = convert.load(tmp_path / 'plain')
    np.testing.assert_array_equal(wide['embedding'], expected['embedding'])
    (origin / 'merges.txt').symlink_to('/etc/hostname')
    with pytest.raises(StorageError, match='leaves the directory'):
        convert.copy_tokenizer_files(origin, tmp_path / 'plain')
