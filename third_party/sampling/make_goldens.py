"""Writes goldens.npz: logits as the processors of Hugging Face transformers leave them before a token is drawn.

    pip install transformers==5.23.0 torch==2.13.0
    python third_party/sampling/make_goldens.py

Calls transformers (Apache-2.0) on a CPU; nothing of it is copied. The processors are those that ``generate`` itself
makes of a GenerationConfig, in its order.
"""

import pathlib

import numpy as np
import torch
import transformers

ROWS, VOCAB, TOKENS = 6, 61, 20
# Fields of a GenerationConfig; in the file under their text. Everything else is off.
SETTINGS = (
    {'repetition_penalty': 1.3},
    {'repetition_penalty': 0.7},
    {'temperature': 0.6},
    {'temperature': 2.5},
    {'top_k': 1},
    {'top_k': 7},
    {'top_k': 1000},
    {'top_p': 0.05},
    {'top_p': 0.9},
    {'top_p': 0.999},
    {'min_p': 0.0},
    {'min_p': 0.1},
    {'min_p': 1.0},
    {'temperature': 1.7, 'top_k': 12, 'top_p': 0.8, 'min_p': 0.2, 'repetition_penalty': 1.5},
    {'temperature': 0.4, 'top_p': 0.95, 'repetition_penalty': 1.1},
    {'temperature': 2.0, 'top_k': 5, 'top_p': 0.7},
    {'temperature': 1.3, 'top_k': 9, 'min_p': 0.3},
)
OFF = {'temperature': 1.0, 'top_k': 0, 'top_p': 1.0, 'min_p': None, 'repetition_penalty': 1.0}


def model() -> transformers.PreTrainedModel:
    """Any decoder: only its method that makes processors is used."""
    return transformers.LlamaForCausalLM(
        transformers.LlamaConfig(
            vocab_size=VOCAB,
            hidden_size=8,
            intermediate_size=8,
            num_hidden_layers=1,
            num_attention_heads=1,
        )
    )


def main():
    rng = np.random.default_rng(0)
    logits = (rng.normal(size=(ROWS, VOCAB)) * np.array([0.3, 1, 2, 3, 5, 8])[:, None]).astype(np.float32)
    logits[:, -1] = 0.0  # of which no penalty makes another
    tokens = rng.integers(0, VOCAB, size=(ROWS, TOKENS))
    goldens = {'logits': logits, 'tokens': tokens.astype(np.int32)}
    decoder = model()
    for settings in SETTINGS:
        config = transformers.GenerationConfig(do_sample=True, **OFF | settings)
        processors = decoder._get_logits_processor(config, input_ids_seq_length=TOKENS)
        found = processors(torch.from_numpy(tokens), torch.from_numpy(logits.copy()))
        goldens[repr(settings)] = found.numpy()
        print(settings, [type(processor).__name__ for processor in processors])
    np.savez_compressed(pathlib.Path(__file__).with_name('goldens.npz'), **goldens)


if __name__ == '__main__':
    main()
