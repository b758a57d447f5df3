"""A GGUF file of the Llama architecture as a Hugging Face directory, its tokenizer included.

GGUF (llama.cpp) stores a head's query and key rows in the order of interleaved rotary pairs, (0, H/2, 1, H/2 + 1, ...);
Hugging Face and lcx rotate halves, (0, 1, ...). :func:`half_split` undoes it. Left out, the model still speaks: the
perplexity of SmolLM2-135M on a novel is 13 times higher, which no shape check sees.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from lcx.convert.gguf_tokenizer import write_tokenizer
from lcx.data import atomic
from lcx.errors import ConfigError, DataError

if TYPE_CHECKING:
    from gguf import GGUFReader, ReaderTensor

_EMBEDDING, _HEAD = 'model.embed_tokens.weight', 'lm_head.weight'
_OUTER = {'token_embd.weight': _EMBEDDING, 'output_norm.weight': 'model.norm.weight', 'output.weight': _HEAD}
_INNER = {
    'attn_norm': 'input_layernorm',
    'attn_q': 'self_attn.q_proj',
    'attn_k': 'self_attn.k_proj',
    'attn_v': 'self_attn.v_proj',
    'attn_output': 'self_attn.o_proj',
    'ffn_norm': 'post_attention_layernorm',
    'ffn_gate': 'mlp.gate_proj',
    'ffn_up': 'mlp.up_proj',
    'ffn_down': 'mlp.down_proj',
}
_SAFETENSORS = {'float16': 'F16', 'float32': 'F32'}


class Sizes(NamedTuple):
    """What the shapes of all tensors follow from; letters as in :mod:`lcx.types`."""

    layers: int
    width: int
    hidden: int
    heads: int
    kv_heads: int
    head_dim: int
    vocab: int

    def shape(self, name: str) -> tuple[int, ...]:
        """The shape, (out, in), of a tensor under its Hugging Face name."""
        kind = name.split('.')[-2]
        if kind in ('embed_tokens', 'lm_head'):
            return self.vocab, self.width
        out = {
            'q_proj': self.heads * self.head_dim,
            'k_proj': self.kv_heads * self.head_dim,
            'v_proj': self.kv_heads * self.head_dim,
            'o_proj': self.width,
            'gate_proj': self.hidden,
            'up_proj': self.hidden,
            'down_proj': self.width,
        }.get(kind)
        if out is None:
            return (self.width,)  # norms
        into = {'o_proj': self.heads * self.head_dim, 'down_proj': self.hidden}.get(kind, self.width)
        return out, into


class Metadata:
    """The key-value pairs of a GGUF file; a missing key is a DataError that names it."""

    def __init__(self, reader: GGUFReader, label: str):
        self._fields, self.label = reader.fields, label

    def __contains__(self, key: str) -> bool:
        return key in self._fields

    def __getitem__(self, key: str) -> Any:
        if key not in self._fields:
            raise DataError(f'{self.label}: the key {key} is missing.')
        value = self._fields[key].contents()
        # A float32 of 1e-5 is 9.99999975e-06 as a Python float; its shortest decimal is what was meant.
        return float(str(np.float32(value))) if isinstance(value, float) else value

    def get(self, key: str, default: Any = None) -> Any:
        """The value, or ``default`` where there is no such key."""
        if key not in self:
            return default
        return self[key]

    def count(self, key: str, default: int | None = None) -> int:
        """A value that must be one positive whole number; required where there is no default."""
        value = self[key] if default is None else self.get(key, default)
        if type(value) is not int or value <= 0:
            raise DataError(f'{self.label}: {key} is {value!r}, not one positive whole number.')
        return value


def gguf_to_hf(file: Path, directory: Path) -> None:
    """Writes ``directory``: config.json, model.safetensors, tokenizer.json and tokenizer_config.json.

    Any quantisation that ``gguf.dequantize`` undoes is read. Parameters are float16 where the file holds its matrices
    in 16 bits or fewer: rounding to float16 changes a weight by at most 1/2048 of itself, a four-bit weight is off by
    about 1/16. They are float32 where a matrix is float32 or bfloat16, whose range float16 lacks. One tensor is in
    memory at a time, and the directory appears when it is complete; one that exists is left as it is.

    Raises:
      ConfigError: the package gguf is not installed.
      DataError: not a GGUF file, not a plain Llama model, or a key, tensor or shape that does not fit; the message
        names it.
      StorageError: the directory cannot be written.
    """
    reader = _open(file)
    metadata = Metadata(reader, file.name)
    sizes, config = _config(metadata)
    tensors = _tensors(reader, sizes, file.name)
    config['tie_word_embeddings'] = _HEAD not in tensors
    dtype = _dtype(tensors)
    config['dtype'] = config['torch_dtype'] = dtype

    def write(temporary: Path) -> None:
        write_tokenizer(metadata, temporary)
        (temporary / 'config.json').write_text(json.dumps(config, indent=2) + '\n')
        shapes = {name: sizes.shape(name) for name in tensors}
        arrays = (_array(name, tensor, sizes, dtype) for name, tensor in tensors.items())
        write_safetensors(temporary / 'model.safetensors', shapes, dtype, arrays)

    atomic.create(directory, write, hint='Choose another directory.')


def half_split(rows: np.ndarray, heads: int) -> np.ndarray:
    """Rows of ``heads`` heads, out of the order of interleaved rotary pairs into that of halves.

    >>> half_split(np.array([0, 2, 1, 3, 4, 6, 5, 7]), heads=2)
    array([0, 1, 2, 3, 4, 5, 6, 7])
    """
    pairs = rows.reshape(heads, -1, 2, *rows.shape[1:])
    return pairs.swapaxes(1, 2).reshape(rows.shape)


def write_safetensors(
    path: Path, shapes: Mapping[str, tuple[int, ...]], dtype: str, arrays: Iterator[np.ndarray]
) -> None:
    """A safetensors file of one dtype, written array by array in the order of ``shapes``.

    The format: the length of a JSON header (u64, little endian), the header, then the arrays without gaps.
    """
    size, at, header = np.dtype(dtype).itemsize, 0, {'__metadata__': {'format': 'pt'}}
    for name, shape in shapes.items():
        end = at + size * int(np.prod(shape))
        header[name] = {'dtype': _SAFETENSORS[dtype], 'shape': list(shape), 'data_offsets': [at, end]}
        at = end
    text = json.dumps(header).encode()
    text += b' ' * (-len(text) % 8)
    with open(path, 'wb') as file:
        file.write(len(text).to_bytes(8, 'little') + text)
        for array in arrays:
            file.write(np.ascontiguousarray(array, np.dtype(dtype).newbyteorder('<')).data)


def _open(file: Path) -> GGUFReader:
    try:
        from gguf import GGUFReader
    except ImportError:
        raise ConfigError("reading GGUF needs the package gguf: pip install 'lcx[gguf]'.") from None
    try:
        return GGUFReader(file)
    except OSError as error:
        raise DataError(f'{file} cannot be read: {error.strerror or error}.') from error
    except Exception as error:  # whatever numpy and the parser meet in a damaged file
        raise DataError(f'{file} is not a complete GGUF file: {type(error).__name__}: {error}') from error


def _config(metadata: Metadata) -> tuple[Sizes, dict[str, Any]]:
    """The sizes, and config.json without what only the tensors tell."""
    architecture = metadata['general.architecture']
    if architecture != 'llama':
        raise DataError(f'{metadata.label}: architecture {architecture!r}; only llama can be converted.')
    heads, width = metadata.count('llama.attention.head_count'), metadata.count('llama.embedding_length')
    head_dim = metadata.count('llama.attention.key_length', width // heads)
    for key, expected in (
        ('llama.rope.dimension_count', head_dim),
        ('llama.attention.value_length', head_dim),
        ('llama.expert_count', 0),
    ):
        if metadata.get(key, expected) != expected:
            raise DataError(f'{metadata.label}: {key} is {metadata[key]}; only {expected} can be converted.')
    sizes = Sizes(
        layers=metadata.count('llama.block_count'),
        width=width,
        hidden=metadata.count('llama.feed_forward_length'),
        heads=heads,
        kv_heads=metadata.count('llama.attention.head_count_kv', heads),
        head_dim=head_dim,
        vocab=len(metadata['tokenizer.ggml.tokens']),
    )
    config = {
        'architectures': ['LlamaForCausalLM'],
        'model_type': 'llama',
        'vocab_size': sizes.vocab,
        'hidden_size': sizes.width,
        'intermediate_size': sizes.hidden,
        'num_hidden_layers': sizes.layers,
        'num_attention_heads': sizes.heads,
        'num_key_value_heads': sizes.kv_heads,
        'head_dim': sizes.head_dim,
        'hidden_act': 'silu',
        'attention_bias': False,
        'mlp_bias': False,
        'max_position_embeddings': metadata.count('llama.context_length'),
        'rms_norm_eps': metadata['llama.attention.layer_norm_rms_epsilon'],
        'rope_parameters': _rope(metadata),
        'bos_token_id': metadata.get('tokenizer.ggml.bos_token_id'),
        'eos_token_id': metadata.get('tokenizer.ggml.eos_token_id'),
    }
    return sizes, config


def _rope(metadata: Metadata) -> dict[str, Any]:
    """``rope_parameters``; llama.cpp's base without a key is 10000."""
    kind = metadata.get('llama.rope.scaling.type', 'none')
    theta = metadata.get('llama.rope.freq_base', 10000.0)
    if kind == 'none':
        return {'rope_type': 'default', 'rope_theta': theta}
    if kind == 'linear':
        return {
            'rope_type': 'linear',
            'rope_theta': theta,
            'factor': metadata['llama.rope.scaling.factor'],
        }
    raise DataError(
        f'{metadata.label}: llama.rope.scaling.type is {kind!r}; only none and linear can be converted.'
    )


