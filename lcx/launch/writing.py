"""What ``lcx generate`` puts together: text on stdout, progress and a summary on stderr."""

from __future__ import annotations

import codecs
import io
import sys
import time

import jax
import numpy as np

from lcx.data.tokenizers import Tokenizer
from lcx.errors import Interrupted
from lcx.generate.loop import Plan, compiled, stream
from lcx.types import Tree


def too_long(plan: Plan, prompt: int) -> bool:
    """Whether some layers read further back than the model was trained to, with plain rope."""
    model = plan.policy.model(plan.model)
    if prompt + plan.room.new <= model.trained_length:
        return False

    def plain(kind: str) -> bool:
        own, method = model.kinds[kind], model.position_of(kind)['name']
        behind = own.reach().behind
        return (
            method == 'rope' and not own.read_regions() and (behind is None or behind >= model.trained_length)
        )

    return any(map(plain, model.depth))


class Summary:
    """How long prompt and text take. The first token belongs to the prompt, from whose last token it comes."""

    def __init__(self, prompt: int) -> None:
        self.prompt, self.new = prompt, 0
        self.since = self.first = self.last = time.monotonic()

    def start(self) -> None:
        self.since = self.first = self.last = time.monotonic()

    def count(self) -> None:
        """One more token is there."""
        self.new, self.last = self.new + 1, time.monotonic()
        if self.new == 1:
            self.first = self.last

    def words(self, plan: Plan) -> str:
        """One line; the cache's bytes are also given per token of the longest text that the program could hold."""
        size = plan.held(batch=1)
        return (
            f'prompt: {timed(self.prompt, self.prompt, self.first - self.since)}; '
            f'new: {timed(self.new, self.new - 1, self.last - self.first)}; '
            f'cache: {plan.cache["name"]}, {size / 1e6:.1f} MB, {size / 1e3 / plan.room.tokens:.2f} kB per token'
        )


def timed(tokens: int, within: int, seconds: float) -> str:
    """``tokens``, of which ``within`` took ``seconds``."""
    if within < 1 or seconds <= 0:
        return f'{tokens} tokens'
    return f'{tokens} tokens, {seconds:.2f} s, {within / seconds:.1f} tokens/s'


def write(
    plan: Plan, params: Tree, tokenizer: Tokenizer, ids: np.ndarray, seed: int, *, echo: str = ''
) -> None:
    """Writes ``echo`` and what follows the prompt ``ids`` to stdout, each token when it is there.

    Bytes that are not a whole character yet wait for the rest of it. Raises Interrupted for Ctrl-C, with a summary.
    """
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(encoding='utf-8')  # as the prompt is, whatever the terminal's locale
    characters = codecs.getincrementaldecoder('utf-8')('replace')
    summary = Summary(len(ids))
    try:
        status('compiling ...')
        params, prompt = jax.device_put(params), plan.prompt([ids], seed)
        parts = compiled(plan, params, prompt, 'read', 'settle', 'step')
        put(echo)
        summary.start()
        for token in stream(plan, params, prompt, parts, told=told):
            summary.count()
            status('')
            put(characters.decode(tokenizer.raw(token)))
    except KeyboardInterrupt:
        ended(plan, summary)
        raise Interrupted(f'interrupted after {summary.new} new tokens.') from None
    ended(plan, summary)


def ended(plan: Plan, summary: Summary) -> None:
    """The end of the text, and the summary."""
    status('')
    if sys.stdout.isatty():
        put('\n')
    say(summary.words(plan))


def told(chunk: int, chunks: int) -> None:
    """Progress in a long prompt."""
    if chunks > 1:
        status(f'reading the prompt: chunk {chunk} of {chunks}')


def put(text: str) -> None:
    print(text, end='', flush=True)


def say(words: str) -> None:
    print(words, file=sys.stderr, flush=True)


def status(words: str) -> None:
    """A line that the next one replaces, for a person only."""
    if sys.stderr.isatty():
        print(f'\r\x1b[K{words}', end='', file=sys.stderr, flush=True)
