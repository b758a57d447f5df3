"""Text from a model, token by token.

config     the fields of config.generate
loop       prompts read chunk by chunk into a cache, and what is written after them
policies   how caches keep keys and values, by name: ring in full precision, evicting by a budget (whose rules are in
           eviction), quantised in few bits
probe      what heads attend to
reading    texts scored through a cache
sampling   from the logits of the next token to the token
"""

from lcx.generate.config import GenerateConfig
from lcx.generate.loop import generate
from lcx.generate.sampling import Sampling, at_step, row_keys

__all__ = ['GenerateConfig', 'Sampling', 'at_step', 'generate', 'row_keys']
