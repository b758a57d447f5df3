"""NoPE: no position method; order is known only through the causal mask.

Kazemnejad et al. 2023, "The Impact of Positional Encoding on Length Generalization in Transformers",
arXiv:2305.19466.
"""

from __future__ import annotations

from lcx.positions.api import Position


def none() -> Position:
    """Queries and keys stay as they are."""
    return Position()
