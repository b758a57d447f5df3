"""SmolLM2-135M on whole novels, at and beyond the 8192 tokens it was trained with: experiments/005_smollm2_extension.

    lcx convert --src=smollm2 --dst=models/smollm2
    lcx eval --config=configs/smollm2.py --init=models/smollm2 --workdir=runs/plain
    lcx eval --config=configs/smollm2.py --init=models/smollm2 --workdir=runs/ntk --config.model.position.name=ntk

Scores windows of *Persuasion* and *Pride and Prejudice* that end at the same tokens at every length.
"""

from configs import base


def get_config(arg: str = ''):
    """``arg``: '' or 'smoke'."""
    config = base.get_config()
    config.eval.run = ('window_perplexity',)
    config.loss.chunk = 256  # a vocabulary of 49,152: fewer logits at a time are less memory, and no slower
    if base.check(arg) == 'smoke':
        return base.smoke(config)
    config.data.source = 'austen'
    config.eval.split = 'test'
    config.eval.update(lengths=(2048, 4096, 8192, 16384), windows=2, last=1024, tokens=8192)
    return config
