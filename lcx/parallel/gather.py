"""Keys and values of all tokens on every device, for the queries that it holds (Llama 3, arXiv 2407.21783, 3.3.2).

    sends    k, v and their positions once forward and once more backward, where dk and dv are summed and scattered
    holds    k and v of all tokens, of one layer at a time: the backward pass keeps its own, and gathers again

Everything else is attention as on one device, by any implementation that takes queries of other positions than keys.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax

from lcx.attention import api
from lcx.attention.masks import Rule
from lcx.parallel.kernel import Kernel
from lcx.parallel.line import Line
from lcx.types import Array, Tree, Where


def all_gather(*, kernel: Kernel, line: Line) -> Callable:
    """Attention of one shard: gather k and v, attend with the own queries."""

    def attend(
        q: Array, k: Array, v: Array, where: Where, rule: Rule, bias: api.Bias | None, **options: Any
    ) -> Tree:
        @functools.partial(jax.checkpoint, policy=_keep)
        def gathered(q: Array, own: Tree, bias: api.Bias | None) -> Tree:
            k, v, k_pos, k_seg = line.gather(own)
            return kernel.whole(q, k, v, where._replace(k_pos=k_pos, k_seg=k_seg), rule, bias, **options)

        return gathered(q, (k, v, where.k_pos, where.k_seg), bias)

    return attend


def _keep(primitive: Any, *_: Any, **__: Any) -> bool:
    """What the backward pass finds kept: all but what was gathered."""
    return primitive.name != 'all_gather'
