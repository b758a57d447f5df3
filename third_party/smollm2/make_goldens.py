"""Writes goldens.npz: how Hugging Face transformers scores 1,024 tokens of a novel with SmolLM2-135M-Instruct.

    lcx data --source=austen
    python -c "from lcx.convert import smollm2; print(smollm2.fetch())"       # the directory MODEL
    pip install transformers==5.23.0 torch==2.13.0
    python third_party/smollm2/make_goldens.py MODEL ".../Pride and Prejudice.txt"

Calls transformers (Apache-2.0) in float32 on a CPU; nothing of it is copied, and no parameter of the model is in the
file.
"""

import pathlib
import sys

import numpy as np
import torch
import transformers

LENGTH = 1024

directory, novel = sys.argv[1:]
tokenizer = transformers.AutoTokenizer.from_pretrained(directory)
text = pathlib.Path(novel).read_text(encoding='utf-8')
tokens = torch.tensor([tokenizer(text[:6000], add_special_tokens=False)['input_ids'][: LENGTH + 1]])
model = transformers.AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32)
with torch.no_grad():
    logits = model(tokens[:, :-1]).logits[0]
losses = torch.nn.functional.cross_entropy(logits, tokens[0, 1:], reduction='none')
print('perplexity', torch.exp(losses.mean()).item())
np.savez(
    pathlib.Path(__file__).with_name('goldens.npz'),
    tokens=tokens[0].numpy().astype(np.int32),
    losses=losses.numpy(),
    best=logits.argmax(-1).numpy().astype(np.int32),
    last_logits=logits[-1, :512].numpy(),
)
