"""A window no longer than a shard: every device needs the end of the shard before its own, and no more.

    sends    the last ``behind`` tokens of k and v to the next device, once forward and once backward
    holds    k and v of its own tokens and of those

where the rule reads ``behind`` positions back (:class:`~lcx.attention.masks.Reach`). If it reads the first positions,
too (attention sinks), all devices get the first tokens of the document that goes on beyond each shard: a few per
device. So traffic does not grow with the length of the context.

This needs tokens in the order of the text: in each row the real tokens lie together, documents with growing numbers,
positions inside a document growing; if the rule does not tell documents apart, all along the row. Positions are data:
rows that are not so give NaN, gradients included, as with the fused kernels (:mod:`lcx.attention.fused`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from lcx.attention import api
from lcx.attention.masks import Bounds, Rule
from lcx.parallel.kernel import Kernel, refuse
from lcx.parallel.line import Line
from lcx.types import PADDING, Array, Bool, Float, Int, Tree, Where

FAR = 2**29  # a position beyond all; distances of two fit into int32
OTHERS = ('all_gather', 'ring', 'ulysses', 'ulysses_ring')


class Keys(NamedTuple):
    """Keys, their values, and where they stand."""

    k: Float[Array, 'B S K H']
    v: Float[Array, 'B S K H']
    pos: Int[Array, 'B S']
    seg: Int[Array, 'B S']

    def last(self, count: int) -> Keys:
        return Keys(*(x[:, x.shape[1] - count :] for x in self))


def halo(*, kernel: Kernel, line: Line) -> Callable:
    """Attention of one shard and the end of the one before."""

    def attend(
        q: Array, k: Array, v: Array, where: Where, rule: Rule, bias: api.Bias | None, **options: Any
    ) -> Tree:
        check(rule, q.shape[1], k.shape[1])
        keys = Keys(k, v, where.k_pos, where.k_seg)
        behind, first = rule.reach
        parts = [keys]
        if behind:
            parts.insert(
                0, line.shift(keys.last(behind), around=False)
            )  # zeros, which are padding, to the first
        document = where.k_seg if tells_documents_apart(rule) else (where.k_seg != PADDING).astype(jnp.int32)
        if first:
            parts.insert(0, _beginnings(line, keys, document, first, behind))
        k, v, k_pos, k_seg = (jnp.concatenate(x, axis=1) for x in zip(*parts))
        results = kernel.whole(q, k, v, where._replace(k_pos=k_pos, k_seg=k_seg), rule, bias, **options)
        poison = jnp.where(in_order(line, where, document, first), 1, jnp.nan)
        return jax.tree.map(lambda x: x * poison.astype(x.dtype).reshape(-1, *[1] * (x.ndim - 1)), results)

    return attend


def check(rule: Rule, queries: int, keys: int) -> None:
    """Raises UnsupportedError, naming who can, unless the shard before and the own hold all that the rule reads."""
    behind = rule.reach.behind
    if behind is None or behind > keys:
        how_far = 'any distance' if behind is None else f'{behind} tokens'
        refuse(
            'halo', f'a rule that reads {how_far} back', f'a shard has {keys} tokens, and it gets one', OTHERS
        )
    if queries != keys:
        refuse('halo', f'{queries} queries and {keys} keys a shard', 'both must be the same tokens', OTHERS)
    if _may(rule, (-FAR, 0), (1, FAR), 1):
        refuse('halo', 'a rule that reads ahead', 'keys come from the device before', OTHERS)


def tells_documents_apart(rule: Rule) -> bool:
    """Whether no token reads one of another document, wherever they stand."""
    return not _may(rule, (-FAR, FAR), (-FAR, FAR), 2)


def _may(rule: Rule, q: tuple[int, int], k: tuple[int, int], document: int) -> bool:
    """``rule.maybe`` of queries of document 1 and keys of ``document``, at positions between two."""
    alone = jax.sharding.AbstractMesh((), ())  # numbers of no device, in a program of many
    with jax.sharding.use_abstract_mesh(alone), jax.ensure_compile_time_eval():
        bounds = Bounds(*map(jnp.asarray, (*q, *k, 1, 1, document, document)))
        return bool(jnp.any(rule.maybe(bounds)))


def in_order(line: Line, where: Where, document: Int[Array, 'B S'], first: int) -> Bool[Array, ' B']:
    """Which rows are as the module says, over all devices: a few numbers per row are added up."""
    ends = line.shift((document[:, -1:], where.k_pos[:, -1:]), around=False)
    document_before, pos_before = (
        jnp.concatenate([end, x[:, :-1]], axis=1) for end, x in zip(ends, (document, where.k_pos))
    )
    real, real_before = document != PADDING, document_before != PADDING
    backwards = (document < document_before) | (document == document_before) & (where.k_pos <= pos_before)
    wrong = (
        real & real_before & backwards | (where.q_seg != where.k_seg) | real & (where.q_pos != where.k_pos)
    )
    if first:
        wrong |= real & (where.k_pos < 0)  # the first positions are counted from 0
    runs = real & ~real_before
    wrong, runs = jax.lax.psum((jnp.sum(wrong, axis=1), jnp.sum(runs, axis=1)), line.axes)
    return (wrong == 0) & (runs <= 1)


def _beginnings(line: Line, keys: Keys, document: Array, first: int, behind: int) -> Keys:
    """The tokens at positions below ``first`` that lie before the end of the previous shard's last ``behind``.

    Of each shard only its last document can go on in later ones. Slots that hold none of its tokens, or tokens that
    this device has otherwise, are padding.
    """
    size = document.shape[1]
    last = jnp.max(document, axis=1, keepdims=True)  # numbers grow
    begins = (document == last) & (document != PADDING) & (keys.pos < first)
    at = jnp.argsort(~begins, axis=1, stable=True)[:, : min(first, size)]

    def take(x: Array) -> Array:
        return jnp.take_along_axis(x, at.reshape(*at.shape, *[1] * (x.ndim - 2)), axis=1)

    chosen = keys._replace(seg=jnp.where(begins, keys.seg, PADDING))
    *found, indices = line.gather((*(take(x) for x in chosen), at))
    found = Keys(*found)
    from_device = jnp.repeat(jnp.arange(line.size), at.shape[1])
    here = line.index()
    had = (from_device >= here) | (from_device == here - 1) & (indices >= size - behind)
    return found._replace(seg=jnp.where(had, PADDING, found.seg))
