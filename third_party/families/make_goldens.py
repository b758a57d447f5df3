"""Writes goldens.npz: tiny random models of every family that lcx.convert knows, computed by Hugging Face transformers.

    pip install transformers==5.23.0 torch==2.13.0
    python third_party/families/make_goldens.py

Calls transformers (Apache-2.0) on a CPU; nothing of it is copied. The weights are random numbers.
"""

import pathlib
import tempfile

import numpy as np
import torch
import transformers
from safetensors.numpy import load_file

TOKENS = 24
COMMON = dict(vocab_size=64, max_position_embeddings=64, bos_token_id=1, eos_token_id=2, pad_token_id=0)
SIZES = dict(
    COMMON,
    hidden_size=32,
    intermediate_size=40,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=2,
    head_dim=8,
)
NO_HEAD_DIM = {name: size for name, size in SIZES.items() if name != 'head_dim'}
DEFAULT = {'rope_type': 'default', 'rope_theta': 1000.0}
LLAMA3 = {
    'rope_type': 'llama3',
    'rope_theta': 1000.0,
    'factor': 4.0,
    'low_freq_factor': 1.0,
    'high_freq_factor': 4.0,
    'original_max_position_embeddings': 16,
}
YARN = {
    'rope_type': 'yarn',
    'rope_theta': 1000.0,
    'factor': 4.0,
    'original_max_position_embeddings': 16,
    'beta_fast': 4.0,
    'beta_slow': 0.5,
}
LINEAR = {'rope_type': 'linear', 'rope_theta': 1000.0, 'factor': 8.0}
LOCAL = {'rope_type': 'default', 'rope_theta': 100.0}


def longrope(original: int) -> dict:
    """Within ``original`` tokens the short list counts, beyond it the long one."""
    return {
        'rope_type': 'longrope',
        'rope_theta': 1000.0,
        'short_factor': [1.0, 1.25, 1.5],
        'long_factor': [1.0, 2.0, 3.5],
        'original_max_position_embeddings': original,
        'partial_rotary_factor': 0.75,
    }


def neox(**changes) -> transformers.GPTNeoXConfig:
    sizes = {k: v for k, v in NO_HEAD_DIM.items() if k != 'num_key_value_heads'}
    rope = {**DEFAULT, 'partial_rotary_factor': 0.25}
    return transformers.GPTNeoXConfig(**{**sizes, 'rope_parameters': rope, **changes})


# The model of every family, with settings that change the numbers: windows shorter than the text, soft-caps that bend.
CONFIGS = {
    'llama': transformers.LlamaConfig(
        **{**SIZES, 'num_hidden_layers': 3}, rope_parameters=LLAMA3, rms_norm_eps=1e-5, initializer_range=0.03
    ),
    'llama_bias': transformers.LlamaConfig(
        **SIZES, rope_parameters=DEFAULT, attention_bias=True, mlp_bias=True, tie_word_embeddings=True
    ),
    'mistral': transformers.MistralConfig(**SIZES, rope_parameters=DEFAULT, sliding_window=7),
    'qwen2': transformers.Qwen2Config(**NO_HEAD_DIM, rope_parameters=YARN),
    'qwen2_windows': transformers.Qwen2Config(
        **{**NO_HEAD_DIM, 'num_hidden_layers': 3},
        rope_parameters=DEFAULT,
        use_sliding_window=True,
        sliding_window=5,
        max_window_layers=1,
        tie_word_embeddings=True,
    ),
    'qwen3': transformers.Qwen3Config(**{**SIZES, 'head_dim': 16}, rope_parameters=DEFAULT),
    'gemma2': transformers.Gemma2Config(
        **SIZES,
        rope_parameters=DEFAULT,
        sliding_window=6,
        query_pre_attn_scalar=12,
        attn_logit_softcapping=1.5,
        final_logit_softcapping=2.0,
    ),
    'gemma3': transformers.Gemma3TextConfig(
        **{**SIZES, 'num_hidden_layers': 7, 'num_key_value_heads': 1},
        rope_parameters={'sliding_attention': LOCAL, 'full_attention': LINEAR},
        sliding_window=5,
        query_pre_attn_scalar=16,
    ),
    'phi3_short': transformers.Phi3Config(
        **{**NO_HEAD_DIM, 'max_position_embeddings': 128},
        rope_parameters=longrope(32),
        original_max_position_embeddings=32,
    ),
    'phi3_long': transformers.Phi3Config(
        **{**NO_HEAD_DIM, 'max_position_embeddings': 128},
        rope_parameters=longrope(16),
        original_max_position_embeddings=16,
        sliding_window=9,
    ),
    'gpt_neox': neox(),
    'gpt_neox_sequential': neox(
        use_parallel_residual=False, attention_bias=False, hidden_act='gelu_new', tie_word_embeddings=True
    ),
    'gpt2': transformers.GPT2Config(
        vocab_size=64, n_positions=32, n_embd=32, n_layer=2, n_head=4, bos_token_id=1, eos_token_id=2
    ),
}
CLASSES = {
    'llama': transformers.LlamaForCausalLM,
    'mistral': transformers.MistralForCausalLM,
    'qwen2': transformers.Qwen2ForCausalLM,
    'qwen3': transformers.Qwen3ForCausalLM,
    'gemma2': transformers.Gemma2ForCausalLM,
    'gemma3_text': transformers.Gemma3ForCausalLM,
    'phi3': transformers.Phi3ForCausalLM,
    'gpt_neox': transformers.GPTNeoXForCausalLM,
    'gpt2': transformers.GPT2LMHeadModel,
}
GRADIENTS = ('llama', 'gemma3', 'gpt_neox')  # of the mean nll, with every feature between them


