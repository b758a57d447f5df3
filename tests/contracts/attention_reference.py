"""Attention and its gradients from the formula, in NumPy float64, and the cases it is compared on.

    s = softcap(scale * q @ k^T) + table @ features        p = exp(s) / (sum over seen of exp(s) + exp(sink))
    out = p v    ds = p (do v^T - do out)    d_sink = -p_sink do out    d_table = ds features

Who sees whom is written here as plain predicates of positions and segments, apart from the rules under test.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from lcx.attention import Rule, both, causal, either, everything, prefix, same_segment, sinks, window
from lcx.types import Where

B, N, H = 2, 4, 8
REACH = 12  # distances that the bias table tells apart


class Inputs(NamedTuple):
    """Everything that gradients flow to; ``table`` and ``sinks`` may be None."""

    q: np.ndarray
    k: np.ndarray
    v: np.ndarray
    table: np.ndarray | None = None
    sinks: np.ndarray | None = None


class Case(NamedTuple):
    """One question to ask of an implementation."""

    name: str
    rule: Rule
    sees: Callable  # (q_pos, k_pos, q_seg, k_seg, head), each broadcast to 'B N T S' -> bool
    layout: Callable[[], Where]
    kv: int = N
    bias: str | None = None  # a name of BIASES
    softcap: float | None = None
    scale: float | None = None
    sinks: bool = False
    values: int = H  # elements of a value


def reference(case: Case, x: Inputs, where: Where, d_out: np.ndarray) -> tuple[np.ndarray, Inputs]:
    """``(out, gradients)`` in float64."""
    q, k, v, table, sink_logits = (None if a is None else np.float64(a) for a in x)
    k, v = (np.repeat(a, N // case.kv, axis=2) for a in (k, v))
    scale = H**-0.5 if case.scale is None else case.scale
    s = np.einsum('BTNH,BSNH->BNTS', q, k) * scale
    slope = np.ones_like(s)
    if case.softcap is not None:
        s = case.softcap * np.tanh(s / case.softcap)
        slope = 1 - (s / case.softcap) ** 2
    if table is not None:
        features = BIASES[case.bias].features(where.q_pos[:, :, None] - where.k_pos[:, None, :])
        s = s + np.einsum('NR,BTSR->BNTS', table, features)
    weights = np.exp(s) * seen(case, where)
    p_sink = np.zeros((N, 1)) if sink_logits is None else np.exp(sink_logits)[:, None]
    total = weights.sum(axis=-1) + p_sink
    total[total == 0] = 1
    p, p_sink = weights / total[..., None], p_sink / total
    d_out = np.where((where.q_seg != 0)[..., None, None], d_out, 0)
    out = np.einsum('BNTS,BSNH->BTNH', p, v)
    drift = np.einsum('BTNH,BTNH->BNT', d_out, out)
    ds = p * (np.einsum('BTNH,BSNH->BNTS', d_out, v) - drift[..., None])
    raw = ds * slope * scale
    d_table = None
    if table is not None:
        per_head = np.einsum('BNTS,BTSR->NR', ds, features)
        d_table = per_head.reshape(len(table), -1, per_head.shape[1]).sum(axis=1)
    grouped = [
        a.reshape(*a.shape[:2], case.kv, -1, a.shape[3]).sum(axis=3)
        for a in (np.einsum('BNTS,BTNH->BSNH', raw, q), np.einsum('BNTS,BTNH->BSNH', p, d_out))
    ]
    d_sink = None if sink_logits is None else -np.sum(p_sink * drift, axis=(0, 2))
    return out, Inputs(np.einsum('BNTS,BSNH->BTNH', raw, k), *grouped, d_table, d_sink)


def seen(case: Case, where: Where) -> np.ndarray:
    """The predicate on all pairs, 'B N T S', with padding hidden."""
    q_pos, q_seg = (x[:, None, :, None] for x in (where.q_pos, where.q_seg))
    k_pos, k_seg = (x[:, None, None, :] for x in (where.k_pos, where.k_seg))
    head = np.arange(N)[None, :, None, None]
    allowed = case.sees(q_pos, k_pos, q_seg, k_seg, head) & (q_seg != 0) & (k_seg != 0)
    return np.broadcast_to(allowed, (B, N, where.q_pos.shape[1], where.k_pos.shape[1]))


class Bias(NamedTuple):
    """A bias linear in its table 'N|1 R', twice: as features of the distance, and as code of its own in JAX."""

    rows: int
    features: Callable  # distance 'B T S' -> 'B T S R'
    apply: Callable  # (table, Where) -> 'B 1|N T S'


def _distance(where: Where) -> jax.Array:
    return where.q_pos[:, :, None] - where.k_pos[:, None, :]


def _slopes(table: jax.Array, where: Where) -> jax.Array:
    return -table[where.heads, 0][:, None, None] * jnp.abs(_distance(where))[:, None]


def _per_head(table: jax.Array, where: Where) -> jax.Array:
    return table[where.heads][:, jnp.clip(_distance(where), 0, REACH - 1)].swapaxes(0, 1)


def _shared(table: jax.Array, where: Where) -> jax.Array:
    return table[0][jnp.clip(_distance(where), 0, REACH - 1)][:, None]


def _one_hot(distance: np.ndarray) -> np.ndarray:
    return np.eye(REACH)[np.clip(distance, 0, REACH - 1)]


BIASES = {
    'slopes': Bias(N, lambda d: -np.abs(d)[..., None].astype(float), _slopes),
    'per_head': Bias(N, _one_hot, _per_head),
    'shared': Bias(1, _one_hot, _shared),
}


def plain(queries: int, keys: int, first: int = 0) -> Where:
    """One document per row; the queries stand at positions ``first``, ``first + 1``, ..."""
    pos = np.tile(np.arange(-50, 100, dtype=np.int32), (B, 1))
    ones = np.ones((B, keys), np.int32)
    q_pos = pos[:, 50 + first : 50 + first + queries]
    return Where(q_pos, pos[:, 50 : 50 + keys], ones[:, :queries], ones, np.arange(N))


def packed() -> Where:
    """40 tokens: documents of 13 and 20 tokens and 7 of padding; the second row holds others."""
    lengths = ((13, 20, 7), (1, 30, 9))
    seg = np.array([np.repeat([1, 2, 0], n) for n in lengths], np.int32)
    pos = np.array([np.concatenate([np.arange(n) for n in row]) for row in lengths], np.int32)
    return Where(pos, pos, seg, seg, np.arange(N))


def one_document() -> Where:
    """40 tokens: one document per row, of 40 and 31 tokens."""
    seg = (np.arange(40) < np.array([[40], [31]])).astype(np.int32)
    return plain(40, 40)._replace(q_seg=seg, k_seg=seg)


def shuffle(where: Where, seed: int = 0) -> tuple[Where, np.ndarray]:
    """The same tokens stored in a random order, and that order, 'B T'."""
    order = np.random.default_rng(seed).permuted(np.tile(np.arange(where.q_pos.shape[1]), (B, 1)), axis=1)
    pos, seg = (np.take_along_axis(x, order, axis=1) for x in (where.q_pos, where.q_seg))
    return Where(pos, pos, seg, seg, where.heads), order


def left_padded() -> Where:
    """17 queries of one document on 40 keys, of which the first 21 and 3 are padding."""
    where = plain(17, 40)
    k_seg = (np.arange(40) >= np.array([[21], [3]])).astype(np.int32)
    return where._replace(q_seg=k_seg[:, -17:] * (np.arange(17) != 5), k_seg=k_seg)


# A window that differs by head, as a model with local and global heads has.
by_head = Rule(
    lambda w: (_distance(w)[:, None] < 4 * (w.heads[:, None, None] + 1)) & (_distance(w)[:, None] >= 0),
    lambda b: (b.q_max >= b.k_min) & (b.q_min - b.k_max < 4 * N),
)


def _causal(q, k, *_):
    return k <= q


def _causal_in_document(q, k, q_seg, k_seg, _):
    return (k <= q) & (q_seg == k_seg)


causal_in_document = both(causal, same_segment)


CASES = [
    Case('causal', causal, _causal, lambda: plain(40, 40)),
    Case('short', causal, _causal, lambda: plain(7, 7), kv=2),
    Case('one query', causal, _causal, lambda: plain(1, 40, first=39), kv=2),
    Case('encoder', everything, lambda q, k, *_: np.full((1, 1, 1, 1), True), left_padded, kv=2),
    Case(
        'window and softcap',
        both(causal, window(9)),
        lambda q, k, *_: (k <= q) & (q - k < 9),
        lambda: plain(40, 40),
        kv=2,
        softcap=1.5,
        scale=0.7,
    ),
    Case(
        'streaming',
        both(causal, either(window(5), sinks(3))),
        lambda q, k, *_: (k <= q) & ((q - k < 5) | (k < 3)),
        lambda: plain(40, 40),
        kv=1,
    ),
    Case('short values', causal, _causal, lambda: plain(40, 40), kv=2, values=3),
    Case('prefix', prefix(7), lambda q, k, *_: (k <= q) | (k < 7), lambda: plain(23, 40), kv=2),
    Case('one document', causal_in_document, _causal_in_document, one_document, kv=2),
    Case('packed', causal_in_document, _causal_in_document, packed, kv=2),
    Case('out of order', causal_in_document, _causal_in_document, lambda: shuffle(packed())[0], kv=2),
    Case('queries before the keys', causal, _causal, lambda: plain(40, 40, first=-18)),
    Case(
        'packed, all at once',
        causal_in_document,
        _causal_in_document,
        packed,
        kv=2,
        bias='per_head',
        softcap=3.0,
        sinks=True,
    ),
    Case('slopes', causal, _causal, lambda: plain(40, 40), kv=2, bias='slopes'),
    Case('shared bias', window(6), lambda q, k, *_: abs(q - k) < 6, lambda: plain(40, 40), bias='shared'),
    Case(
        'by head',
        by_head,
        lambda q, k, q_seg, k_seg, n: (k <= q) & (q - k < 4 * (n + 1)),
        lambda: plain(40, 40),
        kv=2,
        sinks=True,
    ),
]


def draw(case: Case, seed: int = 0) -> tuple[Inputs, Where, np.ndarray]:
    """Random inputs of a case, where they stand, and a gradient of the output."""
    where = case.layout()
    t, s = where.q_pos.shape[1], where.k_pos.shape[1]
    random = np.random.default_rng(seed)

    def normal(*shape: int) -> np.ndarray:
        return random.normal(size=shape).astype(np.float32)

    table = None
    if case.bias:
        rows = BIASES[case.bias].rows
        table = normal(rows, BIASES[case.bias].features(np.zeros((1, 1, 1), int)).shape[-1])
    x = Inputs(
        normal(B, t, N, H),
        normal(B, s, case.kv, H),
        normal(B, s, case.kv, case.values),
        table,
        normal(N) if case.sinks else None,
    )
    return x, where, normal(B, t, N, case.values)
