"""Needles in a haystack: values of keys, one or many, hidden in noise, real text or other needles.

    Some special magic numbers are hidden within the following text. Make sure to memorize it. I will quiz you about
    the numbers afterwards.
    [...] One of the special magic numbers for amber-anchor is: 6835271. [...]
    What are all the special magic numbers for amber-anchor mentioned in the provided text? The special magic numbers
    for amber-anchor mentioned in the provided text are

Wording and arguments are RULER's (niah.py). What differs: keys come from a smaller list, and no key or number repeats
in a sample; the text is the caller's and begins at a sentence of the sample's own, where RULER's samples share one
beginning; sentences are told by their last word instead of by NLTK, and end after 100 words if not sooner (code).
"""

from __future__ import annotations

import dataclasses
import functools
import re
import uuid
from collections.abc import Callable, Mapping
from typing import ClassVar, NamedTuple

import numpy as np

from lcx.data.ruler.api import NOISE, Body, Draft, Given, sizes
from lcx.data.ruler.words import ADJECTIVES, NOUNS
from lcx.data.tokenizers import Tokenizer
from lcx.errors import DataError

NEEDLE = 'One of the special magic {kind}s for {key} is: {value}.'
TEMPLATES = {  # by whether there is a single answer
    False: (
        'Some special magic {kind}s are hidden within the following text. Make sure to memorize it. I will quiz you '
        'about the {kind}s afterwards.\n{context}\n'
        'What are all the special magic {kind}s for {query} mentioned in the provided text?',
        ' The special magic {kind}s for {query} mentioned in the provided text are',
    ),
    True: (
        'A special magic {kind} is hidden within the following text. Make sure to memorize it. I will quiz you '
        'about the {kind} afterwards.\n{context}\n'
        'What is the special magic {kind} for {query} mentioned in the provided text?',
        ' The special magic {kind} for {query} mentioned in the provided text is',
    ),
}
DEPTHS = np.round(np.linspace(0, 100, 40)) / 100  # of needles in real text, as shares of its sentences
LONGEST = 100  # words in a sentence
_STOP = re.compile(r'[.!?][\'")\]’”]*$')
_NO_STOP = re.compile(r'^[\'"(\[‘“]*(Mr|Mrs|Ms|Dr|St|Prof|vs|etc|[A-Z])\.$')


def different(random: np.random.Generator, count: int, total: int) -> list[int]:
    """Different numbers from 0 to ``total`` - 1; a larger ``count`` begins with the same ones."""
    found: dict[int, None] = {}
    while len(found) < count:
        found |= dict.fromkeys(random.integers(total, size=count - len(found)).tolist())
    return list(found)


def drawn_words(random: np.random.Generator, count: int) -> list[str]:
    """Different adjective-noun pairs."""
    numbers = different(random, count, len(ADJECTIVES) * len(NOUNS))
    return [f'{ADJECTIVES[i // len(NOUNS)]}-{NOUNS[i % len(NOUNS)]}' for i in numbers]


def drawn_numbers(random: np.random.Generator, count: int) -> list[str]:
    """Different numbers of seven digits."""
    return [str(10**6 + i) for i in different(random, count, 9 * 10**6)]


def drawn_uuids(random: np.random.Generator, count: int) -> list[str]:
    """Random UUIDs of version 4."""
    return [str(uuid.UUID(bytes=random.bytes(16), version=4)) for _ in range(count)]


DRAWN: Mapping[str, Callable[[np.random.Generator, int], list[str]]] = {
    'word': drawn_words,
    'number': drawn_numbers,
    'uuid': drawn_uuids,
}


@dataclasses.dataclass(frozen=True)
class Niah:
    """See the module. Facts: ``depths``, the share of the haystack before each answer."""

    haystack: str  # 'noise', 'needle' or 'text', which RULER calls essay
    value: str = 'number'
    key: str = 'word'
    keys: int = 1  # needles of as many keys,
    values: int = 1  # as many for each key,
    queries: int = 1  # and as many keys to be answered

    generate: ClassVar[int] = 128
    metric: ClassVar[str] = 'string_match_all'

    @property
    def needs(self) -> str | None:
        """See :class:`lcx.data.ruler.api.Task`."""
        return 'text' if self.haystack == 'text' else None

    @property
    def asks(self) -> str | None:
        """See :class:`lcx.data.ruler.api.Task`."""
        return 'to hide needles in, best of the corpus that is evaluated' if self.needs else None

    def drafts(self, given: Given) -> Callable[[list[int]], Draft]:
        """See :class:`lcx.data.ruler.api.Task`."""
        return HAYSTACKS[self.haystack](self, given)


class Needles(NamedTuple):
    """What is hidden, in the order of the text, and what is asked."""

    needles: list[str]
    answers: list[int]  # which needles hold them
    query: str
    references: tuple[str, ...]


