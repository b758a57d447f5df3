"""What every position method keeps inside attention, whatever it is made of; a method buys the suite with one row.

    class TestContract(MethodContract):
        rows = [Row('rope'), Row('yarn', {'factor': 4.0}), ...]

A layer of attention is built by hand around the method: it embeds, turns queries and keys, sharpens and biases. Tokens
of one text then go through it at once and one by one, through dense and blockwise attention.
"""

import functools
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from lcx.attention import ATTENTION, both, causal, same_segment
from lcx.config import Options, make
from lcx.positions import POSITIONS, Position
from lcx.positions.api import sharpened
from lcx.types import Where
from tests.contracts.position_contract import CONTEXT, HEAD_DIM, drawn

T, N, WIDTH = 11, CONTEXT['heads'], CONTEXT['width']
RULE = both(causal, same_segment)
IMPLEMENTATIONS = {
    'dense': ATTENTION['dense'],
    'blockwise': functools.partial(ATTENTION['blockwise'], block=4),
}
LISTS = {
    'short_factor': (1.0,) * (HEAD_DIM // 2),
    'long_factor': tuple(1.0 + k for k in range(HEAD_DIM // 2)),
}


class Row(NamedTuple):
    """A method with its options."""

    name: str
    options: Mapping[str, Any] = {}

    def spelled(self) -> Options:
        return Options(name=self.name, **self.options)


class MethodContract:
    """Inherit, and set ``rows``."""

    rows: list[Row]

    def pytest_generate_tests(self, metafunc):
        ids = lambda row: '-'.join(map(str, [row.name, *row.options.values()]))  # noqa: E731
        metafunc.parametrize('row', self.rows, ids=ids)

    def test_dense_and_blockwise_attention_agree_with_gradients(self, row):
        params, x, pos = given(row)
        dense, blockwise = whole(row.spelled())(params, x, pos, jnp.ones_like(pos, jnp.int32))
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=2e-5), blockwise, dense)
        tables = jax.tree.leaves(dense[1][0])
        assert len(tables) == len(jax.tree.leaves(params))
        assert all(np.any(np.abs(x) > 1e-5) for x in tables)

    def test_no_token_sees_its_successors(self, row):
        """Changing the second half leaves the first: also where positions are drawn, which must never be equal."""
        params, x, pos = given(row)
        changed = x.at[:, T // 2 :].set(-x[:, T // 2 :])
        run, segments = whole(row.spelled()), jnp.ones_like(pos, jnp.int32)
        for (before, _), (after, _) in zip(
            run(params, x, pos, segments), run(params, changed, pos, segments)
        ):
            np.testing.assert_array_equal(before[:, : T // 2], after[:, : T // 2])
            assert np.all(np.any(before[:, T // 2 :] != after[:, T // 2 :], axis=-1))

    def test_decoding_with_a_cache_is_the_full_forward(self, row):
        """The newest token's output, from a cache of keys, is that of the whole text so far.

        A cache holds keys as they came to be rotated, or, where the method follows the length, before rotation.
        """
        params, x, pos = given(row)
        texts = [jnp.where(jnp.arange(T) <= last, 1, 0)[None] for last in range(T)]
        step, cache = stepping(row.spelled()), (jnp.zeros((1, T, N, HEAD_DIM)),) * 2
        for last, segments in enumerate(texts):
            seen = jnp.where(segments, pos, 0)
            found, cache = step(params, x, seen, segments, cache, last)
            expected = whole(row.spelled())(params, x, seen, segments)
            for one, (out, _) in zip(found, expected, strict=True):
                np.testing.assert_allclose(one[:, 0], out[:, last], atol=2e-5)


def given(row: Row):
    """Parameters, vectors 'B T D' of one text and its positions: drawn ones if the method draws."""
    position = made(row.spelled())
    x = jax.random.normal(jax.random.key(1), (1, T, WIDTH))
    pos = jnp.arange(T)[None]
    return drawn(position), x, pos if position.remap is None else position.remap(jax.random.key(2), pos, True)


@functools.cache
def made(options: Options) -> Position:
    return make(POSITIONS, options, 'model.position', **CONTEXT)


def projected(position: Position, params, x, pos):
    """Queries, keys and values of embedded vectors 'B T D', before rotation."""
    if position.embed is not None:
        x = x + position.embed(params, pos)
    matrices = jax.random.normal(jax.random.key(3), (3, WIDTH, N, HEAD_DIM)) * WIDTH**-0.5
    return jnp.einsum('BTD,IDNH->IBTNH', x, matrices, precision='highest')


def turned(turn, params, x, pos):
    return x if turn is None else turn(params, x, pos)


def attended(attend, position: Position, params, q, k, v, where: Where):
    bias = None if position.bias is None else jax.tree_util.Partial(position.bias, params)
    return attend(q, k, v, where, RULE, bias)


@functools.cache
def whole(options: Options):
    """``(params, x, pos, segments) -> (out, gradients by params and x)`` of each implementation, compiled."""
    position = made(options)
    weights = jax.random.normal(jax.random.key(4), (1, T, N, HEAD_DIM))

    def loss(attend, params, x, pos, segments):
        q, k, v = projected(position, params, x, pos)
        q = turned(position.query, params, sharpened(position, params, q, pos), pos)
        k = turned(position.key, params, k, pos)
        where = Where.self_attention(pos, segments, N)
        out = attended(attend, position, params, q, k, v, where)
        return jnp.sum(out * weights), out

    def run(params, x, pos, segments):
        found = []
        for attend in IMPLEMENTATIONS.values():
            slopes, out = jax.grad(loss, argnums=(1, 2), has_aux=True)(attend, params, x, pos, segments)
            found.append((out, slopes))
        return found

    return jax.jit(run)


@functools.cache
def stepping(options: Options):
    """``(params, x, pos, segments, cache, last) -> (outs, cache)``: one token through each implementation, compiled."""
    position = made(options)
    early = position.static and not position.widens  # a cache holds keys as they are read

    def step(params, x, pos, segments, cache, last):
        here = jax.lax.dynamic_slice_in_dim(pos, last, 1, axis=1)
        q, k, v = projected(position, params, jax.lax.dynamic_slice_in_dim(x, last, 1, axis=1), here)
        q = turned(position.query, params, sharpened(position, params, q, here), here)
        k = turned(position.key, params, k, here) if early else k
        keys, values = (jax.lax.dynamic_update_slice_in_dim(c, new, last, 1) for c, new in zip(cache, (k, v)))
        seen = keys if early else turned(position.key, params, keys, pos)
        where = Where(here, pos, jnp.ones_like(here, jnp.int32), segments, jnp.arange(N))
        found = [attended(a, position, params, q, seen, values, where) for a in IMPLEMENTATIONS.values()]
        return found, (keys, values)

    return jax.jit(step)
