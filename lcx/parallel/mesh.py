"""The mesh of devices: five axes, each a way to divide an experiment, and what their sizes must divide.

    data      rows of the batch; every device has all parameters
    fsdp      rows of the batch, and the parameters too (ZeRO-3, arXiv 1910.02054)
    context   tokens of each row (lcx.parallel.sequence)
    tensor    heads, hidden units and vocabulary (arXiv 1909.08053)
    stage     layers (a pipeline, arXiv 1811.06965)

mesh = make(MeshConfig(fsdp=-1, tensor=2), jax.devices())
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Mapping, Sequence

import jax

from lcx.errors import ConfigError, unknown
from lcx.parallel import orders

AXES = ('data', 'fsdp', 'context', 'tensor', 'stage')
REST = -1  # as a size: what the other axes leave of the devices
OPEN = ('data', 'fsdp')  # the axes that may be so


@dataclasses.dataclass(frozen=True)
class MeshConfig:
    """How many devices lie along each axis, and how the tokens of a row lie over them."""

    data: int = 1
    fsdp: int = 1
    context: int = 1
    tensor: int = 1
    stage: int = 1
    order: str = 'zigzag'  # of the tokens over context (lcx.parallel.orders)

    def __post_init__(self) -> None:
        if self.order not in orders.ORDERS:
            raise ConfigError(unknown('order', self.order, orders.ORDERS))
        for name, size in self.given.items():
            if size < 1 and not (size == REST and name in OPEN):
                rest = f', or {REST} for what the other axes leave' if name in OPEN else ''
                raise ConfigError(f'{name}: {size} must be at least 1{rest}. Nearest: 1.')

    @property
    def given(self) -> dict[str, int]:
        """The sizes as they were given, in the order of the mesh; where two are open, ``data`` is 1."""
        sizes = {name: getattr(self, name) for name in AXES}
        return sizes | {'data': 1} if sizes['data'] == sizes['fsdp'] == REST else sizes

    def sizes(self, devices: int) -> dict[str, int]:
        """The sizes on that many devices, in the order of the mesh.

        Raises:
          ConfigError: they do not multiply to ``devices``; the message has the nearest that do.
        """
        sizes, others = self.given, math.prod(size for size in self.given.values() if size != REST)
        if REST in sizes.values():
            open_axis = next(name for name in OPEN if sizes[name] == REST)
            if devices % others == 0:
                return sizes | {open_axis: devices // others}
            sizes[open_axis] = max(1, round(devices / others))
            what = f'{_words(self.given)} leaves {devices} / {others} devices to {open_axis}'
        elif others == devices:
            return sizes
        else:
            what = f'{_words(sizes)} multiplies to {others}, but there are {devices} devices'
        raise ConfigError(f'mesh: {what}. Nearest: {_words(_nearest(sizes, devices))}.')


def make(config: MeshConfig, devices: Sequence[jax.Device]) -> jax.sharding.Mesh:
    """The mesh of these devices, all axes Auto: the compiler finds what is to be sent. Raises ConfigError."""
    sizes = tuple(config.sizes(len(devices)).values())
    return jax.make_mesh(sizes, AXES, axis_types=_auto(), devices=devices)


def abstract(config: MeshConfig, devices: int) -> jax.sharding.AbstractMesh:
    """The same mesh of that many devices that are not there. Raises ConfigError."""
    return jax.sharding.AbstractMesh(tuple(config.sizes(devices).values()), AXES, _auto())


def share(
    mesh: Mapping[str, int], field: str, size: int, axes: Iterable[str], pieces: int = 1, why: str = ''
) -> int:
    """What one device has of ``size`` that ``axes`` divide, in ``pieces`` equal ones on each device.

    Args:
      mesh: sizes by axis, those of axes that are missing being 1; ``Mesh.shape`` is one.
      field: names ``size`` in the message.
      why: the reason for several pieces, in the message.

    Raises:
      ConfigError: it does not come out even; names both numbers, the nearest sizes that do and, of one axis, its
        nearest size.
    """
    by = {name: mesh.get(name, 1) for name in axes}
    count = math.prod(by.values())
    if size % (count * pieces) == 0:
        return size // count
    over = ' x '.join(f'mesh.{name}={n}' for name, n in by.items())
    times = f' x {pieces} {why}' if pieces > 1 else ''
    hint = f'{field} {orders.nearest(size, count * pieces)}'
    fits = [n for n in range(1, size + 1) if size % (n * pieces) == 0]
    if len(by) == 1 and fits:
        hint += f', or mesh.{next(iter(by))} {min(fits, key=lambda n: abs(math.log(n / count)))}'
    raise ConfigError(f'{field}: {size} is no multiple of {over}{times}. Nearest: {hint}.')


def _auto() -> tuple:
    return (jax.sharding.AxisType.Auto,) * len(AXES)


def _words(sizes: Mapping[str, int]) -> str:
    """The axes that are no 1: 'data=2 x fsdp=4'."""
    return ' x '.join(f'{name}={size}' for name, size in sizes.items() if size != 1) or 'data=1'


def _nearest(sizes: Mapping[str, int], devices: int) -> dict[str, int]:
    """The sizes of that product that differ in the fewest axes, and then by the smallest factors."""

    def distance(found: tuple[int, ...]) -> tuple[int, float]:
        pairs = list(zip(found, sizes.values()))
        return sum(a != b for a, b in pairs), sum(abs(math.log(a / b)) for a, b in pairs)

    return dict(zip(sizes, min(_factorings(devices, len(sizes)), key=distance)))


def _factorings(n: int, count: int) -> Iterable[tuple[int, ...]]:
    """All ordered factorings of ``n`` into ``count`` factors, large first ones first."""
    if count == 1:
        yield (n,)
        return
    for first in (d for d in range(n, 0, -1) if n % d == 0):
        for rest in _factorings(n // first, count - 1):
            yield (first, *rest)
