"""Writes goldens.npz: relative attention as XLNet has it from Transformer-XL, computed by Hugging Face transformers.

    pip install transformers==5.23.0 torch==2.13.0
    python third_party/transformer_xl/make_goldens.py

Calls transformers (Apache-2.0) on a CPU; nothing of it is copied.
"""

import pathlib

import numpy as np
import torch
import transformers
from transformers.models.xlnet.modeling_xlnet import XLNetModel, XLNetRelativeAttention

MEMORY, TOKENS, HEADS, HEAD_DIM, WIDTH = 4, 7, 3, 4, 12


def main():
    random = np.random.default_rng(0)
    keys = MEMORY + TOKENS

    def draw(*shape: int) -> np.ndarray:
        return random.normal(size=shape).astype(np.float32)

    given = {
        'q': draw(TOKENS, HEADS, HEAD_DIM),
        'k': draw(keys, HEADS, HEAD_DIM),
        'v': draw(keys, HEADS, HEAD_DIM),
        'r': draw(WIDTH, HEADS, HEAD_DIM),
        'r_w_bias': draw(HEADS, HEAD_DIM),
        'r_r_bias': draw(HEADS, HEAD_DIM),
        'weights': draw(TOKENS, HEADS, HEAD_DIM),
    }
    found = {}
    for kind in ('bi', 'uni'):
        config = transformers.XLNetConfig(
            vocab_size=2, d_model=WIDTH, n_head=HEADS, n_layer=1, d_inner=4, attn_type=kind, dropout=0.0
        )
        layer = XLNetRelativeAttention(config).eval()
        with torch.no_grad():
            for name in ('r', 'r_w_bias', 'r_r_bias'):
                getattr(layer, name).copy_(torch.from_numpy(given[name]))
        q, k, v = (torch.from_numpy(given[name])[:, None].requires_grad_() for name in 'qkv')
        sinusoids = XLNetModel(config).relative_positional_encoding(TOKENS, keys, bsz=1)
        ahead = torch.arange(keys)[None] > MEMORY + torch.arange(TOKENS)[:, None]
        mask = ahead.float()[:, :, None, None] if kind == 'uni' else None
        distances = torch.einsum('ibh,hnd->ibnd', sinusoids, layer.r)
        out = layer.rel_attn_core(q, k, v, distances, attn_mask=mask)
        torch.sum(out[:, 0] * torch.from_numpy(given['weights'])).backward()
        found[f'{kind}/out'] = out[:, 0].detach().numpy()
        found[f'{kind}/sinusoids'] = sinusoids[:, 0].numpy()
        for name in ('r', 'r_w_bias', 'r_r_bias'):
            found[f'{kind}/d_{name}'] = getattr(layer, name).grad.numpy()
        for name, x in zip('qkv', (q, k, v)):
            found[f'{kind}/d_{name}'] = x.grad[:, 0].numpy()
    versions = np.array([f'transformers {transformers.__version__}', f'torch {torch.__version__}'])
    path = pathlib.Path(__file__).with_name('goldens.npz')
    np.savez_compressed(path, versions=versions, **given, **found)


if __name__ == '__main__':
    main()
