"""Sequence parallelism: any attention over tokens that lie on many devices, exact, by a strategy's name.

    attend = shard('ring', {'name': 'blockwise'}, mesh, order='zigzag')
    out = attend(q, k, v, where, both(causal, same_segment))        # the contract of lcx.attention.api, global arrays

Tokens are sharded over the mesh axis ``axis``, batch rows over ``batch_axes`` and heads over ``head_axis``, as far as
the mesh has these. What tokens know of themselves travels in :class:`~lcx.types.Where`, so rules and biases see true
positions, and the order of tokens over devices is free (:mod:`lcx.parallel.orders`). With m bytes of k and v on a
device, n devices and G query heads per key head, a forward pass sends

    all_gather      (n - 1) m             holds k and v of all tokens, a layer at a time
    ring            (n - 1) m             a shard at a time, while it computes
    ulysses         (n - 1)/n (1 + G) m   needs n <= query heads
    ulysses_ring    between the two       n = u r: u devices exchange heads, rings of r
    halo            window / shard m      windows no longer than a shard, tokens in order

and what the backward pass keeps is what one device would keep, divided by n (more where Ulysses repeats key heads).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from lcx import config
from lcx.attention import api
from lcx.attention.masks import Rule
from lcx.errors import ConfigError, unknown
from lcx.parallel import orders
from lcx.parallel.gather import all_gather
from lcx.parallel.halo import halo
from lcx.parallel.kernel import Kernel, refuse
from lcx.parallel.line import Line
from lcx.parallel.ring import ring
from lcx.parallel.ulysses import spread, ulysses, ulysses_ring
from lcx.types import Array, Float, Tree, Where

Mesh = jax.sharding.Mesh | jax.sharding.AbstractMesh

STRATEGIES = {
    'all_gather': all_gather,
    'ring': ring,
    'ulysses': ulysses,
    'ulysses_ring': ulysses_ring,
    'halo': halo,
}

# What may be asked of a strategy, and what each cannot do of it, with the reason.
FEATURES = (
    'causal',
    'window',
    'window and sinks',
    'packed',
    'odd length',
    'fewer key heads than devices',
    'fewer query heads than devices',
    'bias',
    'learned bias, softcap, sink logits',
    'other orders',
    'kernels that know tokens by index',  # xla, cudnn, splash: query i is where key i is
)
CANNOT = {
    'all_gather': {'kernels that know tokens by index': 'NaN: queries stand elsewhere than keys'},
    'ring': {'kernels that know tokens by index': 'no log-sum-exp'},
    'ulysses': {'fewer query heads than devices': 'heads are exchanged whole'},
    'ulysses_ring': {'kernels that know tokens by index': 'no log-sum-exp'},
    'halo': {
        'causal': 'reads further than a shard',
        'other orders': 'the shard before must be the text before',
        'kernels that know tokens by index': 'NaN: queries stand elsewhere than keys',
    },
}


def table() -> str:
    """Strategies by features as GitHub Markdown; what is refused says why. The contract's rows prove it."""
    rows = [('', *(f'`{name}`' for name in STRATEGIES)), ('---',) * (1 + len(STRATEGIES))]
    rows += [(feature, *(CANNOT[name].get(feature, 'yes') for name in STRATEGIES)) for feature in FEATURES]
    return ''.join(f'| {" | ".join(row)} |\n' for row in rows)


def check(options: Mapping) -> None:
    """Raises ConfigError for an unknown strategy or option, before there are devices."""
    size = options.get('ulysses')
    line = Line.of(('context',), (size if type(size) is int and size > 0 else 1,))
    config.make(STRATEGIES, options, 'sequence', kernel=Kernel.of({'name': 'dense'}, False), line=line)


def check_order(order: str, name: str | None) -> None:
    """Raises ConfigError for an unknown order, UnsupportedError for one in which that strategy cannot work."""
    if order not in orders.ORDERS:
        raise ConfigError(unknown('order', order, orders.ORDERS))
    if order != 'contiguous' and 'other orders' in CANNOT.get(name, ()):
        able = [name for name in STRATEGIES if 'other orders' not in CANNOT[name]]
        why = f"{CANNOT[name]['other orders']}; 'contiguous' it can"
        refuse(name, f'order {order!r}', why, able)


