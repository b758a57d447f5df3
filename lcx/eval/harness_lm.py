"""lm-eval's ``LM``: a model of lcx as EleutherAI's evaluation harness asks it, in this process. Needs ``lcx[eval]``.

Pairs of context and continuation are encoded as the harness does for causal models: together, with the spaces at the
end of a context belonging to the continuation. What is longer than ``length`` loses tokens at its beginning, and
``truncated`` and ``lost`` count that. Requests are scored in batches of one padded length, a power of two up to
``length``; position methods without a factor take that of the padded length.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from lm_eval.api.instance import Instance
from lm_eval.api.model import TemplateLM
from lm_eval.utils import get_rolling_token_windows, make_disjoint_window

from lcx.data.announce import announce
from lcx.data.tokenizers import Tokenizer
from lcx.errors import DataError
from lcx.eval.api import Reader, scored
from lcx.types import PADDING, Batch, Tree

SHORTEST = 64  # tokens of the least padded length
NEW = 256  # tokens written where a task does not say how many

Pair = tuple[Sequence[int], Sequence[int]]  # ids of a context, one at least, and of its continuation


class HarnessLM(TemplateLM):
    """See the module. ``tokens`` bounds how many are scored or read at one time.

    ``truncated`` counts the requests that were cut, ``lost`` the tokens that they lost.
    """

    def __init__(
        self, reader: Reader, params: Tree, tokenizer: Tokenizer, *, length: int, tokens: int
    ) -> None:
        super().__init__()
        self.reader, self.params, self.vocabulary = reader, params, tokenizer
        self.max_length, self.tokens = length, tokens
        self.truncated = self.lost = 0
        self._told = False

    @property
    def eot_token_id(self) -> int:
        return self.vocabulary.eos

    @property
    def prefix_token_id(self) -> int:
        return self.vocabulary.bos

    def tok_encode(self, string: str, add_special_tokens: bool | None = None, **_) -> list[int]:
        """Its ids, without specials in any case."""
        del add_special_tokens
        return self.vocabulary.encode(string).tolist()

    def _loglikelihood_tokens(
        self, requests: Sequence[tuple[tuple[str, str], list[int], list[int]]], **_
    ) -> list[tuple[float, bool]]:
        """What :meth:`loglikelihood` answers; see :meth:`scores`."""
        return self.scores([(context, continuation) for _, context, continuation in requests])

    def scores(self, pairs: Sequence[Pair]) -> list[tuple[float, bool]]:
        """Of each pair log p(continuation | context), and whether greedy decoding would write the continuation.

        Raises:
          DataError: a continuation has more tokens than ``length``, so that some could not be scored.
        """
        rows = [self._cut(context, continuation) for context, continuation in pairs]
        groups: dict[int, list[int]] = {}
        for number, ids in enumerate(rows):
            groups.setdefault(self._padded(len(ids) - 1), []).append(number)
        found: list[tuple[float, bool]] = [(0.0, True)] * len(rows)
        for length in sorted(groups, reverse=True):
            numbers = groups[length]
            lasts = [len(pairs[number][1]) for number in numbers]
            batch = right_padded([rows[number] for number in numbers], lasts, length)
            size = max(1, min(len(numbers), self.tokens // length))
            scores = scored(self.reader.score, self.params, batch, self.tokens, rows=size)
            counted = batch.weights > 0
            for number, nll, hit, mask in zip(numbers, scores.nll, scores.hit, counted):
                logp = -float(nll[mask].sum(dtype=np.float64))
                found[number] = logp, bool(np.all(hit[mask] > 0))
        return found

    def loglikelihood_rolling(self, requests: Sequence[Instance], disable_tqdm: bool = False) -> list[float]:
        """log p of whole texts, the first token after that which begins a text.

        Longer ones go in pieces of ``length`` tokens, as the harness cuts them: each token is scored once, after those
        of its piece alone, but for the last piece, which is as long as the others.
        """
        del disable_tqdm
        totals = []
        for (text,) in (request.args for request in requests):
            ids = self.tok_encode(text)
            pieces = get_rolling_token_windows(ids, self.prefix_token_id, self.max_length, 1)
            pairs = [make_disjoint_window(piece) for piece in pieces]
            totals.append(sum(logp for logp, _ in self.scores(pairs)))
        return totals

    def generate_until(self, requests: Sequence[Instance], disable_tqdm: bool = False) -> list[str]:
        """What the model writes after each prompt, up to the first of the strings in ``until``.

        It writes as ``config.generate`` says; a task that asks for sampling gets no other, and a word says so.
        """
        del disable_tqdm
        texts = [''] * len(requests)
        for new, prompts in self._by_new(requests).items():
            size = max(1, min(len(prompts), self.tokens // self.max_length))
            for start in range(0, len(prompts), size):
                part = prompts[start : start + size]
                given = [ids for _, ids, _ in part]
                given += given[:1] * (size - len(part))  # as many rows as always: no program of its own
                written = self.reader.write(self.params, given, new)
                for (number, _, until), ids in zip(part, written):
                    texts[number] = self._text(ids, until)
        return texts

    def _by_new(self, requests: Sequence[Instance]) -> dict[int, list[tuple[int, np.ndarray, list[str]]]]:
        """Requests by how many tokens they want, the longest prompts first: number, prompt, what ends a text."""
        groups: dict[int, list] = {}
        for number, (context, options) in enumerate(request.args for request in requests):
            until = options.get('until') or []
            until = [until] if isinstance(until, str) else list(until)
            new = int(options.get('max_gen_toks') or options.get('max_tokens') or NEW)
            if (options.get('do_sample') or options.get('temperature')) and not self._told:
                announce('harness: a task asks for sampling; texts are written as config.generate says.')
                self._told = True
            room = self.max_length - new
            if room < 1:
                raise DataError(
                    f'harness: {new} new tokens leave no room for a prompt in {self.max_length}; '
                    'give eval.lengths a longer one.'
                )
            ids = self.tok_encode(context) or [self.prefix_token_id]
            self._count(len(ids) - room)
            groups.setdefault(new, []).append((number, np.array(ids[-room:], np.int32), until))
        return {new: sorted(mine, key=lambda x: -len(x[1])) for new, mine in groups.items()}

    def _text(self, ids: np.ndarray, until: Sequence[str]) -> str:
        ends = np.flatnonzero(np.asarray(ids) == self.eot_token_id)
        text = self.vocabulary.decode(ids[: ends[0]] if len(ends) else ids)
        for stop in until:
            text = text.split(stop)[0] if stop else text
        return text

    def _cut(self, context: Sequence[int], continuation: Sequence[int]) -> np.ndarray:
        """The ids of a pair, at most ``length`` + 1 from the end."""
        if len(continuation) > self.max_length:
            raise DataError(
                f'harness: a continuation of {len(continuation)} tokens is longer than {self.max_length}; '
                'give eval.lengths a longer one.'
            )
        ids = np.array([*context, *continuation], np.int32)
        self._count(len(ids) - (self.max_length + 1))
        return ids[-(self.max_length + 1) :]

    def _count(self, lost: int) -> None:
        if lost > 0:
            self.truncated += 1
            self.lost += lost

    def _padded(self, size: int) -> int:
        """The least power of two that holds ``size`` tokens, from SHORTEST to ``length``."""
        return min(self.max_length, max(SHORTEST, 1 << max(0, size - 1).bit_length()))


def right_padded(rows: Sequence[np.ndarray], lasts: Sequence[int], length: int) -> Batch:
    """Rows of up to ``length`` + 1 ids as a batch, in which the last ``lasts`` targets of each count.

    >>> right_padded([np.array([7, 8, 9])], [1], 3).weights.tolist()
    [[0.0, 1.0, 0.0]]
    """
    sizes = np.array([len(ids) - 1 for ids in rows])[:, None]
    ids = np.stack([np.pad(ids, (0, length + 1 - len(ids))) for ids in rows])
    places = np.arange(length)
    real = places < sizes
    counted = real & (places >= sizes - np.array(lasts)[:, None])
    return Batch(
        tokens=np.where(real, ids[:, :-1], 0),
        targets=np.where(real, ids[:, 1:], 0),
        weights=counted.astype(np.float32),
        positions=np.where(real, places, 0).astype(np.int32),
        segments=np.where(real, 1, PADDING).astype(np.int32),
        ids=np.arange(len(rows), dtype=np.int32),
    )
