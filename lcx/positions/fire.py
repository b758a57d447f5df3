"""FIRE: a small network of the distance, measured on a scale that grows with the query's position.

Li et al. 2024, "Functional Interpolation for Relative Positions Improves Long Context Transformers",
arXiv:2310.04418. For query position i and key position j,

    b = f(phi(|i - j|) / (phi(max(L, i)) + 1e-6)),    phi(x) = ln(|c| x + 1)

with f an MLP of one hidden layer (ReLU, W units) from one number to one bias for each head. Its argument lies in
[0, 1] however long the text is; below the threshold L = |m| ``threshold`` it depends on the distance alone. c, m
and f are learned. The constant that the authors' f adds to a head's biases is left out: softmax does not see it.
"""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp

from lcx.about import About
from lcx.errors import ConfigError
from lcx.positions.api import Position
from lcx.positions.distance import distance
from lcx.types import Array, Float, Tree, Where

ABOUT = About(
    paper='arXiv:2310.04418, Li et al. 2024',
    what='a learned function of the logarithmic distance relative to the position',
    trained='scratch',
    cost='an MLP for every pair: O(T S hidden N) per layer',
)


def fire(*, heads: int, hidden: int = 32, threshold: float = 512.0, rate: float = 0.1) -> Position:
    """FIRE with ``hidden`` units W; L and c start at ``threshold`` (tokens) and ``rate``, as in the paper.

    Raises:
      ConfigError: ``hidden``, ``threshold`` or ``rate`` is not a positive finite number.
    """
    for name, value in (('hidden', hidden), ('threshold', threshold), ('rate', rate)):
        if not 0 < value < math.inf:
            raise ConfigError(f'{name}: {value!r} must be a finite number greater than 0.')

    def init(key: Array) -> Tree:
        keys = jax.random.split(key, 3)

        def uniform(key: Array, shape: tuple[int, ...], inputs: int) -> Array:
            return jax.random.uniform(key, shape, minval=-1, maxval=1) * inputs**-0.5

        return {
            'rate': jnp.full((), rate),
            'threshold': jnp.ones(()),  # the multiplier m
            'first': {'kernel': uniform(keys[0], (hidden,), 1), 'bias': uniform(keys[1], (hidden,), 1)},
            'second': {'kernel': uniform(keys[2], (hidden, heads), hidden)},
        }

    def bias(params: Tree, where: Where) -> Float[Array, 'B N T S']:
        first, kernel = params['first'], params['second']['kernel'][:, where.heads]
        x = relative(params, distance(where), where.q_pos, threshold)[:, 0, ..., None]
        units = jax.nn.relu(x * first['kernel'] + first['bias'])
        return jnp.einsum('BTSW,WN->BNTS', units, kernel, precision='highest')

    return Position(init=init, bias=bias)


def relative(
    params: Tree, d: Float[Array, 'B 1 T S'], q_pos: Float[Array, 'B T'], threshold: float
) -> Float[Array, 'B 1 T S']:
    """``phi(d) / phi(max(L, i))``: from 0 at the query to 1 at the far end of a long text."""
    rate = jnp.abs(params['rate'])
    longest = jnp.maximum(jnp.abs(params['threshold']) * threshold, q_pos.astype(jnp.float32))
    return jnp.log1p(rate * d) / (jnp.log1p(rate * longest) + 1e-6)[:, None, :, None]
