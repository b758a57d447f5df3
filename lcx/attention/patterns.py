"""Sparse patterns from the literature, as rules: chunks, shifted groups, dilation, strides, random blocks and others.

Each is one ingredient; papers mix them with the rules of :mod:`~lcx.attention.masks`:

    BigBird              either(window(w), global_tokens(g), random_blocks(size, one_in))
    Longformer           either(window(w), global_tokens(g))
    Sparse Transformer   both(causal, either(window(l), strided(l)))
    LongNet              both(causal, either(dilated(w1, r1), dilated(w2, r2), ...))
    LongLoRA             both(causal, shifted_groups(g)) while training

A pattern saves work where its holes are larger than a kernel's blocks, which then are skipped; where they are
smaller (``dilated``, ``strided``) it only hides. Pictures as in masks: queries downwards, keys to the right.
"""

from __future__ import annotations

from collections.abc import Callable

import jax.numpy as jnp

from lcx.attention.masks import Bounds, Reach, Rule, at_least_one, distance, everything, one_object, pairs
from lcx.errors import ConfigError
from lcx.types import Array, Int, Where


@one_object
def chunked(size: int) -> Rule:
    """Keys of the query's own chunk of ``size`` positions (the local layers of Llama 4, with ``causal``).

    ``chunked(3)``:

        1 1 1 0 0 0
        1 1 1 0 0 0
        1 1 1 0 0 0
        0 0 0 1 1 1
        0 0 0 1 1 1
        0 0 0 1 1 1
    """
    at_least_one('size', size)

    def allow(where: Where) -> Array:
        q, k = pairs(where.q_pos // size, where.k_pos // size)
        return q == k

    reach = Reach(size - 1)
    return Rule(allow, lambda b: _share_chunk(b, size), lambda b: _is_in_chunk(b, size), reach=reach)


def _share_chunk(b: Bounds, size: int) -> Array:
    """May a query and a key lie in one chunk? Exact if the tokens between the bounds are all there."""
    return (b.q_min // size <= b.k_max // size) & (b.k_min // size <= b.q_max // size)


def _is_in_chunk(b: Bounds, size: int) -> Array:
    """Do all queries and keys lie in one chunk?"""
    return (b.q_min // size == b.k_max // size) & (b.k_min // size == b.q_max // size)


@one_object
def shifted_groups(size: int) -> Rule:
    """Shifted sparse attention (S^2-Attn) of LongLoRA (arXiv 2309.12307), with ``causal``, a rule to train with.

    Even heads read their own group of ``size`` positions; the groups of odd heads begin half a group later, so that
    between the two kinds of heads, layer by layer, everything passes on. The paper's ``size`` is a quarter of the
    length. Heads 0 and 1 of ``shifted_groups(4)``:

        1 1 1 1 0 0
        1 1 1 1 0 0
        1 1 1 1 0 0
        1 1 1 1 0 0
        0 0 0 0 1 1
        0 0 0 0 1 1

        1 1 0 0 0 0
        1 1 0 0 0 0
        0 0 1 1 1 1
        0 0 1 1 1 1
        0 0 1 1 1 1
        0 0 1 1 1 1

    The paper shifts by rolling the tokens of half the heads, which puts the first half group of the text behind the
    last: with a causal mask in the rolled order, as in its pseudocode and its plain PyTorch code, the first tokens
    read the last. Here, as in its FlashAttention code, both half groups stay alone. The paper shifts the second half
    of the heads instead of the odd ones: heads have no order, and parity needs no count of them. Groups are counted
    from the start of each document, not of each row.

    A kernel skips blocks that neither kind of heads needs: a causal query is given 3/4 of ``size`` keys on average,
    of which each head reads 1/2.
    """
    at_least_one('size', size)
    if size % 2:
        raise ConfigError(f'size: {size} must be even, to be shifted by a half; the nearest is {size + 1}.')
    half = size // 2

    def allow(where: Where) -> Array:
        shift = (where.heads % 2 * half)[:, None]

        def group(positions: Int[Array, 'B T']) -> Array:  # 'B N T'
            return (positions[:, None] + shift) // size

        return group(where.q_pos)[..., None] == group(where.k_pos)[:, :, None]

    def shifted(b: Bounds) -> Bounds:
        return Bounds(*(x + half for x in b[:4]), *b[4:])

    return Rule(
        allow,
        lambda b: _share_chunk(b, size) | _share_chunk(shifted(b), size),
        lambda b: _is_in_chunk(b, size) & _is_in_chunk(shifted(b), size),
    )


@one_object
def chunk_distance(size: int, low: int, high: int | None = None) -> Rule:
    """Keys whose chunk of ``size`` positions is at least ``low`` and less than ``high`` chunks before the query's.

    None sets no limit, and ``chunk_distance(size, 0, 1)`` is ``chunked(size)``. ``chunk_distance(2, 1, 2)``:

        0 0 0 0 0 0
        0 0 0 0 0 0
        1 1 0 0 0 0
        1 1 0 0 0 0
        0 0 1 1 0 0
        0 0 1 1 0 0
    """
    at_least_one('size', size)
    by_chunk = distance(low, high)

    def allow(where: Where) -> Array:
        return by_chunk.allow(where._replace(q_pos=where.q_pos // size, k_pos=where.k_pos // size))

    def of_chunks(judge: Callable[[Bounds], Array]) -> Callable[[Bounds], Array]:
        return lambda b: judge(Bounds(*(x // size for x in b[:4]), *b[4:]))

    return Rule(allow, of_chunks(by_chunk.maybe), of_chunks(by_chunk.surely))


@one_object
def dilated(segment: int, rate: int) -> Rule:
    """Dilated attention of LongNet (arXiv 2307.02486) for one segment length w and dilation rate r.

    Positions are cut into segments of ``segment``; inside one, only every ``rate``-th position reads and is read,
    starting at (head modulo ``rate``), so that the heads together reach all. Other queries read nothing in this
    head: their output is zero. Rate 1 is ``chunked(segment)``. Heads 0 and 1 of ``dilated(4, 2)``:

        1 0 1 0 0 0
        0 0 0 0 0 0
        1 0 1 0 0 0
        0 0 0 0 0 0
        0 0 0 0 1 0
        0 0 0 0 0 0

        0 0 0 0 0 0
        0 1 0 1 0 0
        0 0 0 0 0 0
        0 1 0 1 0 0
        0 0 0 0 0 0
        0 0 0 0 0 1

    LongNet mixes pairs (w, r) by the softmax denominators of each: one softmax over all the keys, in which a key
    that two pairs reach counts twice. ``either(dilated(w1, r1), dilated(w2, r2))`` is the softmax over the union,
    in which it counts once.
    """
    at_least_one('segment', segment)
    at_least_one('rate', rate)
    if rate > segment:
        raise ConfigError(f'rate: {rate} is greater than segment={segment}: some heads would read nothing.')
    if rate == 1:
        return chunked(segment)

    def allow(where: Where) -> Array:
        first = (where.heads % rate)[:, None]

        def chosen(positions: Int[Array, 'B T']) -> Array:  # 'B N T'
            return positions[:, None] % segment % rate == first

        q, k = pairs(where.q_pos // segment, where.k_pos // segment)
        return (q == k) & chosen(where.q_pos)[..., None] & chosen(where.k_pos)[:, :, None]

    return Rule(allow, lambda b: _share_chunk(b, segment), whole=True, reach=Reach(segment - 1))


@one_object
def strided(stride: int) -> Rule:
    """Keys a multiple of ``stride`` positions away (Sparse Transformer, arXiv 1904.10509).

    The paper's strided pattern, ``both(causal, either(window(2), strided(2)))``:

        1 0 0 0 0 0
        1 1 0 0 0 0
        1 1 1 0 0 0
        0 1 1 1 0 0
        1 0 1 1 1 0
        0 1 0 1 1 1
    """
    at_least_one('stride', stride)
    if stride == 1:
        return everything

    def allow(where: Where) -> Array:
        q, k = pairs(where.q_pos, where.k_pos)
        return (q - k) % stride == 0

    def maybe(b: Bounds) -> Array:
        """Is a multiple of the stride among the distances of the block?"""
        shortest, longest = b.q_min - b.k_max, b.q_max - b.k_min
        return longest % stride <= longest - shortest

    return Rule(allow, maybe, whole=True)


@one_object
def global_tokens(count: int) -> Rule:
    """The first ``count`` positions read everything and are read by all.

    Longformer (arXiv 2004.05150) and the "internal" global tokens of BigBird (arXiv 2007.14062); a decoder adds
    ``causal``. Unlike ``sinks`` they also read. ``global_tokens(2)``:

        1 1 1 1 1 1
        1 1 1 1 1 1
        1 1 0 0 0 0
        1 1 0 0 0 0
        1 1 0 0 0 0
        1 1 0 0 0 0
    """
    at_least_one('count', count)

    def allow(where: Where) -> Array:
        q, k = pairs(where.q_pos, where.k_pos)
        return (q < count) | (k < count)

    return Rule(
        allow,
        lambda b: (b.q_min < count) | (b.k_min < count),
        lambda b: (b.q_max < count) | (b.k_max < count),
    )


@one_object
def random_blocks(size: int, one_in: int, seed: int = 0) -> Rule:
    """One in ``one_in`` of the pairs of blocks of ``size`` positions, at random (BigBird, arXiv 2007.14062).

    A pair of blocks is allowed if a hash of the two and ``seed`` (any integer, modulo 2**32) is a multiple of
    ``one_in``: the same pairs in every run, layer and document, and nothing to store. BigBird draws a fixed
    number r of key blocks for each query block; on average that is ``one_in`` = blocks in the context / r. Let
    ``size`` be a multiple of the kernel's block, so that blocks can be skipped. ``random_blocks(2, one_in=2)``:

        1 1 0 0 1 1
        1 1 0 0 1 1
        0 0 1 1 1 1
        0 0 1 1 1 1
        1 1 0 0 0 0
        1 1 0 0 0 0
    """
    at_least_one('size', size)
    at_least_one('one_in', one_in)

    def hit(q_block: Array, k_block: Array) -> Array:
        return _hash(seed, q_block, k_block) % jnp.uint32(one_in) == 0

    def allow(where: Where) -> Array:
        return hit(*pairs(where.q_pos // size, where.k_pos // size))

    def one_pair(b: Bounds) -> Array:
        """Does the block lie within one pair of the rule's blocks?"""
        return (b.q_min // size == b.q_max // size) & (b.k_min // size == b.k_max // size)

    return Rule(
        allow,
        lambda b: ~one_pair(b) | hit(b.q_min // size, b.k_min // size),
        lambda b: one_pair(b) & hit(b.q_min // size, b.k_min // size),
    )


def _hash(seed: int, *numbers: Array) -> Array:
    """32 random-looking bits of integers, in order: each is mixed in by the finaliser of MurmurHash3."""
    bits = _mix(
        jnp.uint32((seed + 0x9E3779B9) % 2**32)
    )  # the finaliser maps 0 to 0; the golden ratio moves it
    for x in numbers:
        bits = _mix(bits ^ jnp.asarray(x).astype(jnp.uint32))
    return bits


def _mix(bits: Array) -> Array:
    """fmix32 of MurmurHash3 (Appleby, public domain): a bijection of 32 bits in which every bit moves all."""
    for shift, factor in ((16, 0x85EBCA6B), (13, 0xC2B2AE35)):
        bits = (bits ^ (bits >> shift)) * jnp.uint32(factor)
    return bits ^ (bits >> 16)