def _tensors(reader: GGUFReader, sizes: Sizes, label: str) -> dict[str, ReaderTensor]:
    """Hugging Face name and tensor, in the file's order: the model's, all of them, or a DataError."""
    inner = [f'blk.{i}.{part}.weight' for i in range(sizes.layers) for part in _INNER]
    found = {tensor.name: tensor for tensor in reader.tensors}
    for name in [*_OUTER, *inner]:
        if name not in found and name != 'output.weight':
            raise DataError(f'{label}: the tensor {name} is missing.')
    for name in found:
        if name not in _OUTER and name not in inner:
            why = ': frequencies scaled as in Llama 3.1' if name == 'rope_freqs.weight' else ''
            raise DataError(
                f'{label}: the tensor {name} is of no plain Llama model{why}; nothing was written.'
            )
    tensors = {_hf_name(name): tensor for name, tensor in found.items()}
    for name, tensor in tensors.items():
        shape = tuple(int(n) for n in reversed(tensor.shape))
        if shape != sizes.shape(name):
            raise DataError(f'{label}: {tensor.name} has the shape {shape} instead of {sizes.shape(name)}.')
    return tensors


def _hf_name(name: str) -> str:
    if name in _OUTER:
        return _OUTER[name]
    _, layer, part, _ = name.split('.')
    return f'model.layers.{layer}.{_INNER[part]}.weight'


def _dtype(tensors: Mapping[str, ReaderTensor]) -> str:
    matrices = {tensor.tensor_type.name for tensor in tensors.values() if len(tensor.shape) > 1}
    return 'float32' if matrices & {'F32', 'BF16'} else 'float16'


def _array(name: str, tensor: ReaderTensor, sizes: Sizes, dtype: str) -> np.ndarray:
    """One tensor's numbers, in half-split order and in ``dtype``."""
    from gguf import dequantize

    try:
        array = dequantize(tensor.data, tensor.tensor_type).reshape(sizes.shape(name))
    except NotImplementedError as error:
        raise DataError(f'{tensor.name}: {error}.') from None
    heads = {'q_proj': sizes.heads, 'k_proj': sizes.kv_heads}.get(name.split('.')[-2])
    if heads is not None:
        array = half_split(array, heads)
    with np.errstate(over='ignore'):
        array = array.astype(dtype)
    if not np.isfinite(array).all():
        raise DataError(f'{tensor.name} holds numbers that are not finite, or too large for {dtype}.')
    return array
