"""Dynamic NTK: the base of NTK-aware scaling follows the current length, beyond the original one.

emozilla 2023, "Dynamically Scaled RoPE", described in Peng et al. 2023, arXiv:2309.00071, section 3.3; the
formula is that of Hugging Face's 'dynamic':

    theta' = theta (factor n / original - (factor - 1))^(H/(H-2)),  f_k = theta'^(-2k/H)

for n = max(position) + 1 tokens beyond the original length, and RoPE (to fp32 rounding of f_k) up to it.

``factor`` is not the extension reached: at 1 the base is that of NTK-aware scaling by n / original, and a
larger factor stretches more, as if the text were ``1 + factor (n / original - 1)`` original lengths long.

The frequencies of every token depend on the length of its row: earlier tokens change when the text grows, and
a cache must hold keys before rotation. Each row of a batch has its own length, so that no row depends on its
neighbours (Hugging Face takes the longest of the batch, which agrees on rows of equal length). Padding must
not have positions beyond the real tokens of its row.
"""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np

from lcx.about import About
from lcx.positions import ntk, rope
from lcx.positions.api import Position
from lcx.positions.extension import stretch
from lcx.types import Array, Int

ABOUT = About(
    paper='arXiv:2309.00071, section 3.3, Peng et al. 2023; emozilla 2023',
    what='NTK-aware scaling by the current length',
    trained='none',
    cost='none',
    hf='dynamic',
)


def dynamic_ntk(
    *,
    head_dim: int,
    trained_length: int,
    theta: float = 10000.0,
    factor: float = 1.0,
    original_length: int | None = None,
    rotary_fraction: float = 1.0,
    interleaved: bool = False,
) -> Position:
    """Dynamic NTK beyond ``original_length`` (tokens; None: the trained length).

    Queries and keys of one attention must see the same length: the newest token's position has to be among
    the positions handed to both.

    Raises:
      ConfigError: as :func:`~lcx.positions.extension.stretch`, or ``head_dim`` is 2.
    """
    factor, original = stretch(factor, original_length, length=trained_length, trained_length=trained_length)
    dim = rope.rotating(head_dim, rotary_fraction)
    rope.check(dim, theta)
    ntk.power(dim)

    def current(pos: Int[Array, 'B T']) -> rope.Frequencies:
        length = jnp.max(pos, axis=-1, keepdims=True)[..., None] + 1
        return frequencies(dim, theta, factor, original, length)

    return rope.rotary(current, interleaved=interleaved)


def frequencies(
    head_dim: int, theta: float, factor: float, original_length: int, length: Int[Array, 'B 1 1']
) -> rope.Frequencies:
    """Frequencies at ``length`` tokens, traced; fp32 'B 1 P'."""
    # 1 + factor (n - original) / original is the formula's bracket, without cancellation in fp32.
    excess = jnp.maximum(length - original_length, 0).astype(jnp.float32) / original_length
    exponent = -np.arange(0, head_dim, 2) / head_dim * ntk.power(head_dim)
    fixed = rope.frequencies(head_dim, theta).inv_freq
    return rope.Frequencies(fixed.astype(np.float32) * (1 + factor * excess) ** exponent.astype(np.float32))
