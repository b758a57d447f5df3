"""What the adapters of fused kernels share: a rule of positions, told to kernels that know tokens by index.

A fused kernel is told which keys a query reads as an interval of indices. A rule with a ``band`` is an interval of
positions, and the two are the same where the keys of a document lie next to each other and count up by one:

    documents   1 1 1 2 2 2 2 0        both(causal, same_segment): query 5 reads the keys 3, 4, 5
    positions   0 1 2 0 1 2 3 0        causal alone: no interval, for position 0 stands twice

``reads`` finds these intervals in O((T + S) log S), and says of each row of the batch whether they are the rule.

Positions and segments are data. Where the caller has the numbers, a row that the kernel would get wrong raises
ValueError. Under ``jit`` nothing can raise, so the output and the gradients of that row are NaN: a run ends with
the exit code of non-finite numbers, where a mask that is silently another would train on.
"""

from __future__ import annotations

import contextlib
import functools
from typing import NamedTuple, NoReturn

import jax
import jax.numpy as jnp
import numpy as np

from lcx.attention import api
from lcx.attention.masks import Band, Rule, visible
from lcx.errors import UnsupportedError
from lcx.types import PADDING, Array, Bool, Float, Int, Tree, Where


class Reads(NamedTuple):
    """Keys by index, ``first <= index < end``; nothing where ``first >= end``."""

    first: Int[Array, 'B T']  # that the rule lets the query read
    end: Int[Array, 'B T']
    # Of the query's document; of all documents if the rule does not tell them apart.
    run_first: Int[Array, 'B T']
    run_end: Int[Array, 'B T']

    @property
    def some(self) -> Bool[Array, 'B T']:
        return self.first < self.end


class Premise(NamedTuple):
    """Something that must be true of the data; ``message`` begins with the field."""

    holds: Bool[Array, ' B']
    message: str


def refuse(name: str, what: str, why: str) -> NoReturn:
    """Raises UnsupportedError, a NotImplementedError: what is asked for, why ``name`` cannot do it, and who can."""
    raise UnsupportedError(f'attention {name!r} cannot do {what}: {why}. Choose attention: blockwise.')


def check(
    name: str,
    q: Array,
    k: Array,
    v: Array,
    where: Where,
    rule: Rule,
    bias: api.Bias | None,
    sink_logits: Array | None,
) -> Band:
    """The rule's band. Raises what :func:`api.check` raises, and NotImplementedError for what no interval says."""
    api.check(q, k, v, where, rule, sink_logits)
    if bias is not None:
        refuse(name, 'a bias', 'it would be an array of T x S numbers, which the kernel is there to avoid')
    if v.shape[-1] != k.shape[-1]:
        refuse(
            name,
            f'values of {v.shape[-1]} elements beside keys of {k.shape[-1]}',
            'it takes heads of one size',
        )
    seen = jax.eval_shape(lambda w: visible(rule, w), where)
    api.check_block('rule', seen, q.shape[0], q.shape[2], q.shape[1], k.shape[1])
    if rule.band is None:
        refuse(name, 'this rule', 'it is not one interval of keys per query (its band is None)')
    return rule.band


def at_once(where: Where) -> contextlib.AbstractContextManager:
    """A context in which numbers that the caller has are computed with, under ``jit`` too, and so can raise."""
    return jax.ensure_compile_time_eval() if _concrete(where) else contextlib.nullcontext()


def _concrete(tree: Tree) -> bool:
    return not any(isinstance(x, jax.core.Tracer) for x in jax.tree.leaves(tree))


def reads(where: Where, band: Band) -> tuple[Reads, list[Premise]]:
    """Which keys each query reads, where the premises hold: they order the keys; queries may stand anywhere."""

    def document(segments: Array) -> Array:
        return segments if band.segments else (segments != PADDING).astype(jnp.int32)

    found, together, counted = _rows(
        band, where.q_pos, where.k_pos, document(where.q_seg), document(where.k_seg)
    )
    premises = [Premise(together, 'where.k_seg: the keys of a document must lie next to each other')]
    if band.behind is not None or band.ahead is not None:
        what = 'a document' if band.segments else 'a row, whose documents the rule does not tell apart,'
        premises.append(Premise(counted, f'where.k_pos: the positions of {what} must count up by one'))
    return found, premises


@functools.partial(jax.jit, static_argnums=0)
def _rows(band: Band, *sides: Array) -> tuple[Reads, Array, Array]:
    """All rows, in one program also where numbers are at hand."""
    return jax.vmap(functools.partial(_row, band))(*sides)


def _row(band: Band, q_pos: Array, k_pos: Array, q_doc: Array, k_doc: Array) -> tuple[Reads, Array, Array]:
    """:func:`reads` of one row, and whether its documents lie together and count up."""
    order = jnp.argsort(k_doc, stable=True)
    ordered, positions = k_doc[order], k_pos[order]
    same = (ordered[1:] == ordered[:-1]) & (ordered[1:] != PADDING)
    together = jnp.all(~same | (jnp.diff(order) == 1))
    counted = jnp.all(~same | (jnp.diff(positions) == 1))
    left, right = (jnp.searchsorted(ordered, q_doc, side) for side in ('left', 'right'))
    run_first = order[jnp.minimum(left, len(order) - 1)]
    run_end = run_first + jnp.where(q_doc != PADDING, right - left, 0)
    own = run_first + (q_pos - k_pos[run_first])  # the index that the query would have among the keys
    return Reads(*_interval(band, run_first, run_end, own), run_first, run_end), together, counted


def _interval(band: Band, run_first: Array, run_end: Array, own: Array) -> tuple[Array, Array]:
    """``(first, end)`` of the keys in a run that the band allows a query which itself stands at index ``own``."""
    first = run_first if band.behind is None else jnp.maximum(run_first, own - band.behind)
    end = run_end if band.ahead is None else jnp.minimum(run_end, own + band.ahead + 1)
    return first, end


def same_index(found: Reads, band: Band) -> Premise:
    """That the band, said of indices instead of positions, allows the same inside the query's document."""
    own = jnp.arange(found.first.shape[1])
    first, end = _interval(band, found.run_first, found.run_end, own)
    equal = (first == found.first) & (end == found.end)
    holds = jnp.all(equal | ~found.some, axis=1)
    return Premise(holds, 'where.q_pos: query i must stand at the position of key i')


def enforce(name: str, premises: list[Premise]) -> Bool[Array, ' B']:
    """Which rows keep all premises. Raises ValueError if one does not and the caller has the numbers."""
    for holds, message in premises:
        if _concrete(holds) and not np.all(holds):
            raise ValueError(
                f'{message}; row {np.argmin(holds)} is not so, and attention {name!r} knows tokens by index. '
                'Choose attention: blockwise.'
            )
    return jnp.all(jnp.stack([premise.holds for premise in premises]), axis=0)


def finish(out: Float[Array, 'B T N H'], found: Reads, holds: Bool[Array, ' B']) -> Float[Array, 'B T N H']:
    """Zeros for queries that read nothing; NaN, gradients included, for rows that the kernel got wrong."""
    out = jnp.where(found.some[..., None, None], out, 0)
    return out * jnp.where(holds, 1, jnp.nan).astype(out.dtype)[:, None, None, None]
