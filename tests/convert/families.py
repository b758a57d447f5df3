"""The goldens of third_party/families as directories, and what the tests of conversion ask of them."""

import json
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file, save_file

PATH = Path(__file__).parents[2] / 'third_party' / 'families' / 'goldens.npz'
NAMES = (
    'llama', 'llama_bias', 'mistral', 'qwen2', 'qwen2_windows', 'qwen3', 'gemma2', 'gemma3', 'phi3_short', 'phi3_long',
    'gpt_neox', 'gpt_neox_sequential', 'gpt2',
)  # fmt: skip


def golden(name: str) -> dict[str, np.ndarray]:
    """What the file holds of one model, by the rest of the key."""
    with np.load(PATH) as goldens:
        return {key.removeprefix(f'{name}/'): goldens[key] for key in goldens if key.startswith(f'{name}/')}


def below(found: dict[str, np.ndarray], prefix: str) -> dict[str, np.ndarray]:
    return {key.removeprefix(f'{prefix}/'): x for key, x in found.items() if key.startswith(f'{prefix}/')}


def config_of(name: str) -> dict:
    """The fields of the config.json that transformers wrote."""
    return json.loads(golden(name)['config'].tobytes())


def write(directory: Path, config: dict, weights: dict[str, np.ndarray]) -> Path:
    """A checkpoint in one file."""
    directory.mkdir(parents=True, exist_ok=True)
    (directory / 'config.json').write_text(json.dumps(config))
    save_file(weights, directory / 'model.safetensors', metadata={'format': 'pt'})
    return directory


def write_golden(directory: Path, name: str, **changes) -> Path:
    """The directory that transformers wrote, with fields of config.json changed; None as a value: left out."""
    config = {**config_of(name), **changes}
    return write(
        directory, {k: x for k, x in config.items() if k not in changes or x is not None}, weights_of(name)
    )


def weights_of(name: str) -> dict[str, np.ndarray]:
    return below(golden(name), 'weights')


def read(directory: Path) -> tuple[dict, dict[str, np.ndarray]]:
    """config.json and all tensors of a directory, shards or not."""
    tensors = {}
    for path in sorted(directory.glob('*.safetensors')):
        tensors |= load_file(path)
    return json.loads((directory / 'config.json').read_text()), tensors


def same_tensors(found: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> None:
    """Names, types, shapes and bytes are equal."""
    assert sorted(found) == sorted(expected)
    for name, x in expected.items():
        assert found[name].dtype == x.dtype and found[name].shape == x.shape, name
        assert found[name].tobytes() == x.tobytes(), name
