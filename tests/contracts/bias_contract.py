"""What every bias keeps; a bias buys the suite with one row.

    class TestContract(BiasContract):
        rows = [Row('alibi', lambda params, q, k: ...), ...]

A row holds the published formula in NumPy float64, written apart from the code under test: values are compared with
it, and gradients with its central differences.
"""

import functools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from lcx.config import Options, make
from lcx.models import LayerKind
from lcx.positions import POSITIONS
from lcx.types import Where
from tests.contracts.position_contract import CONTEXT, drawn
from tests.models.tiny import changed, close, gradient, packed_batch, parameters, separate_batch

N = CONTEXT['heads']
SHARD = [2, 0]  # the heads of one device
NEAR = np.array([[0, 40, 3, 17, 64, 65, 1, 131], [5, 4, 3, 2, 0, 9, 201, 7]])


class Row(NamedTuple):
    """A bias with its options, and what it declares."""

    name: str
    formula: Callable  # (params, q 'T 1', k '1 S') -> 'N T S', float64, for pairs with q >= k
    options: Mapping[str, Any] = {}
    learned: bool = True
    relative: bool = True  # depends on the distance alone
    atol: float = 2e-5

    def spelled(self) -> Options:
        return Options(name=self.name, **self.options)


class BiasContract:
    """Inherit, and set ``rows``."""

    rows: list[Row]

    def pytest_generate_tests(self, metafunc):
        ids = lambda row: '-'.join(map(str, [row.name, *row.options.values()]))  # noqa: E731
        metafunc.parametrize('row', self.rows, ids=ids)

    def test_values_are_the_formula(self, row):
        for shift in (0, 1000, 2**17, 2**30):
            found, expected = both(row, NEAR + shift)
            np.testing.assert_allclose(found, expected, rtol=2e-5, atol=row.atol)

    def test_fractional_positions_are_the_formula(self, row):
        found, expected = both(row, (NEAR / 4).astype(np.float32))
        np.testing.assert_allclose(found, expected, rtol=2e-5, atol=row.atol)

    def test_gradients_are_the_formulas_differences(self, row):
        position, _, params = made(row.spelled())
        weights = np.random.default_rng(1).normal(size=(N, *NEAR.shape[1:] * 2))
        seen = NEAR[0][:, None] >= NEAR[0]

        def exact(params):
            return np.sum((weights * pairs(row, params, NEAR[0]))[:, seen])

        def bias(params):
            return jnp.sum((weights * position.bias(params, where(NEAR[:1]))[0])[:, seen])

        slopes = jax.tree.leaves(jax.jit(jax.grad(bias))(params))
        assert bool(slopes) == row.learned and all(np.all(np.isfinite(x)) for x in slopes)
        for leaf, slope in enumerate(slopes):
            expected = differences(exact, jax.tree.map(np.float64, params), leaf)
            np.testing.assert_allclose(
                np.ravel(slope), expected, rtol=1e-4, atol=1e-4 * np.abs(expected).max()
            )

    def test_blocks_and_shards_of_heads_are_parts_of_the_whole(self, row):
        _, bias, params = made(row.spelled())
        whole = where(NEAR)
        found = bias(params, whole)
        assert found.shape == (2, N, *NEAR.shape[1:] * 2) and found.dtype == jnp.float32
        block = whole._replace(q_pos=NEAR[:, 2:5], k_pos=NEAR[:, 3:], heads=jnp.array(SHARD))
        np.testing.assert_allclose(bias(params, block), found[:, SHARD, 2:5, 3:], rtol=1e-5, atol=row.atol)

    def test_depends_on_the_distance_alone_as_declared(self, row):
        _, bias, params = made(row.spelled())
        near, far = (bias(params, where(NEAR + shift)) for shift in (0, 2**17))
        seen = np.broadcast_to((NEAR[:, :, None] >= NEAR[:, None])[:, None], near.shape)
        near, far = np.array(near), np.array(far)
        assert np.allclose(near[seen], far[seen], atol=2 * row.atol) == row.relative

    def test_all_attention_gives_the_same_loss_and_gradients(self, row):
        dense, blockwise = (
            changed(kinds={'full': LayerKind(attention=Options(attention))}, position=row.spelled())
            for attention in ({'name': 'dense'}, {'name': 'blockwise', 'block': 8})
        )
        params = parameters(dense)
        if row.learned:
            params = {**params, 'position_full': drawn(dense.read_position('full', dense.trained_length))}
        expected = gradient(dense)(params, packed_batch())
        close(gradient(blockwise)(params, packed_batch()), expected, atol=3e-5)
        close(gradient(blockwise)(params, separate_batch()), expected, atol=3e-5)
        tables = jax.tree.leaves(expected[1].get('position_full', {}))
        assert bool(tables) == row.learned and all(np.any(np.abs(x) > 1e-4) for x in tables)

    def test_fresh_tables_are_finite_and_differ_with_the_key(self, row):
        position, bias, _ = made(row.spelled())
        first, second = (position.init(jax.random.key(seed)) for seed in (0, 1))
        assert bool(jax.tree.leaves(first)) == row.learned
        biases = [bias(params, where(NEAR)) for params in (first, second)]
        assert np.all(np.isfinite(biases[0])) and np.any(biases[0])
        assert np.allclose(*biases) != row.learned


@functools.cache
def made(options: Options) -> tuple:
    """``(position, bias, params)``: the method, its bias compiled, and parameters for it."""
    position = make(POSITIONS, options, 'model.position', **CONTEXT)
    return position, jax.jit(position.bias), drawn(position)


def where(positions) -> Where:
    return Where.self_attention(jnp.asarray(positions), jnp.ones(positions.shape, jnp.int32), N)


def pairs(row: Row, params, positions):
    """The formula for all pairs of one row's ``positions``, 'N T S'."""
    exact = np.float64(positions)
    return row.formula(params, exact[:, None], exact[None])


def both(row: Row, positions):
    """The bias and the formula, at all pairs a decoder sees."""
    _, bias, params = made(row.spelled())
    found = bias(params, where(positions))
    expected = np.stack([pairs(row, jax.tree.map(np.float64, params), p) for p in positions])
    seen = (positions[:, :, None] >= positions[:, None])[:, None]
    seen = np.broadcast_to(seen, expected.shape)
    return np.array(found)[seen], expected[seen]


def differences(function: Callable, params, leaf: int, step: float = 1e-6):
    """Central differences of ``function`` by every number of one leaf of ``params``."""
    leaves, tree = jax.tree.flatten(params)
    found = []
    for i in range(leaves[leaf].size):
        ends = []
        for sign in (1, -1):
            moved = leaves[leaf].copy().reshape(-1)
            moved[i] += sign * step
            changed = [*leaves[:leaf], moved.reshape(leaves[leaf].shape), *leaves[leaf + 1 :]]
            ends.append(function(tree.unflatten(changed)))
        found.append((ends[0] - ends[1]) / (2 * step))
    return np.array(found)
