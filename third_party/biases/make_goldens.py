"""Writes goldens.json: slopes of ALiBi and biases of T5, computed by Hugging Face transformers.

    pip install transformers==5.23.0 torch==2.13.0
    python third_party/biases/make_goldens.py

Calls transformers (Apache-2.0) on a CPU; nothing of it is copied. Every number is an fp32 value written with
nine digits, which give it back exactly.
"""

import json
import pathlib

import numpy as np
import torch
import transformers
from transformers.models.bloom.modeling_bloom import build_alibi_tensor
from transformers.models.t5.modeling_t5 import T5Attention

HEADS = [1, 2, 3, 4, 6, 8, 12, 20, 25, 32, 71]
BUCKETS = [
    (32, 128),
    (32, 256),
    (16, 64),
    (2, 3),
    (64, 4096),
    (32, 1000),
    (12, 77),
]  # num_buckets, max_distance
TOKENS = 24


def numbers(tensor: torch.Tensor) -> list[float]:
    return [float(f'{value:.9g}') for value in tensor.double().flatten().tolist()]


def alibi(heads: int) -> dict:
    """The bias of key position 1: slopes, since Bloom leaves out what is the same for all keys of a query."""
    tensor = build_alibi_tensor(torch.ones(1, 2, dtype=torch.int64), heads, torch.float32)
    return {'heads': heads, 'slopes': numbers(tensor[:, 0, 1])}


def buckets(num_buckets: int, max_distance: int) -> dict:
    """The bucket of every distance from -2 (keys ahead of the query) to beyond ``max_distance``."""
    distances = torch.arange(-2, max_distance + 50)
    found = T5Attention._relative_position_bucket(
        -distances, bidirectional=False, num_buckets=num_buckets, max_distance=max_distance
    )
    return {'num_buckets': num_buckets, 'max_distance': max_distance, 'buckets': found.tolist()}


def bias(is_decoder: bool) -> dict:
    """The bias of a decoder's or an encoder's layer with a random table 'num_buckets N', 'N T S'."""
    config = transformers.T5Config(
        num_heads=3,
        is_decoder=is_decoder,
        relative_attention_num_buckets=8,
        relative_attention_max_distance=20,
    )
    layer = T5Attention(config, has_relative_attention_bias=True, layer_idx=0)
    table = torch.from_numpy(np.random.default_rng(0).normal(size=(8, 3))).float()
    with torch.no_grad():
        layer.relative_attention_bias.weight.copy_(table)
        found = layer.compute_bias(TOKENS, TOKENS)[0]
    return {
        'num_buckets': 8,
        'max_distance': 20,
        'heads': 3,
        'tokens': TOKENS,
        'table': numbers(table),
        'bias': numbers(found),
    }


def main():
    goldens = {
        'versions': {'transformers': transformers.__version__, 'torch': torch.__version__},
        'alibi': [alibi(heads) for heads in HEADS],
        't5_buckets': [buckets(*sizes) for sizes in BUCKETS],
        't5_bias': bias(is_decoder=True),
        't5_bias_encoder': bias(is_decoder=False),
    }
    rows = json.dumps(goldens).replace('}, {', '},\n{').replace('], "t5', '],\n"t5')
    pathlib.Path(__file__).with_name('goldens.json').write_text(rows + '\n')


if __name__ == '__main__':
    main()
