"""NoPE: no position method; order is known only through the causal mask.

Kazemnejad et al. 2023, "The Impact of Positional Encoding on Length Generalization in Transformers",
arXiv:2305.19466.

Interleaved with RoPE (Yang et al. 2025, arXiv:2501.18795; Llama 4) it is a kind of layer among others:

    model.pattern = ('local', 'local', 'local', 'full')
    model.kinds.local.position = {'name': 'rope'}
    model.kinds.full.position = {'name': 'none'}
"""

from __future__ import annotations

from lcx.about import About
from lcx.positions.api import Position

ABOUT = About(
    paper='arXiv:2305.19466, Kazemnejad et al. 2023',
    what='no positions: order is known through the causal mask alone',
    trained='scratch',
    cost='none',
)


def none() -> Position:
    """Queries and keys stay as they are."""
    return Position()
