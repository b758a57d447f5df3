"""The architectures that can be read and written, by the name in ``architectures`` of a config.json.

A model that came from none is written as the first here that has a place for all it computes.
"""

from lcx.convert.gemma import GEMMA2, GEMMA3
from lcx.convert.gpt2 import GPT2
from lcx.convert.gpt_neox import GPT_NEOX
from lcx.convert.llama import LLAMA, MISTRAL
from lcx.convert.phi3 import PHI3
from lcx.convert.qwen import QWEN2, QWEN3

FAMILIES = {
    'LlamaForCausalLM': LLAMA,
    'MistralForCausalLM': MISTRAL,
    'Qwen2ForCausalLM': QWEN2,
    'Qwen3ForCausalLM': QWEN3,
    'Gemma2ForCausalLM': GEMMA2,
    'Gemma3ForCausalLM': GEMMA3,
    'Phi3ForCausalLM': PHI3,
    'GPTNeoXForCausalLM': GPT_NEOX,
    'GPT2LMHeadModel': GPT2,
}
