"""Fewer numbers to train or keep, put on a model from outside: no module of lcx.models knows of it.

adapters = lora.init(config, model, params, key)  # a tree of their own
loss = lora.adapted(config, loss)                 # of leaves.join(params, adapters)
params = lora.merge(params, adapters, config)     # a plain model again
"""

from lcx.compress import leaves, lora
from lcx.compress.lora import LoraConfig

__all__ = ['LoraConfig', 'leaves', 'lora']
