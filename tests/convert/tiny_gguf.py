"""A tiny Llama as a GGUF file, and what it should become."""

import numpy as np
import pytest

gguf = pytest.importorskip('gguf')

LAYERS, WIDTH, HIDDEN, HEADS, KV_HEADS, HEAD_DIM = 2, 32, 64, 4, 2, 8
SPECIALS = ['<|endoftext|>', '<|im_start|>', '<|im_end|>']
MERGES = ['h e', 'l l', 'he ll', 'hell o', 'Ġ t', '1 2', 'Ġt hello']


def letters():
    """The strings of all 256 bytes."""
    unprintable = [*range(33), *range(127, 161), 173]
    return [chr(256 + unprintable.index(b)) if b in unprintable else chr(b) for b in range(256)]


TOKENS = [*SPECIALS, '<extra>', *letters(), *(m.replace(' ', '') for m in MERGES)]
KEYS = {
    'llama.block_count': LAYERS,
    'llama.context_length': 128,
    'llama.embedding_length': WIDTH,
    'llama.feed_forward_length': HIDDEN,
    'llama.attention.head_count': HEADS,
    'llama.attention.head_count_kv': KV_HEADS,
    'llama.attention.layer_norm_rms_epsilon': 1e-5,
    'llama.rope.freq_base': 100000.0,
    'llama.rope.dimension_count': HEAD_DIM,
    'tokenizer.ggml.model': 'gpt2',
    'tokenizer.ggml.pre': 'smollm',
    'tokenizer.ggml.tokens': TOKENS,
    'tokenizer.ggml.token_type': [3, 3, 3, 4] + [1] * (len(TOKENS) - 4),
    'tokenizer.ggml.merges': MERGES,
    'tokenizer.ggml.bos_token_id': 1,
    'tokenizer.ggml.eos_token_id': 2,
}


def parameters():
    """The model under its Hugging Face names, rows of q and k in half-split order."""
    random = np.random.default_rng(0)
    shapes = {'model.embed_tokens.weight': (len(TOKENS), WIDTH), 'model.norm.weight': (WIDTH,)}
    for i in range(LAYERS):
        layer = f'model.layers.{i}'
        shapes |= {
            f'{layer}.input_layernorm.weight': (WIDTH,),
            f'{layer}.post_attention_layernorm.weight': (WIDTH,),
            f'{layer}.self_attn.q_proj.weight': (HEADS * HEAD_DIM, WIDTH),
            f'{layer}.self_attn.k_proj.weight': (KV_HEADS * HEAD_DIM, WIDTH),
            f'{layer}.self_attn.v_proj.weight': (KV_HEADS * HEAD_DIM, WIDTH),
            f'{layer}.self_attn.o_proj.weight': (WIDTH, HEADS * HEAD_DIM),
            f'{layer}.mlp.gate_proj.weight': (HIDDEN, WIDTH),
            f'{layer}.mlp.up_proj.weight': (HIDDEN, WIDTH),
            f'{layer}.mlp.down_proj.weight': (WIDTH, HIDDEN),
        }
    return {name: random.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}


def interleaved(rows, heads):
    """Row j * H/2 + i of a head (half j, pair i) is stored as its row 2 i + j."""
    stored = np.empty_like(rows)
    size = len(rows) // heads
    for head in range(heads):
        for j in range(2):
            for i in range(size // 2):
                stored[head * size + 2 * i + j] = rows[head * size + j * size // 2 + i]
    return stored


NAMES = {
    'embed_tokens': 'token_embd', 'norm': 'output_norm', 'input_layernorm': 'attn_norm',
    'post_attention_layernorm': 'ffn_norm', 'q_proj': 'attn_q', 'k_proj': 'attn_k', 'v_proj': 'attn_v',
    'o_proj': 'attn_output', 'gate_proj': 'ffn_gate', 'up_proj': 'ffn_up', 'down_proj': 'ffn_down',
}  # fmt: skip


def write(path, kind='F16', keys=(), tensors=(), architecture='llama'):
    """Writes the model with matrices of ``kind``; ``keys`` and ``tensors`` change or add entries, None drops one."""
    writer = gguf.GGUFWriter(path, architecture)
    for key, value in {**KEYS, **dict(keys)}.items():
        if value is None:
            continue
        add = {
            int: writer.add_uint32,
            float: writer.add_float32,
            str: writer.add_string,
            list: writer.add_array,
        }
        add[type(value)](key, value)
    stored = {}
    for name, array in parameters().items():
        part = NAMES[name.split('.')[-2]]
        heads = {'attn_q': HEADS, 'attn_k': KV_HEADS}.get(part)
        array = array if heads is None else interleaved(array, heads)
        prefix = f'blk.{name.split(".")[2]}.' if '.layers.' in name else ''
        stored[f'{prefix}{part}.weight'] = array
    for name, array in {**stored, **dict(tensors)}.items():
        if array is None:
            continue
        quantised = gguf.GGMLQuantizationType[kind if array.ndim > 1 else 'F32']
        writer.add_tensor(name, gguf.quants.quantize(array, quantised), raw_dtype=quantised)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path
