"""NoPE: no position method; order is known only through the causal mask.

Kazemnejad et al. 2023, "The Impact of Positional Encoding on Length Generalization in Transformers",
arXiv:2305.19466.
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
