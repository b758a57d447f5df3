"""LM-Infinite: a window and the first tokens are read, and no distance is greater than the window.

Han et al. 2023, "LM-Infinite: Zero-Shot Extreme Length Generalization for Large Language Models", arXiv:2308.16137.
With a window of w tokens and the first n tokens, query i reads key j

    at distance i - j     if i - j < w
    at distance w         otherwise, if j < n
    not at all            otherwise

the paper's mask in the shape of a Lambda, and its ceiling on distances (n_local and the limit on distances are one
number, as there). A model trained at length L knows all distances if w < L. ``lm_infinite(window=3, sinks=2)``:

    0 . . . . . . .
    1 0 . . . . . .
    2 1 0 . . . . .
    3 2 1 0 . . . .
    3 3 2 1 0 . . .
    3 3 . 2 1 0 . .
    3 3 . . 2 1 0 .
    3 3 . . . 2 1 0

Needs no training. Costs O(T (w + n)) scores where plain attention costs O(T^2), and a second rotation of q and k.
A window as long as the text is plain attention. The rule ``either(window, sinks)`` with plain positions is
StreamingLLM without a cache: the same mask, the distances that tokens have.
"""

from __future__ import annotations

from lcx.about import About
from lcx.attention import masks
from lcx.attention.masks import both, distance
from lcx.attention.regions import Positions, Region, all_at, as_they_are

ABOUT = About(
    paper='arXiv:2308.16137, Han et al. 2023',
    what='a window and the first tokens, with a ceiling on distances',
    trained='none',
    cost='O(T window) scores in place of O(T S); a second rotation of q and k',
)


def lm_infinite(*, window: int, sinks: int) -> tuple[Region, ...]:
    """Regions near and far; ``window`` is the greatest distance, ``sinks`` how many first tokens are always read.

    Raises:
      ConfigError: ``window`` or ``sinks`` is below 1.
    """
    return near_and_first(window, sinks, all_at(window), all_at(0))


def near_and_first(window: int, sinks: int, query: Positions, key: Positions) -> tuple[Region, ...]:
    """The ``window`` newest keys at their distance, and the ``sinks`` first ones beyond it at ``query`` - ``key``.

    Raises:
      ConfigError: ``window`` or ``sinks`` is below 1.
    """
    masks.at_least_one('window', window)
    masks.at_least_one('sinks', sinks)
    return (
        Region(distance(0, window), as_they_are, as_they_are),
        Region(both(distance(window), masks.sinks(sinks)), query, key),
    )
