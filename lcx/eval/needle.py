"""A needle in a haystack of real text: one sentence with a number, at stated depths, that must be found.

The task niah_single_2 of RULER, Hsieh et al. 2024, arXiv:2404.06654, whose wording this is (scripts/data/synthetic in
NVIDIA/RULER): a key of two words, a number of seven digits and, as the haystack, text of the split that is evaluated.

    A special magic number is hidden within the following text. Make sure to memorize it. I will quiz you about the
    number afterwards.
    [text] One of the special magic numbers for quiet-harbor is: 6835271. [text]
    What is the special magic number for quiet-harbor mentioned in the provided text? The special magic number for
    quiet-harbor mentioned in the provided text is 6835271

The first line stands there where it leaves at least as much room to the text. What differs from RULER: the keys come
from a small list, the text is cut by tokens, and answers are scored in one forward pass as in :mod:`lcx.eval.task`.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from typing import NamedTuple

import numpy as np

from lcx.data.tokenizers import Tokenizer
from lcx.data.windows import windows
from lcx.errors import DataError
from lcx.eval.api import Apply, Context, digest, needs_text, scored, whole_rows
from lcx.types import Row, Tree

INTRODUCTION = (
    'A special magic number is hidden within the following text. Make sure to memorize it. '
    'I will quiz you about the number afterwards.\n'
)
NEEDLE = ' One of the special magic numbers for {key} is: {value}.'
QUESTION = (
    '\nWhat is the special magic number for {key} mentioned in the provided text? '
    'The special magic number for {key} mentioned in the provided text is'
)
ANSWER = ' {value}'
ADJECTIVES = (
    'amber', 'bold', 'calm', 'eager', 'fancy', 'gentle', 'happy', 'jolly', 'kind', 'lucky', 'merry', 'proud', 'quiet',
    'rapid', 'shy', 'warm',
)  # fmt: skip
NOUNS = (
    'anchor', 'basket', 'candle', 'desert', 'engine', 'forest', 'guitar', 'harbor', 'island', 'jacket', 'kettle',
    'lantern', 'meadow', 'ocean', 'pencil', 'river',
)  # fmt: skip

REACH = 256  # tokens: how far from its depth a needle may be, for the sake of a sentence's or word's end
CONTEXT = 12  # tokens decoded before a place, to see what ends there
# A stop, and quotes or brackets that close, after a word: one of four letters at least, since 'Mr.' ends nothing.
ENDS = (re.compile(r'\w{4}[.!?][\'")\]’”]*$'), re.compile(r'\S$'))


class Sample(NamedTuple):
    """What is to be found, and where: the same at every length."""

    depth: float
    number: int  # of its depth
    needle: np.ndarray
    question: np.ndarray
    answer: np.ndarray

    @property
    def size(self) -> int:
        """Inputs without text: all ids but the last."""
        return len(self.needle) + len(self.question) + len(self.answer) - 1


class Needle:
    """Yields a row for each length, depth and sample, from ``eval.samples`` samples at every depth.

    ``accuracy`` is 1.0 where each token of the number is more probable than all others, as greedy decoding needs, and
    else 0.0. ``answer_bits`` are the bits that the number costs, ``place`` counts the tokens of text before the needle,
    ``text`` is a digest of the input. Every sample has a number and a text of its own; of the text, more is read at a
    larger length, and it ends at the same token. So all is the same for every model and position method.
    """

    name = 'needle'
    writes = False
    scores = True

    def __init__(self, context: Context) -> None:
        tokens = needs_text(context, self.name)
        self.config, self.tokenizer = context.config, context.tokenizer
        self.introduction = self.tokenizer.encode(INTRODUCTION)
        random = np.random.default_rng([context.seed, 0])
        self.samples = [  # depths innermost: the samples of each are spread over all documents
            sample(self.tokenizer, random, depth, number)
            for number in range(self.config.samples)
            for depth in self.config.depths
        ]
        self.expected = dict.fromkeys(self.config.lengths, len(self.samples))
        sizes = [s.size for s in self.samples]
        shortest, longest = self.config.lengths[0], self.config.lengths[-1]
        self.largest = max(sizes)
        if shortest <= self.largest:
            raise DataError(
                f'{self.name}: length {shortest} is too short; the least is {self.largest + 1} tokens.'
            )
        self.texts = windows(
            tokens, length=longest - min(sizes) - 1, count=len(self.samples), seed=context.seed
        )

    def run(self, apply: Apply, params: Tree, done: Collection[Row] = ()) -> Iterator[Row]:
        """See the class; rows that are among ``done`` are left out."""
        names = ('length', 'depth', 'sample', 'text')
        known = {tuple(row[name] for name in names) for row in done if row['evaluator'] == self.name}
        for length in self.config.lengths:
            left = []
            for found, text in zip(self.samples, self.texts):
                ids, place = self.ids(found, text, length)
                about = dict(zip(names, (length, found.depth, found.number, digest(ids))))
                if tuple(about.values()) not in known:
                    left.append((about | {'place': place}, ids, len(found.answer)))
            size = max(1, min(len(self.samples), self.config.tokens // length))
            for start in range(0, len(left), size):
                part = left[start : start + size]
                batch = whole_rows(np.stack([ids for _, ids, _ in part]), [last for *_, last in part])
                scores = scored(apply, params, batch, self.config.tokens, rows=size)
                for (about, _, last), nll, hit in zip(part, scores.nll, scores.hit):
                    bits = nll[-last:].sum(dtype=np.float64) / np.log(2)
                    right = float(np.all(hit[-last:] > 0))
                    yield {'evaluator': self.name, **about, 'accuracy': right, 'answer_bits': float(bits)}

    def ids(self, found: Sample, text: np.ndarray, length: int) -> tuple[np.ndarray, int]:
        """``length + 1`` ids, the answer last, and how many of the text's are before the needle."""
        introduced = length - self.largest >= 2 * len(self.introduction)  # all samples of a length alike
        introduction = self.introduction if introduced else self.introduction[:0]
        text = text[len(text) - (length - found.size - len(introduction)) :]
        place = place_of(self.tokenizer, text, found.depth)
        parts = (introduction, text[:place], found.needle, text[place:], found.question, found.answer)
        return np.concatenate(parts), place


