"""Self-Extend: near keys at their distance, far keys at distances counted in groups of tokens.

Jin et al. 2024, "LLM Maybe LongLM: Self-Extend LLM Context Window Without Tuning", arXiv:2401.01325. With group
G and window w, the distance of query i and key j is

    i - j                           if i - j < w
    i // G + w - w // G - j // G    otherwise

so a model trained at length L knows every distance up to (L - w) G + w tokens. ``self_extend(group=2, window=4)``:

    0 . . . . . . .
    1 0 . . . . . .
    2 1 0 . . . . .
    3 2 1 0 . . . .
    4 3 2 1 0 . . .
    4 4 3 2 1 0 . .
    5 5 4 3 2 1 0 .
    5 5 4 4 3 2 1 0

Needs no training. Costs a second rotation of q and k. Group 1, or a window as long as the text, is plain attention.
"""

from __future__ import annotations

from lcx.about import About
from lcx.attention.masks import at_least_one, distance
from lcx.attention.regions import Region, as_they_are

ABOUT = About(
    paper='arXiv:2401.01325, Jin et al. 2024',
    what='near keys as they are, far ones by groups of positions',
    trained='none',
    cost='a second rotation of q and k',
)


def self_extend(*, group: int, window: int) -> tuple[Region, ...]:
    """Regions near and far; ``group`` tokens share a far position, ``window`` is the first far distance in tokens.

    Raises:
      ConfigError: ``group`` or ``window`` is below 1.
    """
    at_least_one('group', group)
    at_least_one('window', window)
    return (
        Region(distance(0, window), as_they_are, as_they_are),
        Region(
            distance(window),
            lambda positions: positions // group + (window - window // group),
            lambda positions: positions // group,
        ),
    )