class Layout(NamedTuple):
    """Which axes of a mesh share what of 'B T N H'."""

    mesh: Mesh
    batch: tuple[str, ...]
    tokens: tuple[str, ...]
    heads: str | None

    @classmethod
    def of(
        cls, mesh: Mesh | None, tokens: str | tuple[str, ...], batch: tuple[str, ...], heads: str | None
    ) -> Layout:
        """Raises ConfigError if there is no mesh, or none with the axes ``tokens``; others may be missing."""
        mesh = jax.sharding.get_abstract_mesh() if mesh is None else mesh
        if mesh.empty:
            raise ConfigError('mesh: none is given and none is in context; enter jax.set_mesh(mesh).')
        used = {*([tokens] if isinstance(tokens, str) else tokens), *batch, heads}
        for name, kind in zip(mesh.axis_names, mesh.axis_types):
            outer = kind == jax.sharding.AxisType.Manual and name not in used  # of a pipeline around this
            if kind != jax.sharding.AxisType.Auto and not outer:
                raise ConfigError(
                    f'mesh: axis {name!r} is {kind.name}; make it with axis_types=AxisType.Auto.'
                )
        tokens = (tokens,) if isinstance(tokens, str) else tuple(tokens)
        for name in tokens:
            if name not in mesh.shape:
                raise ConfigError(unknown('axis', name, mesh.shape))
        found = tuple(name for name in batch if name in mesh.shape)
        return cls(mesh, found, tokens, heads if heads in mesh.shape else None)

    def sizes(self, names: tuple[str, ...]) -> tuple[int, ...]:
        return tuple(self.mesh.shape[name] for name in names)

    def line(self) -> Line:
        return Line.of(self.tokens, self.sizes(self.tokens))

    def head_shards(self) -> int:
        return 1 if self.heads is None else self.mesh.shape[self.heads]

    def check(self, q: Array, k: Array) -> None:
        """Raises ConfigError naming both numbers and the nearest that go together."""
        (b, t, n, _), s = q.shape, k.shape[1]
        heads = () if self.heads is None else (self.heads,)
        padded = '; lcx.parallel.orders.arrange fills up with padding'
        for what, size, names, hint in (
            ('rows', b, self.batch, ''),
            ('query tokens', t, self.tokens, padded),
            ('key tokens', s, self.tokens, padded),
            ('query heads', n, heads, ''),
        ):
            devices = math.prod(self.sizes(names))
            if size % devices:
                raise ConfigError(
                    f'{what}: {size} over {devices} devices of mesh axis {", ".join(names)} do not come out even. '
                    f'Nearest: {orders.nearest(size, devices)}{hint}.'
                )


def shard(
    strategy: str | Mapping,
    attention: Mapping,
    mesh: Mesh | None = None,
    *,
    axis: str | tuple[str, ...] = 'context',
    batch_axes: tuple[str, ...] = ('data', 'fsdp'),
    head_axis: str | None = 'tensor',
    order: str = 'contiguous',
    lse: bool = False,
) -> api.Attend:
    """An :class:`~lcx.attention.api.Attend` of global arrays, by ``attention`` on every device.

    Args:
      strategy: a name of STRATEGIES, or ``{'name': 'ulysses_ring', 'ulysses': 2}``.
      attention: a name of ATTENTION with its options, as in a layer kind.
      mesh: with Auto axes; None is the mesh in context where the result is called. Over one device ``axis`` takes no
        strategy: rows and heads are shared all the same.
      axis: the mesh axis over which tokens are sharded, or several, the outermost first.
      order: in which tokens lie on the devices; they are not moved here, see :mod:`lcx.parallel.orders`.
      lse: the result gives ``(out, lse)``, as ``partial`` does.

    Raises:
      ConfigError: a name or option is unknown, or numbers and devices do not come out even; where the result is
        called.
      UnsupportedError: the strategy cannot do what is asked; the message names those that can.
    """
    options = {'name': strategy} if isinstance(strategy, str) else strategy
    check_order(order, options.get('name'))
    kernel = Kernel.of(attention, lse)

    def attend(
        q: Float[Array, 'B T N H'],
        k: Float[Array, 'B S K H'],
        v: Float[Array, 'B S K H'],
        where: Where,
        rule: Rule,
        bias: api.Bias | None = None,
        *,
        scale: float | None = None,
        softcap: float | None = None,
        sink_logits: Float[Array, ' N'] | None = None,
    ) -> Tree:
        api.check(q, k, v, where, rule, sink_logits)
        layout = Layout.of(mesh, axis, batch_axes, head_axis)
        layout.check(q, k)
        line, local = layout.line(), kernel.whole
        if line.size > 1:
            local = config.make(STRATEGIES, options, 'sequence', kernel=kernel, line=line)
        k, v = (spread(x, layout.head_shards()) for x in (k, v))

        def on_shard(q: Array, k: Array, v: Array, where: Where, bias: Any, sinks: Array | None) -> Tree:
            return local(q, k, v, where, rule, bias, scale=scale, softcap=softcap, sink_logits=sinks)

        arrays = (q, k, v, where, jax.tree.map(jnp.asarray, api.as_tree(bias)), sink_logits)
        return _over(layout, on_shard)(*arrays)

    return attend


def _over(layout: Layout, f: Callable) -> Callable:
    """``f`` of every device's part of ``(q, k, v, where, bias, sink_logits)``.

    What the types of shard_map would check is left out (``check_vma``): loops of kernels begin with constants.
    Gradients of what all devices share, tables of a bias and the like, are still added up by it.
    """
    rows, heads = jax.P(layout.batch, layout.tokens), jax.P(layout.heads)
    by_token = jax.P(layout.batch, layout.tokens, layout.heads)
    where = Where(rows, rows, rows, rows, heads)
    specs = (by_token, by_token, by_token, where, jax.P(), heads)
    mesh, auto = layout.mesh, jax.sharding.AxisType.Auto
    free = {name for name, kind in zip(mesh.axis_names, mesh.axis_types) if kind == auto}
    return jax.shard_map(f, mesh=mesh, axis_names=free, in_specs=specs, out_specs=by_token, check_vma=False)
