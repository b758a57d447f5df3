"""Normalisations of a vector, by name; all compute in fp32. ``rms`` is that of Llama, ``layer`` that of GPT-2.

rms           x / sqrt(mean(x^2) + eps) * scale                              arXiv 1910.07467
rms_plus_one  x / sqrt(mean(x^2) + eps) * (1 + scale)                        Gemma's: scale starts at 0
layer         (x - mean(x)) / sqrt(var(x) + eps) * scale + bias              arXiv 1607.06450
"""

from __future__ import annotations

import functools
from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp

from lcx.parallel.rules import gathered
from lcx.types import Array, Float


class RMSNorm(nn.Module):
    """x / sqrt(mean(x^2) + eps) * (offset + scale), which starts as the factor 1."""

    eps: float
    axis_name: str = 'embed'
    offset: float = 0.0

    @nn.compact
    def __call__(self, x: Float[Array, '... D']) -> Float[Array, '... D']:
        scale = _vector(self, 'scale', nn.initializers.constant(1.0 - self.offset), x.shape[-1])
        wide = x.astype(jnp.float32)
        wide = wide * jax.lax.rsqrt(jnp.mean(wide**2, axis=-1, keepdims=True) + self.eps)
        return (wide * (self.offset + scale)).astype(x.dtype)


class LayerNorm(nn.Module):
    """(x - mean(x)) / sqrt(var(x) + eps) * scale + bias."""

    eps: float
    axis_name: str = 'embed'

    @nn.compact
    def __call__(self, x: Float[Array, '... D']) -> Float[Array, '... D']:
        scale = _vector(self, 'scale', nn.initializers.ones, x.shape[-1])
        bias = _vector(self, 'bias', nn.initializers.zeros, x.shape[-1])
        wide = x.astype(jnp.float32)
        wide = wide - jnp.mean(wide, axis=-1, keepdims=True)
        wide = wide * jax.lax.rsqrt(jnp.mean(wide**2, axis=-1, keepdims=True) + self.eps)
        return (wide * scale + bias).astype(x.dtype)


def _vector(norm: nn.Module, name: str, init: Callable, size: int) -> Float[Array, ' D']:
    names = (norm.axis_name,)
    vector = norm.param(name, nn.with_logical_partitioning(init, names), (size,), jnp.float32)
    return gathered(vector, names, vector.dtype)


NORMS = {'rms': RMSNorm, 'rms_plus_one': functools.partial(RMSNorm, offset=1.0), 'layer': LayerNorm}
