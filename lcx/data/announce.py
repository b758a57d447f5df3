"""A word to the person who waits."""

from __future__ import annotations

from rich.console import Console


def announce(message: str) -> None:
    """One line on stderr about work that takes a while."""
    Console(stderr=True, highlight=False).print(message, soft_wrap=True, markup=False)
