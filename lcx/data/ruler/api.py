"""What a RULER sample is, and how one is made as long as a length in tokens allows.

RULER's rule is kept: a prompt and the tokens to be generated after it are at most the length. RULER enlarges haystacks
in steps of many units; here a sample has as many as fit: units are encoded once, their sizes tell how many to take, and
what counts is the size of the whole prompt, encoded each time. One unit more would not fit, or not by the sizes.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple, Protocol

import numpy as np

from lcx.config import Options
from lcx.data.tokenizers import Tokenizer
from lcx.errors import ConfigError, DataError

NOISE = 'The grass is green. The sky is blue. The sun is yellow. Here we go. There and back again.'


@dataclasses.dataclass(frozen=True)
class Sample:
    """A prompt to be continued, and what the continuation must hold."""

    task: str
    length: int  # tokens: the prompt's and those to be generated are no more
    index: int  # of its task and seed
    prompt: str  # ends with ``prefix``
    prefix: str  # the beginning of the answer, which every model is given
    references: tuple[str, ...]
    generate: int  # tokens
    tokens: int  # of the prompt
    facts: Options  # where the answers are and how much there is beside them, by task


class Given(NamedTuple):
    """What samples of one task are made from."""

    name: str
    tokenizer: Tokenizer
    length: int
    generate: int  # tokens
    text: str | None = None
    file: str | None = None

    @property
    def room(self) -> int:
        """Tokens of a prompt at most."""
        return max(0, self.length - self.generate)


class Body(NamedTuple):
    """A sample's words, without a chat template."""

    prompt: str
    prefix: str
    references: tuple[str, ...]
    facts: Mapping[str, Any]


class Draft(NamedTuple):
    """A sample whose haystack may have ``least`` to ``most`` units."""

    least: int
    most: int
    size: Callable[[int], float]  # tokens of so many units, about; up to a constant, not falling
    build: Callable[[int], Body]
    ends: str | None = None  # what is all used up at ``most``, if that is an end of something


class Task(Protocol):
    """A task of RULER: a frozen dataclass, whose fields are RULER's arguments."""

    generate: int  # tokens, RULER's
    metric: str  # a name in lcx.eval.ruler.SCORERS
    needs: str | None  # 'text' or 'file', of which samples are made
    asks: str | None  # which text or file

    def drafts(self, given: Given) -> Callable[[list[int]], Draft]:
        """What makes a draft from a seed that ends in the sample's index; what samples share is computed once, here."""


def fitted(given: Given, draft: Draft, whole: Callable[[Body], str], index: int) -> tuple[Body, str, int]:
    """The body with the most units that fit into ``given.room``, the whole prompt and its tokens.

    Raises:
      DataError: the fewest units do not fit, or there are not enough.
    """

    def measured(units: int) -> tuple[Body, str, int]:
        body = draft.build(units)
        prompt = whole(body)
        return body, prompt, len(given.tokenizer.encode(prompt))

    best = measured(draft.least)
    if best[2] > given.room:
        raise DataError(
            f'{given.name}: length {given.length} is too short; the least for sample {index} is '
            f'{best[2] + given.generate} tokens, {given.generate} of them to be generated.'
        )
    low, high = draft.least, draft.most + 1  # ``low`` fits and ``high`` does not
    above = None  # tokens at ``high``
    while high - low > 1:
        rate = 1.0 if above is None else (draft.size(high) - draft.size(low)) / (above - best[2])
        limit = draft.size(low) + (given.room - best[2]) * rate
        units = _last(low, high - 1, lambda n, limit=limit: draft.size(n) <= limit)
        if units == low:
            break
        found = measured(units)
        if found[2] <= given.room:
            low, best = units, found
        else:
            high, above = units, found[2]
    if draft.ends and low == draft.most:
        raise DataError(
            f'{given.name}: {draft.ends} ends after {best[2] + given.generate} of the {given.length} tokens of '
            f'sample {index}; give more of it.'
        )
    return best


def _last(low: int, high: int, fits: Callable[[int], bool]) -> int:
    """The greatest of ``low`` to ``high`` that fits; ``low`` if none does."""
    while low < high:
        middle = (low + high + 1) // 2
        if fits(middle):
            low = middle
        else:
            high = middle - 1
    return low


def checked(given: Given, body: Body, index: int, *, every: bool) -> None:
    """Raises a ConfigError unless the tokenizer can write the references; ``every``: all within those generated."""
    for reference in body.references:
        read = given.tokenizer.decode(given.tokenizer.encode(reference))
        if read != reference:
            raise ConfigError(
                f'data.tokenizer: it writes {read!r} for {reference!r}, an answer of {given.name}; use another.'
            )
    answer = ' ' + ' '.join(body.references)
    needed = len(given.tokenizer.encode(answer))
    if every and needed > given.generate:
        raise ConfigError(
            f'data.tokenizer: the answer of {given.name}, sample {index}, takes {needed} tokens, and '
            f'{given.generate} are generated; use a larger vocabulary.'
        )


def sizes(tokenizer: Tokenizer, pieces: Iterable[str]) -> np.ndarray:
    """Tokens of each piece encoded alone, each kind once; int64."""
    known: dict[str, int] = {}
    found = []
    for piece in pieces:
        if piece not in known:
            known[piece] = len(tokenizer.encode(piece))
        found.append(known[piece])
    return np.array(found, np.int64)
