"""What chosen heads attend to in one text: a picture of their probabilities, and sums over all of its queries.

The text is read in pieces through a cache that holds all of it (:class:`Probe`), and after each piece the
probabilities of its queries are made once more, a block of keys at a time, from queries and keys as the layer turned
them: with rule, regions, bias and softcap. What is kept of a head is a picture of at most CELLS x CELLS numbers, means
over the pairs of query and key in each cell, and a few sums; T x T probabilities never exist.

    mass      by distance t - s in tokens: 0, 1, 2-3, 4-7, ... up to the length; the first tokens are left out
    first     mass on the first FIRST tokens: attention sinks (arXiv:2309.17453, Xiao et al. 2023)
    entropy   -sum p ln p, nats

Each is a mean over queries, so that mass and first sum to 1.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from lcx.attention import cached
from lcx.errors import ConfigError
from lcx.generate.policies import Policy
from lcx.generate.ring import Ring, Slots
from lcx.models import ModelConfig
from lcx.models.cache import Caches, Entry, Shape
from lcx.models.decoder import Decoder
from lcx.types import PADDING, Array, Float, Int, Tree

CELLS = 512  # of a picture's side, at most
PIECE = 256  # tokens read at a time, about
FIRST = 4


class Sums(NamedTuple):
    """Of the layers A that were asked for, over queries so far."""

    picture: Float[Array, 'A N C C']
    mass: Float[Array, 'A N D']
    first: Float[Array, 'A N']
    entropy: Float[Array, 'A N']


class State(NamedTuple):
    """A ring's state, and what was found; ``index`` is the place of each layer in the sums, -1 if not asked for."""

    slots: Slots
    index: Int[Array, ' L']
    sums: Sums


class Found(NamedTuple):
    """Of one layer; see the module."""

    picture: np.ndarray  # float32 [N, C, C]
    mass: np.ndarray  # float32 [N, D]
    first: np.ndarray  # float32 [N]
    entropy: np.ndarray  # float32 [N]


