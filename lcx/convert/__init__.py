"""Models of other systems, in and out. What matters most is a directory as Hugging Face transformers has it:

    config, params = convert.load('SmolLM2-135M')
    logits(config, params, tokens)
    convert.save(config.trained_at(32768), params, 'SmolLM2-135M-32k', origin='SmolLM2-135M')

reader, writer  its tensors (safetensors, never a pickle) and parameters; files and tensors say how they are found
config          its config.json and ModelConfig
llama, ...      a family of architectures each: a table of its tensors, and what its fields mean, in both directions
families        those by the name in ``architectures``
gguf            a GGUF file of the Llama architecture to a Hugging Face directory
gguf_tokenizer  its tokenizer
smollm2         a real pretrained model from a package: fetch
"""

from lcx.convert.config import from_hf, read_config, to_hf
from lcx.convert.families import FAMILIES
from lcx.convert.files import TOKENIZER_FILES, check_weights, copy_tokenizer_files
from lcx.convert.reader import load
from lcx.convert.writer import check_target, save

__all__ = [
    'FAMILIES', 'TOKENIZER_FILES', 'check_target', 'check_weights', 'copy_tokenizer_files', 'from_hf', 'load',
    'read_config', 'save', 'to_hf',
]  # fmt: skip
