"""Cycle navigation: where does a walk on a circle of five places end?

    010211=2        (0 stays, 1 goes one on, 2 one back; it begins at place 0)

A regular language, one of the 15 tasks of Delétang et al. 2023, arXiv:2207.02098. The numbers of the steps are those of
the paper; its code numbers them 1, 2, 0. A guess is right once in five.
"""

from __future__ import annotations

import numpy as np

from lcx.data.tasks.api import SymbolTask

PLACES = 5


class CycleNavigation(SymbolTask):
    """See the module."""

    name = 'cycle_navigation'
    symbols = '01234'  # the last two in answers only

    def draw(self, random: np.random.Generator, size: int) -> tuple[str, str]:
        """Random steps, and the place after the last."""
        question = ''.join(random.choice(list('012'), size))
        return question, str((question.count('1') - question.count('2')) % PLACES)
