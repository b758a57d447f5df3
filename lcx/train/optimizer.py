"""Optimizers by name: gradient clipping by global norm, then the method, at a scheduled rate."""

from __future__ import annotations

from collections.abc import Callable

import jax
import optax

from lcx.types import Array, Tree


def decayed(params: Tree) -> Tree:
    """True for matrices and tables, False for norms and biases: what weight decay touches."""
    return jax.tree_util.tree_map_with_path(
        lambda path, _: jax.tree_util.keystr(path[-1:], simple=True) not in ('scale', 'bias'), params
    )


def adamw(
    rate: Callable[[Array], Array], *, beta1: float, beta2: float, weight_decay: float
) -> optax.GradientTransformation:
    """AdamW (arXiv 1711.05101), moments in fp32."""
    return optax.adamw(rate, b1=beta1, b2=beta2, weight_decay=weight_decay, mask=decayed)


OPTIMIZERS = {'adamw': adamw}


def optimizer(
    name: str, rate: Callable[[Array], Array], *, beta1: float, beta2: float, weight_decay: float, clip: float
) -> optax.GradientTransformation:
    """The chain that the train step applies. Its state has the same shape for every stage of a run."""
    method = OPTIMIZERS[name](rate, beta1=beta1, beta2=beta2, weight_decay=weight_decay)
    return optax.chain(optax.clip_by_global_norm(clip), method)
