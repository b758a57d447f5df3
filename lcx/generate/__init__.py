"""Text from a model, token by token.

sampling   from the logits of the next token to the token
"""

from lcx.generate.sampling import Sampling, at_step, row_keys

__all__ = ['Sampling', 'at_step', 'row_keys']