def model(config: transformers.PreTrainedConfig, seed: int) -> transformers.PreTrainedModel:
    """Random weights, large enough that every part of the model matters; norms and biases are not trivial."""
    config._attn_implementation = 'eager'
    made = CLASSES[config.model_type](config)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, weight in made.named_parameters():
            noise = torch.randn(weight.shape, generator=generator)
            around_one = ('norm' in name or 'ln_' in name) and 'gemma' not in config.model_type
            if weight.ndim == 1:
                random = 0.2 * noise + (around_one and name.endswith('weight'))
            else:
                random = noise * config.hidden_size**-0.5
            weight.copy_(random.bfloat16())  # half of the bits are 0: the file is smaller
    return made.float().eval()


def golden(name: str, seed: int) -> dict[str, np.ndarray]:
    """The directory that transformers writes, logits of two rows of tokens and, for some, gradients of the mean nll."""
    made = model(CONFIGS[name], seed)
    generator = torch.Generator().manual_seed(seed + 100)
    tokens = torch.randint(COMMON['vocab_size'], (2, TOKENS), generator=generator)
    logits = made(tokens, use_cache=False).logits
    found = {'tokens': tokens.int().numpy(), 'logits': logits.detach().numpy(), **written(made, 'weights')}
    if name in GRADIENTS:
        torch.nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1), tokens[:, 1:].flatten()).backward()
        with torch.no_grad():
            for weight in made.parameters():
                weight.copy_(weight.grad)  # so that gradients are written under the names of the file, too
        found |= {key: x for key, x in written(made, 'gradients').items() if key != 'config'}
    return found


def written(made: transformers.PreTrainedModel, prefix: str) -> dict[str, np.ndarray]:
    """config.json (its bytes) and the tensors of the directory that transformers writes."""
    with tempfile.TemporaryDirectory() as directory:
        made.save_pretrained(directory)
        config = (pathlib.Path(directory) / 'config.json').read_bytes()
        tensors = load_file(pathlib.Path(directory) / 'model.safetensors')
    return {
        'config': np.frombuffer(config, np.uint8),
        **{f'{prefix}/{name}': x for name, x in tensors.items()},
    }


def main() -> None:
    versions = [f'transformers {transformers.__version__}', f'torch {torch.__version__}']
    goldens = {'versions': np.array(versions)}
    for seed, name in enumerate(CONFIGS):
        goldens |= {f'{name}/{key}': x for key, x in golden(name, seed).items()}
    np.savez_compressed(pathlib.Path(__file__).with_name('goldens.npz'), **goldens)


if __name__ == '__main__':
    main()
