"""What every position method keeps; a method buys the suite with one row.

    class TestContract(PositionContract):
        rows = [Row('rope'), Row('yarn', {'factor': 4.0}, relative=True, ...), ...]

A row declares what the method can do, and the suite holds it to that in both directions.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lcx.config import make
from lcx.positions import POSITIONS, Position
from lcx.positions.api import sharpened
from lcx.positions.rope import Frequencies

HEAD_DIM, TRAINED, LENGTH = 16, 64, 256
CONTEXT = {'head_dim': HEAD_DIM, 'length': LENGTH, 'trained_length': TRAINED, 'heads': 3, 'width': 48}
B, T, N = 2, 8, 3


class Row(NamedTuple):
    """A method with its options, and what it declares."""

    name: str
    options: Mapping[str, Any] = {}
    neutral: (
        Mapping[str, Any] | None
    ) = {}  # at which it equals its base up to the trained length; None: at none
    base: str = 'rope'
    frequencies: Callable[[int], Frequencies] | None = (
        None  # of the options, at a current length; None: no angles
    )
    gain: Callable | None = (
        None  # (params, pos) -> 'B T N|1 P', float64: what queries grow by besides turning
    )
    relative: bool = True  # scores within one text depend on the distance alone
    static: bool = True  # the length of the text changes nothing
    detuning: float = 0.0  # relative error of every frequency: what the angles may drift by, all alike


class PositionContract:
    """Inherit, and set ``rows``."""

    rows: list[Row]

    def pytest_generate_tests(self, metafunc):
        ids = lambda row: '-'.join([row.name, *(str(v) for v in row.options.values() if np.isscalar(v))])  # noqa: E731
        metafunc.parametrize('row', self.rows, ids=ids)

    def test_neutral_options_give_the_base(self, row):
        if row.neutral is None:
            return
        x, pos = draw(0), jnp.arange(TRAINED - T, TRAINED)[None].repeat(B, 0)
        found = query(method(row, row.neutral), x, pos)
        np.testing.assert_allclose(found, query(method(Row(row.base)), x, pos), atol=2e-5)

    def test_options_change_something(self, row):
        x, pos = draw(0), far(0)
        same = np.allclose(query(method(row), x, pos), query(method(Row(row.base)), x, pos), atol=1e-3)
        assert same == (row.name == row.base and not row.options)

    def test_scores_depend_on_distance_as_declared(self, row):
        position, end = method(row), 2**21  # the last token stays, and with it the length
        near, moved = (scores(position, far(shift).at[:, -1].set(end)) for shift in (0, 2**20 - 7))
        assert np.allclose(near[..., :-1, :-1], moved[..., :-1, :-1], atol=2e-4) == row.relative

    def test_other_tokens_of_the_row_change_nothing_as_declared(self, row):
        position, x = method(row), draw(1)
        short = query(position, x[:, : T // 2], far(0)[:, : T // 2])
        whole = query(position, x, far(0))[:, : T // 2]
        assert np.allclose(short, whole, atol=1e-5) == row.static == position.static

    def test_rows_of_the_batch_are_independent(self, row):
        position, x = method(row), draw(1)
        pos = jnp.stack([far(0)[0], far(0)[0] * 3])
        whole = query(position, x, pos)
        for b in range(B):
            np.testing.assert_allclose(whole[b], query(position, x[b : b + 1], pos[b : b + 1])[0], atol=1e-6)

    @pytest.mark.parametrize('dtype', [jnp.float32, jnp.bfloat16])
    def test_shape_and_dtype_are_kept_and_angles_stay_fp32(self, row, dtype):
        x, pos = draw(2).astype(dtype), far(2**17)
        for turn in (query, key):
            turned, exact = turn(method(row), x, pos), turn(method(row), x.astype(jnp.float32), pos)
            assert turned.shape == x.shape and turned.dtype == dtype
            np.testing.assert_allclose(turned.astype(jnp.float32), exact, rtol=2**-8, atol=1e-6)

    def test_norms_are_kept_up_to_the_gain(self, row):
        x = draw(3)
        norms = np.linalg.norm(query(method(row), x, far(5)), axis=-1)
        np.testing.assert_allclose(norms, np.linalg.norm(x * gain(row, far(5)), axis=-1), rtol=1e-5)

    def test_gradient_is_the_inverse_rotation(self, row):
        x, pos = draw(4), far(9)
        turned, pull = jax.vjp(lambda x: query(method(row), x, pos), x)
        np.testing.assert_allclose(pull(turned)[0], gain(row, pos) ** 2 * x, rtol=1e-5, atol=1e-5)

    @pytest.mark.parametrize('last', [T - 1, 2**17, 2**20])
    def test_angles_agree_with_float64(self, row, last):
        pos = jnp.arange(last - T + 1, last + 1)[None]
        inv_freq = row.frequencies(last + 1).inv_freq if row.frequencies else np.zeros(HEAD_DIM // 2)
        angle = np.float64(pos)[0, :, None] * np.float64(inv_freq).reshape(1, -1)
        # Half-split: the vector (1 .. 1, 0 .. 0) turns into (cos, sin) of every pair; what rotates not, passes.
        passing = np.ones((T, HEAD_DIM - 2 * angle.shape[1]))
        ones = np.concatenate([np.ones_like(angle), np.zeros_like(angle), passing], axis=-1)
        found = query(method(row), jnp.array(ones, jnp.float32)[None, :, None], pos)[0, :, 0]
        by = gain(row, pos)[0, :, 0]  # of the first head
        expected = np.concatenate([np.cos(angle), np.sin(angle), passing], axis=-1) * by
        drift = row.detuning * np.concatenate([angle, angle, passing], axis=-1)
        assert np.all(abs(found - expected) <= (1e-5 + drift) * by)

    def test_tables_change_nothing(self, row):
        position, x, pos = method(row), draw(5), far(3)
        tables = position.tables(drawn(position), pos) if position.tables else None
        assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(tables))
        np.testing.assert_array_equal(query(position, x, pos, tables), query(position, x, pos))
        np.testing.assert_array_equal(key(position, x, pos, tables), key(position, x, pos))

    def test_compiles_once_for_all_positions(self, row):
        position, traces = method(row), []

        @jax.jit
        def run(x, pos):
            traces.append(pos.shape)
            return query(position, x, pos)

        for shift in (0, 1, TRAINED, 2**20):
            compiled = run(draw(6), far(shift))
            np.testing.assert_allclose(compiled, query(position, draw(6), far(shift)), atol=2e-5)
        assert traces == [(B, T)]


def method(row: Row, options: Mapping[str, Any] | None = None) -> Position:
    """The row's method, with its own options or the given ones."""
    chosen = row.options if options is None else options
    return make(POSITIONS, {'name': row.name, **chosen}, 'model.position', **CONTEXT)


