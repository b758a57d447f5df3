"""What every cache policy keeps; a policy buys the suite with one row, of options with which it forgets nothing yet.

    class TestContract(CacheContract):
        rows = [Row('full'), Row('streaming', {'window': 5, 'sinks': 2})]

Where nothing is forgotten that the policy's model can read, a text read in pieces is the text read at once. The model
is a hybrid with a local kind of layer, grouped heads and a layer left over by the pattern.
"""

import functools
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from lcx.config import Options
from lcx.generate.policies import Room, held_bytes, make_policy
from lcx.models import LayerKind, ModelConfig
from lcx.models.decoder import Decoder
from tests.models.tiny import T, changed, parameters, random_batch

LOCAL = LayerKind(rule=(Options(name='causal'), Options(name='window', size=6)))
HYBRID = changed(layers=3, pattern=('full', 'local'), kinds={'full': LayerKind(), 'local': LOCAL})
PIECES = (10, 10, 1, 1, 1, 1)
PADDING = (0, 13)  # tokens of padding in front of each row: the second one begins in the second piece
LARGE = 2**18  # slots, of which a step reads a small part at a time


class Row(NamedTuple):
    """A policy with its options."""

    name: str
    options: Mapping[str, Any] = {}

    def make(self, room: Room):
        return make_policy({'name': self.name, **self.options}, room)


class CacheContract:
    """Inherit, and set ``rows``."""

    rows: list[Row]

    def pytest_generate_tests(self, metafunc):
        ids = lambda row: '-'.join(map(str, [row.name, *row.options.values()]))  # noqa: E731
        metafunc.parametrize('row', self.rows, ids=ids)

    def test_pieces_through_the_cache_are_the_whole_with_padding_and_one_program_for_each_size(self, row):
        policy = row.make(Room(prompt=20, new=4, chunk=10))
        model, texts = policy.model(HYBRID), padded()
        step = stepping(model)
        caches, found, before = policy.caches(model, batch=2), [], step._cache_size()
        for piece in pieces(texts, PIECES):
            hidden, caches = step(parameters(HYBRID), caches, *piece)
            found.append(hidden)
        real = np.arange(T) >= np.array(PADDING)[:, None]
        expected = whole(model)(parameters(HYBRID), *texts)
        np.testing.assert_allclose(np.concatenate(found, axis=1)[real], expected[real], atol=2e-5)
        assert step._cache_size() - before <= len(
            set(PIECES)
        )  # none, where another policy has the same caches

    def test_a_step_writes_in_place(self, row):
        """Besides caches and parameters it needs less memory than a copy of either of the two arrays."""
        policy = row.make(Room(prompt=LARGE, new=0, chunk=10))
        model = policy.model(HYBRID)
        caches = jax.eval_shape(lambda: policy.caches(model, batch=2))
        if held_bytes(caches) < 100_000:
            return  # holds little whatever the text
        token = (jax.ShapeDtypeStruct((2, 1), jnp.int32),) * 3
        memory = stepping(model).lower(parameters(HYBRID), caches, *token).compile().memory_analysis()
        largest = max(x.size * x.dtype.itemsize for x in jax.tree.leaves(caches))
        assert memory.temp_size_in_bytes < largest / 2


def padded():
    """Tokens, positions and segments of two texts, the second one shorter and to the right."""
    tokens, start = random_batch().tokens, np.array(PADDING)[:, None]
    real = np.arange(T) >= start
    return tokens, np.where(real, np.arange(T) - start, 0), real.astype(np.int32)


def pieces(texts, sizes):
    ends = np.cumsum(sizes)
    return [[x[:, end - size : end] for x in texts] for size, end in zip(sizes, ends)]


@functools.cache
def whole(model: ModelConfig):
    return jax.jit(lambda params, *text: Decoder(model).apply({'params': params}, *text))


@functools.cache
def stepping(model: ModelConfig):
    """``(params, caches, tokens, positions, segments) -> (hidden, caches)``, compiled."""
    decoder = Decoder(model, length=T)
    step = lambda params, caches, *piece: decoder.apply({'params': params}, *piece, caches)  # noqa: E731
    return jax.jit(step, donate_argnums=1)
