"""KERPLE: scores fall with a learned kernel of the distance, a logarithm or a power.

Chi et al. 2022, "KERPLE: Kernelized Relative Positional Embedding for Length Extrapolation",
arXiv:2205.09921. For the distance d and two learned numbers r1, r2 of each head:

    log     b = -r1 ln(1 + r2 d)      r1, r2 > 0
    power   b = -r1 d^r2              r1 > 0, 0 < r2 < 2

Where the authors clamp after every step, the constraints hold by construction here: positive numbers are
softplus of the parameter, the exponent is 2 sigmoid of it. They start uniform as in the authors' code. Power
with r2 = 1 is ALiBi with learned slopes.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from lcx.about import About
from lcx.errors import ConfigError, unknown
from lcx.positions.api import Position
from lcx.positions.distance import distance
from lcx.types import Array, Float, Tree, Where

ABOUT = About(
    paper='arXiv:2205.09921, Chi et al. 2022',
    what='scores fall with a learned logarithm (or power) of the distance',
    trained='scratch',
    cost='a bias: O(T S) logarithms per layer',
)

LEAST = 0.01  # what r1 and r2 start above


def kerple(*, heads: int, kernel: str = 'log') -> Position:
    """KERPLE; ``kernel`` is log (the paper's best) or power.

    Raises:
      ConfigError: the kernel is unknown.
    """
    if kernel not in KERNELS:
        raise ConfigError(unknown('kernel', kernel, KERNELS))
    init, compute = KERNELS[kernel]

    def bias(params: Tree, where: Where) -> Float[Array, 'B N T S']:
        by_head = {name: value[where.heads][:, None, None] for name, value in params.items()}
        return compute(by_head, distance(where))

    return Position(init=lambda key: init(key, heads), bias=bias)


def init_log(key: Array, heads: int) -> Tree:
    """r1 uniform up to 2, r2 up to 1."""
    first, second = jax.random.uniform(key, (2, heads), minval=LEAST)
    return {'slope': softplus_inverse(2 * first), 'rate': softplus_inverse(second)}


def log(params: Tree, d: Float[Array, 'B 1 T S']) -> Float[Array, 'B N T S']:
    """``-r1 ln(1 + r2 d)``."""
    return -jax.nn.softplus(params['slope']) * jnp.log1p(jax.nn.softplus(params['rate']) * d)


def init_power(key: Array, heads: int) -> Tree:
    """r1 uniform up to 1, r2 up to 2."""
    first, second = jax.random.uniform(key, (2, heads), minval=LEAST, maxval=1 - LEAST)
    return {'slope': softplus_inverse(first), 'exponent': jnp.log(second) - jnp.log1p(-second)}


def power(params: Tree, d: Float[Array, 'B 1 T S']) -> Float[Array, 'B N T S']:
    """``-r1 d^r2``; at d = 0, where the derivative by r2 is 0 ln 0, both are 0."""
    raised = jnp.where(d > 0, d, 1) ** (2 * jax.nn.sigmoid(params['exponent']))
    return -jax.nn.softplus(params['slope']) * jnp.where(d > 0, raised, 0)


KERNELS = {'log': (init_log, log), 'power': (init_power, power)}


def softplus_inverse(x: Float[Array, ' N']) -> Float[Array, ' N']:
    """The parameter whose softplus is ``x``."""
    return x + jnp.log(-jnp.expm1(-x))
