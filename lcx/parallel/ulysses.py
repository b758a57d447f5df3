"""DeepSpeed Ulysses: all tokens of some heads on every device (Jacobs et al. 2023, arXiv 2309.14509).

    B T/n N H   -- all_to_all -->   B T N/n H   -- attention -->   B T N/n H   -- all_to_all -->   B T/n N H

    sends    (n - 1)/n of the shards of q, k, v and out forward, and as much backward
    holds    q, k, v and out of all tokens and 1/n of the heads: as much as the shards

Key heads fewer than devices are repeated first, each as often as a device needs its own. The number of query heads
limits the devices; :func:`ulysses_ring` (USP, arXiv 2405.07719) goes on with a ring over devices that have the same
heads: neighbours exchange heads, every ``ulysses``-th device is in one ring.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from lcx.attention import api
from lcx.attention.masks import Rule
from lcx.errors import ConfigError
from lcx.parallel.kernel import Kernel, refuse
from lcx.parallel.line import Line
from lcx.parallel.ring import ring
from lcx.types import Array, Float, Tree, Where

TOKENS, HEADS = 1, 2  # axes of 'B T N ...'


def ulysses(*, kernel: Kernel, line: Line) -> Callable:
    """Attention of one shard: exchange heads for tokens, attend, and back."""
    return _exchanged(kernel.whole, line, ('all_gather', 'ring', 'ulysses_ring'))


def ulysses_ring(*, kernel: Kernel, line: Line, ulysses: int | None = None) -> Callable:
    """``ulysses`` neighbours exchange heads; default: as many as the inner of two mesh axes has devices."""
    if ulysses is None:
        if len(line.axes) != 2:
            raise ConfigError(
                f'ulysses: needed where the sequence is sharded over one mesh axis {line.axes}; '
                f'a divisor of its {line.size} devices.'
            )
        ulysses = line.sizes[-1]
    if ulysses < 1 or line.size % ulysses:
        divisors = [str(d) for d in range(1, line.size + 1) if line.size % d == 0]
        raise ConfigError(
            f'ulysses: {ulysses} does not divide {line.size} devices. Choices: {", ".join(divisors)}.'
        )
    outer, inner = line.split(ulysses)
    return _exchanged(ring(kernel=kernel, line=outer), inner, ('all_gather', 'ring'))


def spread(x: Float[Array, 'B S K H'], parts: int) -> Float[Array, 'B S K H']:
    """Key heads repeated as often as it takes for their number to be a multiple of ``parts``."""
    kv = x.shape[HEADS]
    return x if kv % parts == 0 else jnp.repeat(x, math.lcm(kv, parts) // kv, axis=HEADS)


def _exchanged(attend: Callable, line: Line, alternatives: tuple[str, ...]) -> Callable:
    """``attend`` of all tokens of the line and the device's own heads, as attention of one shard."""

    def attend_shard(
        q: Array,
        k: Array,
        v: Array,
        where: Where,
        rule: Rule,
        bias: api.Bias | None,
        *,
        sink_logits: Array | None = None,
        **options: Any,
    ) -> Tree:
        heads = q.shape[HEADS]
        if heads % line.size:
            refuse(
                'ulysses' if 'ulysses_ring' in alternatives else 'ulysses_ring',
                f'{heads} query heads over {line.size} devices',
                'they exchange whole heads, as many each',
                alternatives,
            )
        k, v = (spread(x, line.size) for x in (k, v))
        q, k, v = line.exchange((q, k, v), HEADS, TOKENS)
        pos_and_seg = line.gather(tuple(where[:4]), TOKENS)
        own = heads // line.size

        def mine(x: Array) -> Array:
            return jax.lax.dynamic_slice_in_dim(x, line.index() * own, own)

        where = Where(*pos_and_seg, mine(where.heads))
        sinks = None if sink_logits is None else mine(sink_logits)
        return line.exchange(attend(q, k, v, where, rule, bias, sink_logits=sinks, **options), TOKENS, HEADS)

    return attend_shard
