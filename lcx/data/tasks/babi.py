"""Stories in filler: facts far apart, and a question about them at the end.

Kuratov et al. 2024, "BABILong", arXiv:2406.10149: the tasks of bAbI (Weston et al. 2015, arXiv:1502.05698) with their
facts, in order, between the sentences of a long text. There the text is of books; here it is the passkey's filler or
what is handed in, and the stories are those of :mod:`lcx.data.tasks.world`. babi_qa1, for example:

    There and back again. John went to the office. The grass is green. [...] Mary moved to the garden. [...]
    John travelled to the kitchen. The sky is blue. [...] Where is John? kitchen

    babi_qa1   Where is John?                                   kitchen     the place that was told last
    babi_qa2   Where is the milk?                               office      who has it or dropped it, and where
    babi_qa3   Where was the milk before the office?            garden      the way of who had it, in order
    babi_qa6   Is Mary in the kitchen?                          no          yes once in two
    babi_qa7   How many objects is Daniel carrying?             two         all that was taken, dropped and handed over
    babi_qa15  What is Emily afraid of?                         cat         Emily is a mouse. Mice are afraid of cats.

The answer, with the space before it, alone carries weight. Facts stand before any sentences of the filler, each place
as probable as another. There are ``fewest`` to ``most`` of them, but no more than fill half a row; a story about which
the question cannot be asked is told anew. A space precedes every sentence, as vocabularies of words expect.
"""

from __future__ import annotations

import functools
import itertools
import re
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from lcx.data.tasks.api import Task
from lcx.data.tasks.passkey import FILLER
from lcx.data.tasks.world import (
    DROP,
    GIVE,
    GO,
    PEOPLE,
    PLACES,
    TAKE,
    World,
    happen,
    pick,
    spelled,
)
from lcx.data.tokenizers import Tokenizer
from lcx.errors import DataError


class Story(NamedTuple):
    """What is told, asked and right."""

    facts: Sequence[str]
    question: str
    answer: str