def sample(tokenizer: Tokenizer, random: np.random.Generator, depth: float, number: int) -> Sample:
    """A key and a number drawn from ``random``, in tokens.

    Question and answer are encoded together, as a text is. The answer begins with the first token that is not the
    question's alone.
    """
    key = f'{random.choice(ADJECTIVES)}-{random.choice(NOUNS)}'
    value = str(random.integers(10**6, 10**7))
    asked = tokenizer.encode(QUESTION.format(key=key))
    ids = tokenizer.encode((QUESTION + ANSWER).format(key=key, value=value))
    same = min(len(asked), len(ids))
    differ = np.flatnonzero(asked[:same] != ids[:same])
    start = int(differ[0]) if len(differ) else same
    return Sample(
        depth, number, tokenizer.encode(NEEDLE.format(key=key, value=value)), ids[:start], ids[start:]
    )


def place_of(tokenizer: Tokenizer, text: np.ndarray, depth: float) -> int:
    """How many tokens of ``text`` are before a needle at ``depth``, a share of the text.

    That is the end of a sentence, or else of a word, nearest to the depth and at most :data:`REACH` tokens, or an
    eighth of the text, away from it. Depths 0 and 1 are the ends of the text.
    """
    wanted = round(depth * len(text))
    if wanted in (0, len(text)):
        return wanted
    reach = min(REACH, len(text) // 8)
    places = range(max(1, wanted - reach), min(len(text) - 1, wanted + reach) + 1)
    nearest = sorted(places, key=lambda place: abs(place - wanted))
    for end in ENDS:
        for place in nearest:
            follows = tokenizer.decode(text[place : place + 1])
            if follows[:1].isspace() and end.search(tokenizer.decode(text[max(0, place - CONTEXT) : place])):
                return place
    return wanted