def needles(task: Niah, random: np.random.Generator) -> Needles:
    """What a sample of the task hides."""
    count, each = max(task.keys, task.queries), task.values
    keys, values = DRAWN[task.key](random, count), DRAWN[task.value](random, count * each)
    texts = [
        NEEDLE.format(kind=task.value, key=keys[i // each], value=value) for i, value in enumerate(values)
    ]
    order = random.permutation(count * each)
    asked = random.permutation(count)[: task.queries]
    wanted = [int(key) * each + i for key in asked for i in range(each)]
    names = [keys[key] for key in asked]
    query = names[0] if len(names) == 1 else ', '.join(names[:-1]) + ', and ' + names[-1]
    place = {int(needle): at for at, needle in enumerate(order)}
    return Needles(
        [texts[i] for i in order], [place[i] for i in wanted], query, tuple(values[i] for i in wanted)
    )


def distractors(task: Niah, seed: list[int], count: int, hidden: Needles) -> list[str]:
    """Needles with keys of their own; a larger ``count`` begins with the same ones."""
    hidden_text, random = ' '.join(hidden.needles), np.random.default_rng([*seed, 2])
    keys = DRAWN[task.key](random, count + len(hidden.needles))
    keys = [key for key in keys if f' for {key} is' not in hidden_text]
    values = DRAWN[task.value](np.random.default_rng([*seed, 3]), count)
    return [NEEDLE.format(kind=task.value, key=key, value=value) for key, value in zip(keys, values)]


def body(task: Niah, hidden: Needles, context: str, depths: np.ndarray) -> Body:
    """The prompt around ``context``; ``depths`` are those of all needles."""
    prompt, prefix = TEMPLATES[len(hidden.references) == 1]
    words = {'kind': task.value, 'query': hidden.query}
    facts = {'depths': [round(float(depths[i]), 4) for i in hidden.answers]}
    return Body(prompt.format(**words, context=context), prefix.format(**words), hidden.references, facts)


def among(lines: list[str], hidden: Needles, seed: list[int]) -> tuple[str, np.ndarray]:
    """Lines with the needles before some of them, and the share of lines before each needle."""
    count = len(hidden.needles)
    places = np.sort(np.random.default_rng([*seed, 1]).choice(len(lines), count, replace=False))
    every = list(lines)
    for place, needle in reversed(list(zip(places, hidden.needles))):
        every.insert(place, needle)
    return '\n'.join(every), places / len(lines)


def in_noise(task: Niah, given: Given) -> Callable[[list[int]], Draft]:
    """The noise again and again, a line each time."""
    line = int(sizes(given.tokenizer, ['\n' + NOISE])[0])

    def draft(seed: list[int]) -> Draft:
        hidden = needles(task, np.random.default_rng(seed))
        return Draft(
            least=len(hidden.needles),
            most=given.room,
            size=lambda n: n * line,
            build=lambda n: body(task, hidden, *among([NOISE] * n, hidden, seed)),
        )

    return draft


def in_needles(task: Niah, given: Given) -> Callable[[list[int]], Draft]:
    """Needles of other keys, a line each."""
    few = distractors(task, [0], 64, needles(task, np.random.default_rng(0)))
    line = float(sizes(given.tokenizer, ('\n' + needle for needle in few)).mean())
    most = int(1.5 * given.room / line) + 8  # more than fit, however long their keys are

    def draft(seed: list[int]) -> Draft:
        hidden = needles(task, np.random.default_rng(seed))
        others = distractors(task, seed, most, hidden)
        return Draft(
            least=len(hidden.needles),
            most=most,
            size=lambda n: n * line,
            build=lambda n: body(task, hidden, *among(others[:n], hidden, seed)),
        )

    return draft


def in_text(task: Niah, given: Given) -> Callable[[list[int]], Draft]:
    """Words of real text, spaces between them; needles between sentences."""
    words, tokens, ends = measured(given.tokenizer, given.text or '')
    starts = np.concatenate([[0], ends[:-1]]) if words else ends
    roomy = starts[tokens[-1] - tokens[starts] > given.room]
    if not len(roomy):
        raise DataError(
            f'{given.name}: the text has about {tokens[-1]} tokens, too few for length {given.length}; give more.'
        )

    def draft(seed: list[int]) -> Draft:
        random = np.random.default_rng(seed)
        hidden = needles(task, random)
        count = len(hidden.needles)
        shares = np.sort(random.choice(DEPTHS, count, replace=False))
        first = int(roomy[random.integers(len(starts)) % len(roomy)])  # the same at most lengths

        def build(n: int) -> Body:
            inner = ends[np.searchsorted(ends, first, 'right') : np.searchsorted(ends, first + n)]
            bounds = np.concatenate([[first], inner, [first + n]])  # of sentences, the last perhaps cut
            places = bounds[(shares * (len(bounds) - 1)).astype(int)]
            parts, at = [], first
            for place, needle in zip(places, hidden.needles):
                parts += [*words[at:place], needle]
                at = place
            context = ' '.join([*parts, *words[at : first + n]])
            return body(task, hidden, context, (places - first) / n)

        return Draft(
            least=count,
            most=len(words) - first,
            size=lambda n: int(tokens[first + n] - tokens[first]),
            build=build,
            ends='the text',
        )

    return draft


@functools.lru_cache(maxsize=1)  # several tasks and lengths read the same text
def measured(tokenizer: Tokenizer, text: str) -> tuple[list[str], np.ndarray, np.ndarray]:
    """A text's words, the tokens of the first 0, 1, 2, ... words, and the ends of its sentences."""
    words = text.split()
    tokens = np.concatenate([[0], np.cumsum(sizes(tokenizer, (' ' + word for word in words)))])
    return words, tokens, sentence_ends(words)


def sentence_ends(words: list[str]) -> np.ndarray:
    """How many words there are up to the end of each sentence, rising; the last is all."""
    ends, last = [], 0
    for number, word in enumerate(words, start=1):
        stop = _STOP.search(word) and not _NO_STOP.match(word)
        if stop or number - last == LONGEST or number == len(words):
            ends.append(number)
            last = number
    return np.array(ends, int)


HAYSTACKS: Mapping[str, Callable[[Niah, Given], Callable[[list[int]], Draft]]] = {
    'noise': in_noise,
    'needle': in_needles,
    'text': in_text,
}
