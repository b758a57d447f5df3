"""Dual Chunk Attention: positions within chunks, and a neighbourhood that reaches over their edges.

An et al. 2024, "Training-Free Long-Context Scaling of Large Language Models", arXiv:2402.17463. Tokens are cut into
chunks of s; keys have their position within the chunk, and with a local window w queries have, towards

    their own chunk         i mod s                                  (intra)
    the chunk before        min(s + i mod s, c - 1)    c = s + w     (successive)
    all chunks before it    c - 1                                    (inter)

so no distance reaches c, and those below w are exact. A model trained at length L knows all if c <= L; the paper
takes s = 3/4 L. ``dual_chunk(chunk=3, local=2)``:

    0 . . . . . . .
    1 0 . . . . . .
    2 1 0 . . . . .
    3 2 1 0 . . . .
    4 3 2 1 0 . . .
    4 3 2 2 1 0 . .
    4 3 2 3 2 1 0 .
    4 3 2 4 3 2 1 0

Needs no training. Costs two further rotations of q; keys turn the same way in all regions. A chunk as long as the
text is plain attention. The authors' code has s + w, not s + w - 1, for the last position; this is the paper's.
"""

from __future__ import annotations

import jax.numpy as jnp

from lcx.about import About
from lcx.attention.masks import at_least_one, both, causal
from lcx.attention.patterns import chunk_distance, chunked
from lcx.attention.regions import Region, all_at
from lcx.types import Array

ABOUT = About(
    paper='arXiv:2402.17463, An et al. 2024',
    what='distances within, to the previous, and between chunks',
    trained='none',
    cost='two further rotations of q',
)


def dual_chunk(*, chunk: int, local: int) -> tuple[Region, ...]:
    """Regions intra, successive and inter; ``chunk`` is s and ``local`` is w of the formula, in tokens.

    Raises:
      ConfigError: ``chunk`` or ``local`` is below 1.
    """
    at_least_one('chunk', chunk)
    at_least_one('local', local)
    last = chunk + local - 1

    def within(positions: Array) -> Array:
        return positions % chunk

    return (
        Region(both(causal, chunked(chunk)), within, within),
        Region(chunk_distance(chunk, 1, 2), lambda x: jnp.minimum(chunk + within(x), last), within),
        Region(chunk_distance(chunk, 2), all_at(last), within),
    )
