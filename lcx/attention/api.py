"""The attention contract, and the checks that every implementation shares.

    attend(q, k, v, where, rule, bias=None, *, scale=None, softcap=None, sink_logits=None) -> 'B T N V'

computes, for each query head n and its key head n // G, in fp32,

    s = softcap(scale * q @ k^T) + bias          softcap(x) = c * tanh(x / c)
    out = softmax(s over visible keys [, sink logit]) @ v

and zeros for rows that see nothing. ``scale`` defaults to H**-0.5. The output has the dtype of ``q``, and the width of
``v``: V is H where positions append nothing to queries and keys.

    partial(the same) -> (out 'B T N V', lse 'B T N')

also gives the log of the softmax denominator, fp32, with its gradient; FLOOR where nothing is seen. So attention over
disjoint sets of keys (regions of distances, steps of a ring, a memory beside the context) merges exactly, by
:func:`lcx.attention.online.merge` of :func:`lcx.attention.online.resume`. And

    gradients(q, k, v, where, rule, bias, lse, delta, d_out, *, scale, softcap) -> (dq, dk, dv, d_tables)

what these keys give to the gradients of attention over them and others, from ``lse`` and ``delta = rowsum(d_out * out)
- d_lse`` of attention over all, 'B T N': so a backward pass, too, takes the keys piece by piece and keeps none.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Any, Protocol

import jax
import jax.numpy as jnp

from lcx import config
from lcx.attention.masks import Rule
from lcx.types import PADDING, Array, Float, Where

# A bias is a function of one block's Where. As a jax.tree_util.Partial over its learned tables it is a pytree,
# and gradients reach the tables through every implementation.
Bias = Callable[[Where], Float[Array, '1|B 1|N T S']]


class Attend(Protocol):
    """What a mixer calls; see the module docstring for the meaning."""

    def __call__(
        self,
        q: Float[Array, 'B T N H'],
        k: Float[Array, 'B S K H'],
        v: Float[Array, 'B S K V'],
        where: Where,
        rule: Rule,
        bias: Bias | None = None,
        *,
        scale: float | None = None,
        softcap: float | None = None,
        sink_logits: Float[Array, ' N'] | None = None,
    ) -> Float[Array, 'B T N V']: ...


def bound(
    registry: Mapping[str, Callable], options: Mapping, path: str = 'attention', beyond: tuple[str, ...] = ()
) -> Callable:
    """The implementation that ``{'name': 'blockwise', 'block': 1024}`` names, with options of its own bound.

    ``beyond`` names arguments of every call that the registry's functions take besides those of the contract.

    Raises :class:`~lcx.errors.ConfigError` naming ``path``, the option and the nearest valid choice.
    """
    return config.make({name: _binder(attend, beyond) for name, attend in registry.items()}, options, path)


def _binder(attend: Callable, beyond: tuple[str, ...]) -> Callable[..., Callable]:
    """``bind(**options) -> attend``; its signature is what ``attend`` takes beyond the arguments of a call."""
    contract = {*inspect.signature(Attend.__call__).parameters, *getattr(attend, 'keywords', ()), *beyond}
    own = [p for name, p in inspect.signature(attend).parameters.items() if name not in contract]

    def bind(**options: Any) -> Attend:
        return functools.partial(attend, **options)

    bind.__signature__ = inspect.Signature(own)
    bind.__annotations__ = {p.name: p.annotation for p in own}
    return bind


def check(q: Array, k: Array, v: Array, where: Where, rule: Rule, sink_logits: Array | None) -> None:
    """Raises ValueError naming the argument, its shape and what was expected."""
    for name, x in (('q', q), ('k', k), ('v', v)):
        if x.ndim != 4:
            raise ValueError(f'{name} has shape {x.shape}; expected 4 axes: batch, tokens, heads, head size.')
        if not jnp.issubdtype(x.dtype, jnp.floating):
            raise ValueError(f'{name} is {x.dtype}; expected a floating type.')
    (b, t, n, h), (_, s, kv, _) = q.shape, k.shape
    _expect('k', k.shape, (b, s, kv, h), 'B S K H')
    _expect('v', v.shape, (b, s, kv, v.shape[-1]), 'B S K V, as k')
    if n % kv:
        raise ValueError(f'{n} query heads (q {q.shape}) are not a multiple of {kv} key heads (k {k.shape}).')
    for name, expected, letters in (
        ('q_pos', (b, t), 'B T'),
        ('k_pos', (b, s), 'B S'),
        ('q_seg', (b, t), 'B T'),
        ('k_seg', (b, s), 'B S'),
        ('heads', (n,), 'N'),
    ):
        _expect(f'where.{name}', getattr(where, name).shape, expected, letters)
    if sink_logits is not None:
        _expect('sink_logits', sink_logits.shape, (n,), 'N')
    if not isinstance(rule, Rule):
        raise ValueError(f'rule is a {type(rule).__name__}; expected a Rule such as causal or window(1024).')


def _expect(name: str, shape: tuple, expected: tuple, letters: str) -> None:
    if tuple(shape) != tuple(expected):
        raise ValueError(f'{name} has shape {tuple(shape)}; expected {tuple(expected)} ({letters}).')


def check_block(name: str, block: Array, b: int, n: int, t: int, s: int) -> None:
    """Raises ValueError unless ``block`` (of a rule or bias) broadcasts to 'B N T S' without adding axes."""
    full = (b, n, t, s)
    if block.ndim != 4 or any(have not in (1, want) for have, want in zip(block.shape, full)):
        raise ValueError(
            f'{name} gave a block of shape {block.shape}; expected one that broadcasts to {full} (B N T S).'
        )


def as_tree(bias: Bias | None) -> Bias | None:
    """A bias as a pytree: a plain function is one without tables."""
    return bias if bias is None or isinstance(bias, jax.tree_util.Partial) else jax.tree_util.Partial(bias)


def hide_padding(x: Float[Array, 'B S K H'], segments: Array) -> Float[Array, 'B S K H']:
    """``x`` with zeros at padding, so that whatever stands there (NaN included) reaches no value and no gradient."""
    return jnp.where((segments != PADDING)[..., None, None], x, 0)