def drawn(position: Position):
    """Fresh parameters, moved off the values they start at."""
    random = np.random.default_rng(0)
    params = position.init(jax.random.key(0))
    return jax.tree.map(lambda x: x + 0.1 * random.normal(size=x.shape).astype(np.float32), params)


def query(position: Position, x, pos, tables=None):
    params = drawn(position)
    sharp = sharpened(position, params, x, pos)
    return (sharp if position.query is None else position.query(params, sharp, pos, tables)).astype(x.dtype)


def key(position: Position, x, pos, tables=None):
    return x if position.key is None else position.key(drawn(position), x, pos, tables)


def gain(row: Row, pos) -> np.ndarray:
    """What every element of a query grows by, 'B T N|1 H'."""
    scale = row.frequencies(LENGTH).attention_scale if row.frequencies else 1.0
    if row.gain is None:
        return np.full((*pos.shape, 1, HEAD_DIM), scale)
    return np.tile(row.gain(drawn(method(row)), np.float64(pos)), 2)


def draw(seed: int):
    """Random vectors 'B T N H'."""
    return jax.random.normal(jax.random.key(seed), (B, T, N, HEAD_DIM))


def far(shift: int):
    """Positions 'B T' that reach beyond the trained length, in no order."""
    return jnp.array([[0, 40, 3, 17, 255, 64, 65, 131], [5, 4, 3, 2, 255, 0, 9, 201]]) + shift


def scores(position: Position, pos):
    """Scores of random queries and keys at the same positions, 'B N T S'."""
    vectors = query(position, draw(7), pos), key(position, draw(8), pos)
    return jnp.einsum('BTNH,BSNH->BNTS', *vectors, precision='highest')
