"""Variable tracking: all names that a value was passed to, in assignments scattered over noise.

    Memorize and track the chain(s) of variable assignment hidden in the following text.

    The grass is green. [...]
    VAR PQRST = 59126
    The grass is green. [...]
    VAR ABCDE = VAR PQRST
    [...]
    Question: Find all variables that are assigned the value 59126 in the text above. Answer: According to the
    chain(s) of variable assignment in the text above, 5 variables are assigned the value 59126, they are:

An example of the same kind with its answer goes before, with names of three letters: the noise of 500 tokens, and at
least as many lines of it as assignments. Wording and arguments are RULER's (variable_tracking.py); here no name
repeats.
"""

from __future__ import annotations

import dataclasses
import string
from collections.abc import Callable
from typing import ClassVar

import numpy as np

from lcx.data.ruler.api import NOISE, Body, Draft, Given, sizes

TEMPLATE = (
    'Memorize and track the chain(s) of variable assignment hidden in the following text.\n\n{context}\n'
    'Question: Find all variables that are assigned the value {value} in the text above.'
)
PREFIX = (
    ' Answer: According to the chain(s) of variable assignment in the text above, {count} variables are '
    'assigned the value {value}, they are: '
)
EXAMPLE = 500  # tokens, without the answer
LETTERS = (5, 3)  # of names in a sample and in its example


@dataclasses.dataclass(frozen=True)
class VariableTracking:
    """See the module. Facts: ``depths``, the share of the noise before each assignment of the chain asked for."""

    chains: int = 1
    hops: int = 4

    generate: ClassVar[int] = 30
    metric: ClassVar[str] = 'string_match_all'
    needs: ClassVar[None] = None
    asks: ClassVar[None] = None

    def drafts(self, given: Given) -> Callable[[list[int]], Draft]:
        """See :class:`lcx.data.ruler.api.Task`."""
        line = int(sizes(given.tokenizer, ['\n' + NOISE])[0])
        least = self.hops + 1

        def bodies(seed: list[int], letters: int, before: str = '') -> Callable[[int], Body]:
            chains = self.drawn(np.random.default_rng([*seed, 1]), letters)
            return lambda lines: hidden(chains, lines, np.random.default_rng([*seed, 2]), before)

        shortest = bodies([0], LETTERS[1])(least)
        spare = EXAMPLE - len(given.tokenizer.encode(shortest.prompt + shortest.prefix))
        lines = least + max(0, spare // line)

        def draft(seed: list[int]) -> Draft:
            example = bodies([*seed, 0], LETTERS[1])(lines)
            before = f'{example.prompt}{example.prefix} {" ".join(example.references)}\n\n'
            return Draft(least, given.room, lambda n: n * line, bodies(seed, LETTERS[0], before))

        return draft

    def drawn(self, random: np.random.Generator, letters: int) -> list[list[str]]:
        """Chains: a value and the names it is passed to; no name or value is another's."""
        count = self.chains * (self.hops + 1)
        names: dict[str, None] = {}
        while len(names) < count:
            names[''.join(random.choice(list(string.ascii_uppercase), letters))] = None
        values = random.choice(np.arange(10000, 99999), self.chains, replace=False)
        return [[str(value), *list(names)[i :: self.chains]] for i, value in enumerate(values)]


def hidden(chains: list[list[str]], lines: int, random: np.random.Generator, before: str) -> Body:
    """Chains in so many lines of noise; the first is asked for. ``before`` goes before the prompt."""
    assignments = []
    for value, *names in chains:
        places = np.sort(random.choice(lines, len(names), replace=False))
        sources = [value, *(f'VAR {name} ' for name in names)]  # RULER's, with a blank after a name
        assignments += [(int(p), f'VAR {name} = {source}') for p, name, source in zip(places, names, sources)]
    context = [NOISE] * lines
    for place, text in sorted(assignments, key=lambda pair: pair[0], reverse=True):
        context.insert(place, text)
    value, *names = chains[0]
    return Body(
        before + TEMPLATE.format(context='\n'.join(context), value=value),
        PREFIX.format(count=len(names), value=value),
        tuple(names),
        {'depths': [round(place / lines, 4) for place, _ in assignments[: len(names)]]},
    )
