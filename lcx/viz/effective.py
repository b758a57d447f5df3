"""The effective length: how far a model reads by a stated standard; of RULER, Hsieh et al. 2024, arXiv:2404.06654."""

from __future__ import annotations

from collections.abc import Mapping

# Llama-2-7B-chat at 4096 tokens, over all tasks of RULER: what RULER calls a satisfactory score.
THRESHOLD = 0.856


def effective_length(scores: Mapping[int, float], threshold: float = THRESHOLD) -> int | None:
    """The greatest length whose score exceeds the threshold, as in RULER's table; None if none does.

    A score that equals the threshold does not exceed it. Shorter lengths are not looked at.
    """
    return max((length for length, score in scores.items() if score > threshold), default=None)
