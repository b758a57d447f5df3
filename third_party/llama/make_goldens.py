"""Writes goldens.npz: two tiny Llama models, their logits and gradients, computed by Hugging Face transformers.

    pip install transformers==5.23.0 torch==2.13.0
    python third_party/llama/make_goldens.py

Calls transformers (Apache-2.0) on a CPU; nothing of it is copied. The weights are random numbers.
"""

import pathlib

import numpy as np
import torch
import transformers

SHAPE = dict(
    vocab_size=64,
    hidden_size=32,
    intermediate_size=40,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=2,
    head_dim=8,
    max_position_embeddings=64,
    rms_norm_eps=1e-5,
    rope_parameters={'rope_type': 'default', 'rope_theta': 1000.0},
)
TOKENS = 24


def model(seed: int, tied: bool) -> transformers.LlamaForCausalLM:
    """Random weights, large enough that every part of the model matters; norms are not all 1."""
    made = transformers.LlamaForCausalLM(
        transformers.LlamaConfig(**SHAPE, tie_word_embeddings=tied, attn_implementation='eager')
    )
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, weight in made.named_parameters():
            noise = torch.randn(weight.shape, generator=generator)
            random = 1 + 0.2 * noise if 'norm' in name else noise * weight.shape[-1] ** -0.5
            weight.copy_(random.bfloat16())  # half of the bits are 0: the file is smaller
    return made.float().eval()


def golden(seed: int, tied: bool) -> dict[str, np.ndarray]:
    """Weights, logits of two rows of tokens, and the gradient of the mean nll of every token after the first."""
    made = model(seed, tied)
    generator = torch.Generator().manual_seed(seed + 100)
    tokens = torch.randint(SHAPE['vocab_size'], (2, TOKENS), generator=generator)
    logits = made(tokens).logits
    loss = torch.nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1), tokens[:, 1:].flatten())
    loss.backward()
    found = {'tokens': tokens.int().numpy(), 'logits': logits.detach().numpy(), 'loss': loss.detach().numpy()}
    for name, weight in made.named_parameters():
        found[f'weights/{name}'] = weight.detach().numpy()
        found[f'gradients/{name}'] = weight.grad.numpy()
    return found


def main() -> None:
    goldens = {
        'versions': np.array([f'transformers {transformers.__version__}', f'torch {torch.__version__}'])
    }
    for kind, seed in (('tied', 0), ('untied', 1)):
        goldens |= {f'{kind}/{name}': x for name, x in golden(seed, tied=kind == 'tied').items()}
    np.savez_compressed(pathlib.Path(__file__).with_name('goldens.npz'), **goldens)


if __name__ == '__main__':
    main()
