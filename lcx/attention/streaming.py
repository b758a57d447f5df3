"""StreamingLLM: a window and the first tokens are read, at the places that they have in a cache.

Xiao et al. 2023, "Efficient Streaming Language Models with Attention Sinks", arXiv:2309.17453. A cache of the first n
tokens (attention sinks) and the w newest ones, the query among them; positions are counted inside the cache, so query
i reads key j

    at distance i - j                     if i - j < w
    at distance min(i, n + w - 1) - j     otherwise, if j < n
    not at all                            otherwise

and no distance reaches n + w. A model trained at length L knows all if n + w <= L. ``streaming(window=3, sinks=2)``:

    0 . . . . . . .
    1 0 . . . . . .
    2 1 0 . . . . .
    3 2 1 0 . . . .
    4 3 2 1 0 . . .
    4 3 . 2 1 0 . .
    4 3 . . 2 1 0 .
    4 3 . . . 2 1 0

Needs no training. Costs O(T (w + n)) scores where plain attention costs O(T^2), and a second rotation of q; keys turn
once. LM-Infinite reads the same keys, the sinks all at distance w. A window as long as the text is plain attention.
"""

from __future__ import annotations

import jax.numpy as jnp

from lcx.about import About
from lcx.attention.lm_infinite import near_and_first
from lcx.attention.regions import Region, as_they_are

ABOUT = About(
    paper='arXiv:2309.17453, Xiao et al. 2023',
    what='a window and the first tokens, at their places in a cache',
    trained='none',
    cost='O(T window) scores in place of O(T S); a second rotation of q',
)


def streaming(*, window: int, sinks: int) -> tuple[Region, ...]:
    """Regions near and far; ``window`` newest tokens and ``sinks`` first ones are read.

    Raises:
      ConfigError: ``window`` or ``sinks`` is below 1.
    """
    last = sinks + window - 1
    return near_and_first(window, sinks, lambda positions: jnp.minimum(positions, last), as_they_are)
