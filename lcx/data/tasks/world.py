"""A small world in which people go from place to place and take, drop and hand over things; told in sentences.

Its words are those of the bAbI tasks, Weston et al. 2015, arXiv:1502.05698. Nobody takes what the story leaves
somewhere else; a thing of which it has not told yet may be anywhere.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import TypeVar

import numpy as np

T = TypeVar('T')

PEOPLE = ('Daniel', 'John', 'Mary', 'Sandra')
PLACES = ('bathroom', 'bedroom', 'garden', 'hallway', 'kitchen', 'office')
THINGS = ('apple', 'football', 'milk')

GO = tuple(
    f'{{person}} {verb} the {{place}}.' for verb in ('went to', 'moved to', 'journeyed to', 'travelled to')
)
TAKE = tuple(f'{{person}} {verb} the {{thing}} there.' for verb in ('took', 'got', 'grabbed', 'picked up'))
DROP = tuple(f'{{person}} {verb} the {{thing}}.' for verb in ('dropped', 'discarded', 'left', 'put down'))
GIVE = tuple(f'{{person}} {verb} the {{thing}} to {{other}}.' for verb in ('gave', 'handed', 'passed'))


def spelled(*forms: str) -> list[str]:
    """Every sentence of these forms."""
    words = itertools.product(PEOPLE, PLACES, THINGS, PEOPLE)
    return sorted(
        {f.format(person=p, place=q, thing=t, other=o) for p, q, t, o in words if p != o for f in forms}
    )


class World:
    """What is known of people and things after what has happened."""

    def __init__(self) -> None:
        self.place: dict[str, str] = {}  # of a person
        self.holds: dict[str, list[str]] = {}  # by everyone who ever had a thing, those at hand
        self.path: dict[str, list[str]] = {}  # places of a thing, in order; two in a row differ

    def go(self, random: np.random.Generator, person: str) -> str:
        """Somewhere else."""
        place = pick(random, [q for q in PLACES if q != self.place.get(person)])
        self.place[person] = place
        for thing in self.holds.get(person, ()):
            self.path[thing].append(place)
        return pick(random, GO).format(person=person, place=place)

    def handle(self, random: np.random.Generator, person: str) -> str | None:
        """Something that the person can do with a thing; None if there is nothing."""
        here = self.place.get(person)
        if here is None:
            return None
        held = self.holds.get(person, [])
        near = [p for p in PEOPLE if p != person and self.place.get(p) == here]
        gone = set(itertools.chain(*self.holds.values()))
        free = [t for t in THINGS if t not in gone and self.path.get(t, [here])[-1] == here]
        acts = 4 * [(TAKE, t, '') for t in free] + [(DROP, t, '') for t in held]  # or few would have much
        acts += [(GIVE, t, other) for t in held for other in near]
        if not acts:
            return None
        forms, thing, other = acts[random.integers(len(acts))]
        if forms is not TAKE:
            held.remove(thing)
        if forms is not DROP:
            self.holds.setdefault(other or person, []).append(thing)
        self.path.setdefault(thing, [here])
        return pick(random, forms).format(person=person, thing=thing, other=other)


def happen(
    random: np.random.Generator, count: int, *, things: float, people: Sequence[str] = PEOPLE
) -> tuple[list[str], World]:
    """``count`` sentences and the world after them; in the share ``things`` one is handled, where one can be."""
    world, facts = World(), []
    for _ in range(count):
        person = pick(random, people)
        act = world.handle(random, person) if random.random() < things else None
        facts.append(act or world.go(random, person))
    return facts, world


def pick(random: np.random.Generator, choices: Sequence[T]) -> T:
    """One of them."""
    return choices[random.integers(len(choices))]
