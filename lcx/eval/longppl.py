"""LongPPL: perplexity over the tokens that a long context makes predictable, Fang et al. 2025, arXiv:2410.23771.

Of a token x_i after a long context l_i, all of the window before it, and a short one s_i, the last K tokens or more:

    LSD(x_i) = log p(x_i | l_i) - log p(x_i | s_i)        the gain of the long context
    LCL(x_i) = log p(x_i | l_i)                           whether the token is predictable at all
    x_i is a key token where LSD > alpha and LCL > beta, by the judge; as in the paper alpha = 2, beta = -2
    LongPPL = exp(- mean over key tokens of log p(x_i | l_i)), by the model that is evaluated

The judge is another model of the same vocabulary (the paper's is Llama 3.1 8B) or, by default, the evaluated one: then
key tokens differ from model to model, and so does what LongPPL is a mean of. As in the paper's code S = K / 4 tokens
share a short context, which has K to K + S - 1 tokens, and the first K tokens of a window are no key tokens.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator

import numpy as np

from lcx.data.windows import windows
from lcx.errors import ConfigError
from lcx.eval.api import Apply, Context, digest, needs_text, scored, whole_rows
from lcx.eval.sliding import sliding
from lcx.types import Row, Tree


def key_tokens(long: np.ndarray, short: np.ndarray, alpha: float, beta: float) -> np.ndarray:
    """Which tokens are keys, from their nats after the long and after the short context.

    >>> key_tokens(np.array([0.5, 0.5, 2.5]), np.array([3.0, 2.4, 9.0]), 2.0, -2.0).tolist()
    [True, False, False]
    """
    return (short - long > alpha) & (-long > beta)


class LongPPL:
    """Yields a row for each length beyond the short one and each of ``eval.windows`` windows.

    ``key_nats``, the mean over the ``key_tokens`` of the window, is not there where there are none; LongPPL of a window
    is its exp. ``nats`` is the mean over all targets, ``targets`` of them, and ``text`` a digest of the window's
    longest form. The windows are those of :mod:`lcx.eval.windows`.
    """

    name = 'longppl'
    writes = False
    scores = True

    def __init__(self, context: Context) -> None:
        self.config, self.judge = context.config, context.judge
        self.short = self.config.longppl.short or self.config.lengths[0]
        self.lengths = [length for length in self.config.lengths if length > self.short]
        if not self.lengths:
            raise ConfigError(
                f'eval.longppl.short: {self.short} is not below the longest of eval.lengths, '
                f'{self.config.lengths[-1]}; no context would be longer.'
            )
        found = windows(
            needs_text(context, self.name),
            length=self.lengths[-1],
            count=self.config.windows,
            seed=context.seed,
        )
        self.ids = np.stack(found)
        self.texts = [digest(ids) for ids in found]
        self.expected = dict.fromkeys(self.lengths, len(found))

    def run(self, apply: Apply, params: Tree, done: Collection[Row] = ()) -> Iterator[Row]:
        """See the class; rows that are among ``done`` are left out."""
        own = self.config.longppl
        about = {'short': self.short, 'alpha': own.alpha, 'beta': own.beta, 'judge': own.judge}
        names = ('length', 'window', 'text', *about)
        known = {tuple(row[name] for name in names) for row in done if row['evaluator'] == self.name}
        judge = (apply, params) if self.judge is None else self.judge()
        for length in self.lengths:
            for number, text in enumerate(self.texts):
                row = {'length': length, 'window': number, 'text': text, **about}
                if tuple(row.values()) in known:
                    continue
                ids = self.ids[number, -(length + 1) :]
                nll = self._nll(apply, params, ids)
                by_judge = nll if self.judge is None else self._nll(*judge, ids)
                keys = self.keys(*judge, ids, by_judge)
                nats = {'key_nats': float(nll[keys].mean())} if keys.any() else {}
                counts = {'key_tokens': int(keys.sum()), 'targets': len(nll)}
                yield {'evaluator': self.name, **row, **counts, **nats, 'nats': float(nll.mean())}

    def keys(self, apply: Apply, params: Tree, ids: np.ndarray, long: np.ndarray) -> np.ndarray:
        """Which of the targets ``ids[1:]`` are key tokens, by a judge that gives them ``long`` nats."""
        stride = max(1, self.short // 4)
        short = sliding(
            apply,
            params,
            ids,
            length=self.short + stride - 1,
            stride=stride,
            tokens=self.config.tokens,
        )
        keys = key_tokens(long, short, self.config.longppl.alpha, self.config.longppl.beta)
        keys[: self.short - 1] = False  # target i is token i + 1, with i + 1 tokens before it
        return keys

    def _nll(self, apply: Apply, params: Tree, ids: np.ndarray) -> np.ndarray:
        return (
            scored(apply, params, whole_rows(ids[None]), self.config.tokens, rows=1).nll[0].astype(np.float64)
        )
