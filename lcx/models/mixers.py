"""What mixes the tokens of a layer, by name.

A mixer is a Linen module ``(config, kind)`` called with ``(x, where, position, position_params, tables, memory)``: the
tokens 'B T D', what they know of each other, the position method of the layer's kind with its parameters and tables,
which a mixer with an order of its own leaves alone, and what it remembers of the tokens before these (a
:class:`~lcx.models.cache.Memory`, or None). It returns the mixed tokens and the cache after them, or None. An entry of
the registry takes the mixer's options, and checks those of the layer kind that it has to get along with.
"""

from __future__ import annotations

from collections.abc import Callable

from lcx.models.attention import Attention
from lcx.models.cope import cope


def attention() -> Callable:
    """Softmax attention; see :class:`lcx.models.attention.Attention`."""
    return Attention


MIXERS = {'attention': attention, 'cope': cope}
