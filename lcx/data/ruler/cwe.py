"""Common words extraction: the ten words of a numbered list that appear more often than all others.

    Below is a numbered list of words. In these words, some appear more often than others. Memorize the ones that
    appear most often.
    1. harbor 2. quiet 3. lantern [...]
    Question: What are the 10 most common words in the above list? Answer: The top 10 words that appear most often in
    the list are:

Common words appear 30 times and others 3 times, at lengths below 4096 six times and once; an example of the same kind
with its answer goes before. Wording and arguments are RULER's (common_words_extraction.py). Words are those of
:mod:`lcx.data.ruler.words`, and pairs of them (quiet-harbor) where a sample needs more, as RULER changes its list.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import ClassVar

import numpy as np

from lcx.data.ruler.api import Body, Draft, Given, sizes
from lcx.data.ruler.niah import drawn_words
from lcx.data.ruler.words import WORDS

TEMPLATE = (
    'Below is a numbered list of words. In these words, some appear more often than others. Memorize the ones that '
    'appear most often.\n{context}\nQuestion: What are the {count} most common words in the above list?'
)
PREFIX = ' Answer: The top {count} words that appear most often in the list are:'
SHORT = 4096  # tokens: lengths below have the second entries of
FREQUENCIES = ((30, 3), (6, 1))  # of common and other words in a sample
EXAMPLES = ((40, 10, 3), (20, 3, 1))  # words, and both frequencies, in the example


@dataclasses.dataclass(frozen=True)
class CommonWords:
    """See the module. Facts: ``words``, how many different ones there are."""

    count: int = 10

    generate: ClassVar[int] = 120
    metric: ClassVar[str] = 'string_match_all'
    needs: ClassVar[None] = None
    asks: ClassVar[None] = None

    def drafts(self, given: Given) -> Callable[[list[int]], Draft]:
        """See :class:`lcx.data.ruler.api.Task`."""
        short = given.length < SHORT
        often, seldom = FREQUENCIES[short]
        tokens = dict(zip(WORDS, sizes(given.tokenizer, (' ' + word for word in WORDS))))
        few = drawn_words(np.random.default_rng(0), 64)
        pair = float(sizes(given.tokenizer, (' ' + word for word in few)).mean())
        powers = 10 ** np.arange(8)
        numbers = sizes(given.tokenizer, (f' {power}.' for power in powers))

        def numbering(items: int) -> int:
            return int(np.dot(numbers, np.clip(items - (powers - 1), 0, 9 * powers)))

        def draft(seed: list[int]) -> Draft:
            random = np.random.default_rng(seed)
            example = self.listed(drawn(random, EXAMPLES[short][0]), *EXAMPLES[short][1:], random)
            order = drawn(random, len(WORDS))
            total = np.concatenate([[0], np.cumsum([tokens[word] for word in order])])

            def size(n: int) -> float:
                items = self.count * often + (n - self.count) * seldom
                if n <= len(order):
                    words = total[self.count] * (often - seldom) + total[n] * seldom
                else:
                    words = items * pair
                return words + numbering(items)

            def build(n: int) -> Body:
                random = np.random.default_rng([*seed, 1])
                words = order[:n] if n <= len(order) else drawn(random, n)
                last = self.listed(words, often, seldom, random)
                answer = ' '.join(f'{i}. {word}' for i, word in enumerate(example.references, start=1))
                prompt = f'{example.prompt}{example.prefix} {answer}\n{last.prompt}'
                return last._replace(prompt=prompt, facts={'words': n})

            return Draft(self.count + 1, max(len(order), given.room), size, build)

        return draft

    def listed(self, words: list[str], often: int, seldom: int, random: np.random.Generator) -> Body:
        """The first words are the common ones."""
        common, others = words[: self.count], words[self.count :]
        items = common * often + others * seldom
        context = ' '.join(
            f'{i}. {items[at]}' for i, at in enumerate(random.permutation(len(items)), start=1)
        )
        prompt = TEMPLATE.format(context=context, count=self.count)
        return Body(prompt, PREFIX.format(count=self.count), tuple(common), {})


def drawn(random: np.random.Generator, count: int) -> list[str]:
    """Different words, or pairs of words where there are not so many."""
    if count > len(WORDS):
        return drawn_words(random, count)
    return [WORDS[i] for i in random.choice(len(WORDS), count, replace=False)]