class Babi(Task):
    """Inherit; give ``name``, the numbers and words, and ``story``.

    Args:
      tokenizer: any.
      filler: text between the facts, of one sentence at least; from a random sentence on, and round to its beginning.

    Raises:
      DataError: a filler without words.
    """

    fewest: int  # facts
    most: int
    facts: Sequence[str]  # every one that may be told
    questions: Sequence[str]  # every one that may be asked
    answers: Sequence[str]

    def __init__(self, tokenizer: Tokenizer, filler: str = FILLER) -> None:
        super().__init__(tokenizer)
        self._spaced = functools.cache(lambda text: tokenizer.encode(f' {text}'))
        self._fact, question, answer = (
            max(len(self._spaced(text)) for text in texts)
            for texts in (self.facts, self.questions, self.answers)
        )
        self._end = question + answer
        self.least = self.fewest * self._fact + self._end - 1
        sentences = [self._spaced(text) for text in re.split(r'(?<=[.!?])\s+', filler.strip()) if text]
        if not sentences:
            raise DataError(f'{self.name}: the filler has no sentence.')
        self._filler = np.concatenate(sentences)
        self._starts = np.cumsum([0, *(len(s) for s in sentences[:-1])])

    def story(self, random: np.random.Generator, count: int) -> Story:
        """Of ``count`` facts."""
        raise NotImplementedError(f'{type(self).__name__} has no stories.')

    def row(self, random: np.random.Generator, length: int) -> tuple[np.ndarray, np.ndarray]:
        """Exactly ``length + 1`` ids, the answer last."""
        fit = (length + 1 - self._end) // (2 * self._fact)
        count = int(random.integers(self.fewest, max(self.fewest, min(self.most, fit)) + 1))
        story = self.story(random, count)
        facts = [self._spaced(fact) for fact in story.facts]
        question, answer = self._spaced(story.question), self._spaced(story.answer)
        room = length + 1 - len(question) - len(answer) - sum(map(len, facts))
        filler, places = self._between(random, room, len(facts))
        pieces = np.split(filler, places)
        told = [part for pair in zip(pieces, facts, strict=False) for part in pair]
        row = np.concatenate([*told, pieces[-1], question, answer])
        return row, (np.arange(length + 1) > length - len(answer)).astype(np.float32)

    def _between(self, random: np.random.Generator, room: int, count: int) -> tuple[np.ndarray, np.ndarray]:
        """``room`` tokens of filler from a sentence on, and ``count`` random places in it where sentences begin."""
        size = len(self._filler)
        start = int(random.choice(self._starts))
        rounds = np.arange(room // size + 1) * size
        places = (np.sort((self._starts - start) % size) + rounds[:, None]).ravel()
        chosen = np.sort(random.choice(places[places <= room], count))
        return self._filler[(start + np.arange(room)) % size], chosen


class _InWorld(Babi):
    """A question about the world after what has happened in it."""

    things = 0.5  # the share of the facts that are about them
    facts = spelled(*GO, *TAKE, *DROP, *GIVE)

    def people(self, random: np.random.Generator) -> Sequence[str]:
        """Who is in the story."""
        return PEOPLE

    def ask(self, random: np.random.Generator, world: World) -> tuple[str, str] | None:
        """A question and its answer; None if there is nothing to ask."""
        raise NotImplementedError(f'{type(self).__name__} has no questions.')

    def story(self, random: np.random.Generator, count: int) -> Story:
        """See the class."""
        while True:
            facts, world = happen(random, count, things=self.things, people=self.people(random))
            asked = self.ask(random, world)
            if asked:
                return Story(facts, *asked)


class WherePerson(_InWorld):
    """One supporting fact."""

    name, fewest, most = 'babi_qa1', 1, 10
    things, facts = 0.0, spelled(*GO)
    questions, answers = spelled('Where is {person}?'), PLACES

    def ask(self, random: np.random.Generator, world: World) -> tuple[str, str] | None:
        """Where somebody is."""
        person = pick(random, sorted(world.place))
        return f'Where is {person}?', world.place[person]


class WhereThing(_InWorld):
    """Two supporting facts."""

    name, fewest, most = 'babi_qa2', 2, 30
    questions, answers = spelled('Where is the {thing}?'), PLACES

    def ask(self, random: np.random.Generator, world: World) -> tuple[str, str] | None:
        """Where a thing is."""
        if not world.path:
            return None
        thing = pick(random, sorted(world.path))
        return f'Where is the {thing}?', world.path[thing][-1]


class WhereBefore(_InWorld):
    """Three supporting facts."""

    name, fewest, most = 'babi_qa3', 3, 60
    questions, answers = spelled('Where was the {thing} before the {place}?'), PLACES

    def ask(self, random: np.random.Generator, world: World) -> tuple[str, str] | None:
        """Where a thing was before a place to which it came once."""
        known = [
            (thing, before, place)
            for thing, path in sorted(world.path.items())
            for before, place in itertools.pairwise(path)
            if path.count(place) == 1
        ]
        if not known:
            return None
        thing, before, place = known[random.integers(len(known))]
        return f'Where was the {thing} before the {place}?', before


class WhetherThere(_InWorld):
    """Yes or no."""

    name, fewest, most = 'babi_qa6', 1, 20
    things = 0.3
    questions, answers = spelled('Is {person} in the {place}?'), ('yes', 'no')

    def ask(self, random: np.random.Generator, world: World) -> tuple[str, str] | None:
        """Whether somebody is in a place."""
        person = pick(random, sorted(world.place))
        there = world.place[person]
        if random.random() < 0.5:
            return f'Is {person} in the {there}?', 'yes'
        return f'Is {person} in the {pick(random, [q for q in PLACES if q != there])}?', 'no'


class HowMany(_InWorld):
    """Counting."""

    name, fewest, most = 'babi_qa7', 2, 40
    things = 0.8
    questions = spelled('How many objects is {person} carrying?')
    answers = ('none', 'one', 'two', 'three')
    kept = (0.3, 0.2, 0.6, 1.0)  # the share of the stories with each answer

    def people(self, random: np.random.Generator) -> Sequence[str]:
        """One or more of them: where they are few, they have more."""
        return random.permutation(PEOPLE)[: random.integers(1, len(PEOPLE) + 1)].tolist()

    def ask(self, random: np.random.Generator, world: World) -> tuple[str, str] | None:
        """How many things somebody has who had one; often not, where that is none or one: most have so many."""
        if not world.holds:
            return None
        person = pick(random, sorted(world.holds))
        count = len(world.holds[person])
        if random.random() > self.kept[count]:
            return None
        return f'How many objects is {person} carrying?', self.answers[count]


KINDS = {'cat': 'cats', 'mouse': 'mice', 'sheep': 'sheep', 'wolf': 'wolves'}
NAMES = ('Emily', 'Gertrude', 'Jessica', 'Winona')
FEAR, IS = '{} are afraid of {}.', '{} is a {}.'


class AfraidOf(Babi):
    """Basic deduction."""

    name, fewest, most = 'babi_qa15', 2, len(KINDS) + len(NAMES)
    facts = [
        *(FEAR.format(a.capitalize(), b) for a in KINDS.values() for b in KINDS.values() if a != b),
        *(IS.format(name, kind) for name in NAMES for kind in KINDS),
    ]
    questions, answers = [f'What is {name} afraid of?' for name in NAMES], tuple(KINDS)

    def story(self, random: np.random.Generator, count: int) -> Story:
        """As many fears as animals, or one animal more; the fear of every animal is told."""
        fears = {}
        for kind in random.permutation(list(KINDS))[: count // 2].tolist():
            fears[kind] = pick(random, [k for k in KINDS if k != kind])
        names = random.permutation(list(NAMES))[: count - count // 2].tolist()
        kinds = {name: pick(random, list(fears)) for name in names}
        facts = [FEAR.format(KINDS[a].capitalize(), KINDS[b]) for a, b in fears.items()]
        facts += [IS.format(name, kind) for name, kind in kinds.items()]
        asked = pick(random, names)
        return Story(random.permutation(facts).tolist(), f'What is {asked} afraid of?', fears[kinds[asked]])