@dataclasses.dataclass(frozen=True)
class Probe:
    """A ring of a whole text of one row, which sums up the probabilities of ``heads`` in ``layers``."""

    layers: tuple[int, ...]
    heads: tuple[int, ...]
    length: int  # tokens of the text

    @property
    def stride(self) -> int:
        """Tokens in the side of a cell."""
        return -(-self.length // CELLS)

    @property
    def cells(self) -> int:
        """In the side of a picture."""
        return -(-self.length // self.stride)

    @property
    def piece(self) -> int:
        """Tokens read at a time: whole cells."""
        return self.stride * min(max(1, PIECE // self.stride), self.cells)

    @property
    def ring(self) -> Ring:
        """Slot i is that of token i: whole pieces, and no piece starts over."""
        return Ring(-(-self.length // self.piece) * self.piece)

    def init(self, shape: Shape, dtype: jnp.dtype) -> State:
        mine = [layer for layer in shape.layers if layer in self.layers]
        index = jnp.array([mine.index(n) if n in mine else -1 for n in shape.layers], jnp.int32)
        count, side = (len(mine), len(self.heads)), self.ring.newest // self.stride
        sums = ((*count, side, side), (*count, len(edges(self.length)) - 1), count, count)
        return State(self.ring.init(shape, dtype), index, Sums(*map(jnp.zeros, sums)))

    def begin(self, state: State, pos: Int[Array, 'B T'], seg: Int[Array, 'B T']) -> State:
        return state._replace(slots=self.ring.begin(state.slots, pos, seg))

    def write(self, state: State, layer: Array, new: Entry) -> State:
        return state._replace(slots=self.ring.write(state.slots, layer, new))

    def blocks(self, state: State, layer: Array) -> cached.Blocks:
        return self.ring.blocks(state.slots, layer)

    def positions(self, state: State) -> Int[Array, 'B S']:
        return self.ring.positions(state.slots)

    def settle(self, state: State, layer: Array, new: Entry, received: cached.Received) -> State:
        if not state.sums.first.shape[0]:
            return state
        place = state.index[layer]
        add = lambda sums: self._added(sums, place, state.slots.start, received)  # noqa: E731
        return state._replace(sums=jax.lax.cond(place >= 0, add, lambda sums: sums, state.sums))

    def _added(self, sums: Sums, place: Array, start: Array, received: cached.Received) -> Sums:
        """``sums`` with those of the queries of tokens ``start``, ``start`` + 1, ..., by one pass over their keys."""
        size = received.query.pos.shape[1]
        at = cached.probabilities(received.query, received.lse, received.cache, size)
        queries = start + jnp.arange(size)
        bounds = jnp.array(edges(self.length))

        def block(j: Array, sums: Sums) -> Sums:
            p, keys = at(j), j * size + jnp.arange(size)
            p = p.reshape(-1, size, size)[
                jnp.array(self.heads)
            ]  # 'N T S': of a key head its heads, then queries
            far = queries[:, None] - keys
            bucket = jnp.where(keys < FIRST, -1, jnp.searchsorted(bounds, far, side='right') - 1)
            within = jax.nn.one_hot(bucket, sums.mass.shape[2])
            cells = p.reshape(len(self.heads), size // self.stride, self.stride, -1, self.stride).sum((2, 4))
            corner = place, 0, start // self.stride, j * (size // self.stride)
            drawn = jax.lax.dynamic_slice(sums.picture, corner, (1, *cells.shape)) + cells
            return Sums(
                jax.lax.dynamic_update_slice(sums.picture, drawn, corner),
                sums.mass.at[place].add(jnp.einsum('NTS,TSD->ND', p, within)),
                sums.first.at[place].add(jnp.sum(jnp.where(keys < FIRST, p, 0), axis=(1, 2))),
                sums.entropy.at[place].add(jnp.sum(jax.scipy.special.entr(p), axis=(1, 2))),
            )

        return jax.lax.fori_loop(0, -(-received.cache.used // size), block, sums)


def edges(length: int) -> list[int]:
    """0, 1, 2, 4, ...: bucket i is of the distances from edge i up to the next one, exclusive."""
    return [0, *(1 << i for i in range((length - 1).bit_length() + 1))]


def check(model: ModelConfig, layers: Sequence[int]) -> None:
    """Raises ConfigError for a layer whose mixer has other probabilities than attention."""
    for layer in layers:
        mixer = model.kinds[model.depth[layer]].mixer['name']
        if mixer != 'attention':
            raise ConfigError(
                f'--layers: the mixer of {layer} is {mixer!r}; only attention can be looked at.'
            )


def look(
    model: ModelConfig,
    params: Tree,
    tokens: Int[Array, ' T'],
    positions: Array,
    layers: Sequence[int],
    heads: Sequence[int],
) -> dict[int, Found]:
    """What ``heads`` of ``layers`` attend to in ``tokens`` at ``positions``, by layer; raises as :func:`check`."""
    check(model, layers)
    length = len(tokens)
    probe = Probe(tuple(layers), tuple(heads), length)
    fill = probe.ring.newest - length
    text = [np.pad(x, (0, fill))[None] for x in (tokens, positions)]
    text.append(np.pad(np.ones(length, np.int32), (0, fill), constant_values=PADDING)[None])
    caches = jax.jit(functools.partial(_read, model, probe))(params, text)
    found = {}
    for numbers, cache in zip(_numbers(model), (*caches.layers, *caches.rest), strict=True):
        sums = jax.tree.map(np.asarray, cache.state.sums)
        asked = [n for n in numbers if n in probe.layers]
        found |= {n: _means(Sums(*(x[i] for x in sums)), probe) for i, n in enumerate(asked)}
    return {layer: found[layer] for layer in layers}


def _read(model: ModelConfig, probe: Probe, params: Tree, text: Sequence[Array]) -> Caches:
    """The caches after the whole text; compiled as one program."""
    decoder = Decoder(model, length=probe.length)

    def step(i: Array, caches: Caches) -> Caches:
        piece = (jax.lax.dynamic_slice_in_dim(x, i * probe.piece, probe.piece, axis=1) for x in text)
        return decoder.apply({'params': params}, *piece, caches)[1]

    caches = Policy(lambda reach: probe).caches(model, batch=1).until(jnp.max(text[1], axis=1))
    return jax.lax.fori_loop(0, probe.ring.newest // probe.piece, step, caches)


def _numbers(model: ModelConfig) -> list[range]:
    """Those of the layers that share a cache, in the order of the caches."""
    count, scanned = len(model.pattern), model.layers - model.rest
    repeated = [range(i, scanned, count) for i in range(count if model.repeats else 0)]
    return [*repeated, *(range(n, n + 1) for n in range(scanned, model.layers))]


def _means(sums: Sums, probe: Probe) -> Found:
    """Of one layer, from sums over the text."""
    counts = np.full(probe.cells, probe.stride)
    counts[-1] = probe.length - (probe.cells - 1) * probe.stride
    picture = sums.picture[:, : probe.cells, : probe.cells] / np.outer(counts, counts)
    return Found(picture.astype(np.float32), *(x / probe.length for x in sums[1:]))
