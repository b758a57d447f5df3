"""LoRA: low-rank adapters beside frozen linear maps (Hu et al. 2021, arXiv 2106.09685).

    y = x W + s (x A) B        s = alpha / rank, or alpha / sqrt(rank) (rsLoRA, arXiv 2312.03732)

B starts at zero, so the model starts as it is. W + s A B is never formed while training, and since only A and B are
differentiated, neither is a gradient of W.

A Linen interceptor adds the second term to every Projection that has adapters. They are a tree of their own with the
paths of the modules, 'layers/full_0/mixer/query/lora_a', which joins the parameters only for a call: what the scan
over depth, rematerialisation and chunks do with a module's kernel they then do with its adapters, each stacked on the
axis 'layers' like the kernel, and no module has to know of them.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import zlib
from collections.abc import Callable
from typing import Any, TypeVar

import flax.linen as nn
import jax
import jax.numpy as jnp

from lcx import config as configuration
from lcx.compress import leaves
from lcx.errors import ConfigError
from lcx.models import ModelConfig
from lcx.models import init as init_model
from lcx.models.linear import Projection, linear
from lcx.types import Array, Float, Tree

A, B = 'lora_a', 'lora_b'  # [layers] inputs R, and [layers] R outputs

F = TypeVar('F', bound=Callable)


@dataclasses.dataclass(frozen=True)
class LoraConfig:
    rank: int  # R
    alpha: float
    targets: tuple[str, ...]  # patterns of paths of linear maps, as lcx.compress.leaves.matches reads them
    rank_stabilised: bool = False

    def __post_init__(self) -> None:
        configuration.positive(self, 'rank', 'alpha')
        if not self.targets:
            raise ConfigError("targets: () adapts nothing; give patterns such as 'mixer/query'.")

    @property
    def scale(self) -> float:
        """The factor s of the adapters' product."""
        return self.alpha / (math.sqrt(self.rank) if self.rank_stabilised else self.rank)


def is_adapter(name: str) -> bool:
    """Whether a leaf of that name belongs to an adapter."""
    return name.rpartition('/')[2] in (A, B)


def projections(model: ModelConfig) -> dict[str, tuple[tuple[int, ...], tuple[int, ...]]]:
    """``path -> (inputs, outputs)`` of every linear map of a model, as its modules say themselves."""
    found = {}

    def record(call: Callable, args: tuple, kwargs: dict, context: nn.module.InterceptorContext) -> Any:
        if isinstance(context.module, Projection):
            found['/'.join(context.module.path)] = (context.module.inputs, context.module.outputs)
        return call(*args, **kwargs)

    with nn.intercept_methods(record):
        jax.eval_shape(lambda: init_model(model, jax.random.key(0)))
    return found


def init(config: LoraConfig, model: ModelConfig, params: Tree, key: Array) -> Tree:
    """Adapters for the linear maps of ``model`` that ``config.targets`` match; ``params`` are those of the model.

    A is uniform within 1 / sqrt(fan-in), as in the authors' code, and B zero. The numbers of an adapter depend on
    ``key`` and its path alone. Raises ConfigError where a pattern matches nothing.
    """
    maps, kernels = projections(model), leaves.named(params)
    leaves.check(config.targets, maps, 'tune.targets')
    adapters = {}
    for path, (inputs, outputs) in maps.items():
        if not leaves.matches(config.targets, path):
            continue
        kernel = kernels[f'{path}/kernel']
        stack = kernel.shape[: kernel.ndim - len(inputs) - len(outputs)]
        own, limit = jax.random.fold_in(key, zlib.crc32(path.encode())), math.prod(inputs) ** -0.5
        shape = (*stack, *inputs, config.rank)
        adapters[f'{path}/{A}'] = jax.random.uniform(own, shape, minval=-limit, maxval=limit)
        adapters[f'{path}/{B}'] = jnp.zeros((*stack, config.rank, *outputs))
    return leaves.nested(adapters)


def boxed(kernels: Tree, params: Tree) -> Tree:
    """Boxes with names of axes for ``params``, shapes with adapters among them, from those of the model alone.

    An adapter has the names of its kernel, and 'rank'.
    """
    known, given = leaves.named(kernels), leaves.named(params)

    def box(path: tuple, x: jax.ShapeDtypeStruct) -> Any:
        name = jax.tree_util.keystr(path, simple=True, separator='/')
        path, _, last = name.rpartition('/')
        if last not in (A, B):
            return known[name]
        names = known[f'{path}/kernel'].names
        inputs = given[f'{path}/{A}'].ndim - 1  # the stack's axes among them
        stack = inputs + given[f'{path}/{B}'].ndim - 1 - len(names)
        names = (*names[:inputs], 'rank') if last == A else (*names[:stack], 'rank', *names[inputs:])
        return nn.LogicallyPartitioned(x, names)

    return jax.tree.map_with_path(box, params)


def adapted(config: LoraConfig, f: F) -> F:
    """``f``, in which linear maps whose parameters have adapters beside the kernel use them."""

    def add(call: Callable, args: tuple, kwargs: dict, context: nn.module.InterceptorContext) -> Any:
        y, module = call(*args, **kwargs), context.module
        if not isinstance(module, Projection) or not module.has_variable('params', A):
            return y
        (x,), axes, names = args, len(module.inputs), module.names
        low = linear(x, module.get_variable('params', A), axes, (*names[:axes], 'rank'))
        return y + config.scale * linear(low, module.get_variable('params', B), 1, ('rank', *names[axes:]))

    @functools.wraps(f)
    def run(*args: Any, **kwargs: Any) -> Any:
        with nn.intercept_methods(add):
            return f(*args, **kwargs)

    return run


def merge(params: Tree, adapters: Tree, config: LoraConfig) -> Tree:
    """Parameters of a plain model that computes what base and adapters do: W + s A B, in fp32.

    To the rounding of fp32 it is the same model. With bfloat16 activations both round their matrices to 8 bits: the
    merged one loses changes below 1/256 of a weight, which base and adapters, multiplied separately, keep.
    """
    base, merged = leaves.named(params), {}
    found = leaves.named(adapters)
    for path in (name.removesuffix(f'/{A}') for name in found if name.endswith(f'/{A}')):
        kernel = base[f'{path}/kernel']
        merged[f'{path}/kernel'] = kernel + config.scale * _product(
            found[f'{path}/{A}'], found[f'{path}/{B}'], kernel.ndim
        ).astype(kernel.dtype)
    return leaves.nested(base | merged)


def _product(a: Float[Array, '... R'], b: Array, ndim: int) -> Array:
    """A B for stacks of adapters; ``ndim`` is the kernel's number of axes, which tells how many are stacked."""
    stack = a.shape[: a.ndim + b.ndim - 2 - ndim]
    inputs, outputs = a.shape[len(stack) : -1], b.shape[len(stack) + 1 :]
    rank = a.shape[-1]
    product = jnp.matmul(a.reshape(*stack, -1, rank), b.reshape(*stack, rank, -1), precision='highest')
    return product.reshape(*stack, *inputs, *outputs)
