"""What every attention implementation keeps; an implementation buys the suite with one row.

    class TestContract(AttentionContract):
        rows = [Row('dense', dense.attend), Row('blockwise', functools.partial(blockwise.attend, block=16))]

Values and gradients are compared with NumPy float64. Most tests ask new data of the few programs that the cases
have compiled, since positions and segments are data.

What an implementation cannot do its row declares, and the suite demands that it says so: NotImplementedError that
names the way out, or, where only the data can tell, NaN for all of a row, and ValueError while data are at hand.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lcx.attention import both, causal
from lcx.errors import UnsupportedError
from lcx.types import Where
from tests.contracts.attention_reference import BIASES, CASES, B, Case, H, Inputs, N, draw, plain, shuffle
from tests.contracts.attention_reference import reference as exact

BY_NAME = {case.name: case for case in CASES}
CAUSAL, STREAMING, BY_HEAD, BLIND = (
    BY_NAME[name] for name in ('causal', 'streaming', 'by head', 'queries before the keys')
)
PACKED = [BY_NAME[name] for name in ('packed, all at once', 'packed', 'one document')]  # the hardest first


class Row(NamedTuple):
    """An implementation, set up so that 40 tokens are several of its blocks."""

    name: str
    attend: Callable
    atol: float = 2e-5  # of fp32 values and gradients, for inputs from a normal distribution
    refuses: frozenset[str] = frozenset()  # names of cases that raise NotImplementedError
    poisons: frozenset[str] = frozenset()  # names of cases whose data give NaN

    def able(self, *cases: Case) -> list[Case]:
        """Those of ``cases`` that the implementation can do."""
        return [case for case in cases if case.name not in self.refuses | self.poisons]

    def packed(self) -> Case:
        """The hardest packed case that the implementation can do."""
        return self.able(*PACKED)[0]


class AttentionContract:
    """Inherit, and set ``rows``."""

    rows: list[Row]

    def pytest_generate_tests(self, metafunc):
        metafunc.parametrize('row', self.rows, ids=lambda row: row.name)

    @pytest.mark.parametrize('case', CASES, ids=lambda case: case.name)
    def test_values_and_gradients(self, row, case):
        x, where, d_out = draw(case)
        if case.name in row.refuses:
            with pytest.raises(UnsupportedError, match=r'cannot do .*: .*\. Choose attention: blockwise\.'):
                run(row, case)(x, where, d_out)
        elif case.name in row.poisons:
            assert np.all(np.isnan(run(row, case)(x, where, d_out)[0]))
            with pytest.raises(ValueError, match=r'where\..*\. Choose attention: blockwise\.'):
                call(row, case)(x, where, d_out)
        else:
            close(run(row, case)(x, where, d_out), exact(case, x, where, d_out), row.atol)

    def test_order_in_memory_means_nothing(self, row):
        for case in row.able(row.packed(), STREAMING):
            x, where, d_out = draw(case)
            moved, order = shuffle(where)
            tokens = Inputs(*(np.take_along_axis(a, order[..., None, None], axis=1) for a in x[:3]), *x[3:])
            found = run(row, case)(tokens, moved, np.take_along_axis(d_out, order[..., None, None], axis=1))
            if 'out of order' in row.poisons:
                assert np.all(np.isnan(found[0]))
                continue
            out, d = run(row, case)(x, where, d_out)
            in_order = [np.take_along_axis(a, order[..., None, None], axis=1) for a in (out, *d[:3])]
            close(found, (in_order[0], Inputs(*in_order[1:], *d[3:])), row.atol)

    def test_positions_may_be_far_and_negative(self, row):
        x, where, d_out = draw(CAUSAL)
        for shift in (-(2**30), 2**30):
            moved = where._replace(q_pos=where.q_pos + shift, k_pos=where.k_pos + shift)
            equal(run(row, CAUSAL)(x, moved, d_out), run(row, CAUSAL)(x, where, d_out))

    def test_packed_is_separate(self, row):
        case = row.packed()
        x, where, d_out = draw(case)
        out, d = run(row, case)(x, where, d_out)
        parts = []
        for document in set(where.q_seg.flat) - {0}:  # the same program, with the other documents as padding
            alone = where._replace(**{f: np.where(where.q_seg == document, 1, 0) for f in ('q_seg', 'k_seg')})
            parts.append(run(row, case)(x, alone, d_out))
        close((out, d), jax.tree.map(lambda *a: sum(a), *parts), row.atol)

    def test_content_of_padding_changes_nothing(self, row):
        case = row.packed()
        x, where, d_out = draw(case)
        padding = (where.q_seg == 0)[..., None, None]
        q, k, v, d_bad = (np.where(padding, np.nan, a) for a in (*x[:3], d_out))
        out, d = run(row, case)(x._replace(q=q, k=k, v=v), where, d_bad)
        equal((out, d), run(row, case)(x, where, d_out))
        for a in (out, *d[:3]):
            np.testing.assert_array_equal(np.where(padding, a, 0), 0)

    def test_no_gradient_from_the_future(self, row):
        for case in row.able(CAUSAL, STREAMING):
            x, where, d_out = draw(case)
            for t in (0, 13, 14, 27, 39):  # inside blocks and at their ends
                _, d = run(row, case)(x, where, np.where(np.arange(40)[:, None, None] == t, d_out, 0))
                assert not np.any(d.k[:, t + 1 :]) and not np.any(d.v[:, t + 1 :])
                assert not np.any(np.delete(d.q, t, axis=1))
                assert np.all(np.any(d.v[:, t], axis=-1))
                assert t == 0 or np.all(np.any(d.k[:, t], axis=-1))  # one key alone: nothing to choose

    def test_rows_that_see_nothing_are_zero(self, row):
        blind = 18  # queries before the first key: a whole block and a part
        for case in row.able(BLIND, BY_HEAD):  # without and with sink logits
            x, _, d_out = draw(case)
            where = plain(40, 40, first=-blind)
            out, d = run(row, case)(x, where, d_out)
            close((out, d), exact(case, x, where, d_out), row.atol)
            assert not np.any(out[:, :blind]) and not np.any(d.q[:, :blind])
            assert np.all(np.any(out[:, blind:], axis=-1))
        for case in row.able(CAUSAL, BY_HEAD):
            x, where, d_out = draw(case)
            nobody = where._replace(k_seg=np.zeros_like(where.k_seg))
            for a in jax.tree.leaves(run(row, case)(x, nobody, d_out)):
                assert not np.any(a)

    def test_bfloat16_stays_near_float32(self, row):
        case = row.packed()
        x, where, d_out = draw(case)
        low = Inputs(*(jnp.asarray(a, jnp.bfloat16) for a in x[:3]), *x[3:])
        d_low = jnp.asarray(d_out, jnp.bfloat16)
        out, d = run(row, case)(low, where, d_low)
        assert jax.tree.map(lambda a: a.dtype, (out, d)) == jax.tree.map(lambda a: a.dtype, (d_low, low))
        wide = Inputs(*(None if a is None else np.float32(a) for a in low))
        expected = exact(case, wide, where, np.float32(d_low))
        jax.tree.map(
            lambda a, e: np.testing.assert_allclose(np.float32(a), e, atol=2**-7 * abs(e).max()),
            (out, d),
            expected,
        )

    def test_vmap(self, row):
        case = row.packed()
        draws = [draw(case, seed) for seed in (0, 1)]
        if 'out of order' not in row.poisons:
            draws[1] = (draws[1][0], shuffle(draws[1][1])[0], draws[1][2])
        stacked = jax.tree.map(lambda *a: np.stack(a), *draws)
        found = jax.jit(jax.vmap(call(row, case)))(*stacked)
        for i, (x, where, d_out) in enumerate(draws):
            close(jax.tree.map(lambda a, i=i: a[i], found), exact(case, x, where, d_out), row.atol)

    def test_compiles_once_per_shape(self, row):
        traces = []

        @jax.jit
        def counted(x, where):
            traces.append(where.q_pos.shape)
            return row.attend(*x[:3], where, both(causal, causal))  # made anew each time, and still one rule

        x, where, _ = draw(BY_NAME['short'])
        for shift in range(3):
            counted(x, where._replace(q_pos=where.q_pos + shift))
        assert traces == [(B, 7)]

    @pytest.mark.parametrize(
        ('change', 'message'),
        [
            ({'q': np.zeros((B, 7, N))}, r'q has shape \(2, 7, 4\); expected 4 axes'),
            ({'k': np.zeros((B, 7, N, H), int)}, 'k is int64; expected a floating type'),
            ({'v': np.zeros((B, 6, N, H))}, r'v has shape \(2, 6, 4, 8\); expected \(2, 7, 4, 8\) \(B S K V'),
            ({'k': np.zeros((3, 7, N, H))}, r'k has shape \(3, 7, 4, 8\); expected \(2, 7, 4, 8\)'),
            (
                {'k': np.zeros((B, 7, 3, H)), 'v': np.zeros((B, 7, 3, H))},
                '4 query heads .* not a multiple of 3 key heads',
            ),
            ({'where': plain(7, 8)}, r'where.k_pos has shape \(2, 8\); expected \(2, 7\) \(B S\)'),
            ({'sink_logits': np.zeros(N + 1)}, r'sink_logits has shape \(5,\); expected \(4,\) \(N\)'),
            ({'rule': 'causal'}, 'rule is a str; expected a Rule such as causal'),
            (
                {'bias': lambda w: w.q_pos[:, :, None] * w.k_pos[:, None, :]},
                r'bias gave a block of shape \(2, 7, 7\); expected one that broadcasts to \(2, 4, 7, 7\)',
            ),
            (
                {'rule': causal._replace(allow=lambda w: causal.allow(w).repeat(3, axis=1))},
                r'rule gave a block of shape \(2, 3, 7, 7\)',
            ),
        ],
    )
    def test_errors_name_argument_shape_and_expectation(self, row, change, message):
        x = jnp.zeros((B, 7, N, H))
        arguments = {'q': x, 'k': x, 'v': x, 'where': plain(7, 7), 'rule': causal, **change}
        if 'bias' in change and 'slopes' in row.refuses:
            with pytest.raises(NotImplementedError, match='cannot do a bias'):
                row.attend(**arguments)
        else:
            with pytest.raises(ValueError, match=message):
                row.attend(**arguments)


def call(row: Row, case: Case) -> Callable[[Inputs, Where, Any], tuple[jax.Array, Inputs]]:
    """``(inputs, where, d_out) -> (out, gradients)`` of a case."""

    def out_and_gradients(x: Inputs, where: Where, d_out: jax.Array) -> tuple[jax.Array, Inputs]:
        def forward(x: Inputs) -> jax.Array:
            bias = None if case.bias is None else jax.tree_util.Partial(BIASES[case.bias].apply, x.table)
            options = {'scale': case.scale, 'softcap': case.softcap, 'sink_logits': x.sinks}
            return row.attend(x.q, x.k, x.v, where, case.rule, bias, **options)

        out, pull = jax.vjp(forward, x)
        return out, pull(d_out)[0]

    return out_and_gradients


def run(row: Row, case: Case) -> Callable:
    """The compiled program of a case; NumPy comes out. Cases that differ in their data only share it."""
    return _compiled(row, case._replace(name='', sees=None, layout=None))


@functools.cache
def _compiled(row: Row, case: Case) -> Callable:
    compiled = jax.jit(call(row, case))
    return lambda *arguments: jax.device_get(compiled(*arguments))


def close(found: tuple, expected: tuple, atol: float) -> None:
    """Compares ``(out, gradients)``; gradients of tables and sinks sum over many pairs, so relative to their size."""
    (out, d), (e_out, e) = found, expected
    np.testing.assert_allclose(out, e_out, atol=atol)
    for name, gradient, wanted in zip(Inputs._fields, d, e):
        assert (gradient is None) == (wanted is None), name
        if wanted is not None:
            np.testing.assert_allclose(
                gradient, wanted, atol=atol * max(1, np.max(np.abs(wanted))), err_msg=name
            )


def equal(found: tuple, expected: tuple) -> None:
    jax.tree.map(np.testing.assert_array_equal, found, expected)
