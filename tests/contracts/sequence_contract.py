"""What every strategy of sequence parallelism keeps: eight devices give what one gives; a row buys the suite.

    class TestContract(SequenceContract):
        rows = [Row('ring', {'name': 'blockwise', 'block': 4}), Row('ulysses_ring', options={'ulysses': 2})]

It is to be run where JAX has eight devices. Values and gradients (q, k, v, bias tables, sink logits) are compared with
dense attention on one. A case asks for some of FEATURES; where CANNOT has one of them for a strategy, the suite demands
that it says so, naming the way out. Most cases ask new data of the few programs there are.
"""

import functools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np
import pytest

from lcx.attention import ATTENTION, both, causal, either, same_segment, sinks, window
from lcx.attention.masks import Rule
from lcx.config import Options
from lcx.errors import UnsupportedError
from lcx.parallel import orders, shard
from lcx.parallel.sequence import CANNOT, FEATURES
from lcx.positions import alibi, t5
from lcx.types import Where

DEVICES, B, T, H = 8, 2, 48, 4  # six tokens on a device
AUTO = jax.sharding.AxisType.Auto
FEW_KEYS, OTHER = 'fewer key heads than devices', 'other orders'


class Inputs(NamedTuple):
    """Everything that gradients flow to; tables and sinks may be None."""

    q: np.ndarray
    k: np.ndarray
    v: np.ndarray
    table: Any = None
    sinks: np.ndarray | None = None


class Program(NamedTuple):
    """What is compiled; the bias is ``bias(table, where)`` of a learned table or of None."""

    rule: Rule
    heads: int = 8
    kv: int = 2
    bias: Callable | None = None
    table: Any = None  # shapes by name
    softcap: float | None = None
    sinks: bool = False


T5 = t5.t5(heads=8, width=16, num_buckets=8, max_distance=16)
DOCUMENT = both(causal, same_segment)
PROGRAMS = {
    'causal': Program(DOCUMENT),
    'window': Program(both(DOCUMENT, window(5))),
    'sinks': Program(both(DOCUMENT, either(window(4), sinks(3))), kv=8),
    'alibi': Program(both(causal, window(6)), bias=alibi.alibi(heads=8).bias),
    't5': Program(both(DOCUMENT, window(6)), bias=T5.bias, table={'table': (8, 8)}, softcap=2.0, sinks=True),
    'few heads': Program(both(DOCUMENT, window(7)), heads=4),
    'one interval': Program(both(causal, window(5)), kv=8),
}


class Case(NamedTuple):
    """One question: a program, and tokens of it in an order."""

    name: str
    features: tuple[str, ...]
    program: str
    layout: Callable[[], tuple[np.ndarray, np.ndarray]]  # positions and segments
    order: str = 'contiguous'
    attention: str | None = None  # instead of the row's


def plain(length: int = T) -> tuple[np.ndarray, np.ndarray]:
    """One document per row."""
    return np.tile(np.arange(length, dtype=np.int32), (B, 1)), np.ones((B, length), np.int32)


def packed() -> tuple[np.ndarray, np.ndarray]:
    """Documents of 14 and 21 tokens and 13 of padding; the second row holds others, one of a single token."""
    lengths = ((14, 21, 13), (1, 31, 16))
    seg = np.array([np.repeat([1, 2, 0], n) for n in lengths], np.int32)
    return np.array([np.concatenate([np.arange(n) for n in row]) for row in lengths], np.int32), seg


CASES = [
    Case('causal', ('causal', FEW_KEYS), 'causal', plain),
    Case('packed', ('causal', 'packed'), 'causal', packed),
    Case('zigzag', ('causal', OTHER), 'causal', plain, 'zigzag'),
    Case('striped', ('causal', OTHER), 'causal', plain, 'striped'),
    Case('packed zigzag', ('causal', 'packed', OTHER), 'causal', packed, 'zigzag'),
    Case('window', ('window', FEW_KEYS), 'window', plain),
    Case('packed window', ('window', 'packed'), 'window', packed),
    Case('window striped', ('window', OTHER), 'window', plain, 'striped'),
    Case('odd length', ('window', 'odd length'), 'window', lambda: plain(43)),
    Case('odd length zigzag', ('window', 'odd length', OTHER), 'window', lambda: plain(43), 'zigzag'),
    Case('sinks', ('window and sinks',), 'sinks', plain),
    Case('packed sinks', ('window and sinks', 'packed'), 'sinks', packed),
    Case('alibi', ('bias', 'window'), 'alibi', plain),
    Case('t5', ('learned bias, softcap, sink logits', 'packed'), 't5', packed),
    Case('few heads', ('fewer query heads than devices',), 'few heads', packed),
    Case('fused', ('window', 'kernels that know tokens by index'), 'one interval', plain, attention='xla'),
]
BY_NAME = {case.name: case for case in CASES}


class Row(NamedTuple):
    """A strategy, and the attention of every device, with tokens of a device in several of its blocks."""

    name: str
    attention: Mapping = Options(name='dense')
    options: Mapping = Options()

    def strategy(self) -> dict:
        return {'name': self.name, **self.options}

    def refused(self, case: Case) -> list[str]:
        return [reason for feature, reason in CANNOT[self.name].items() if feature in case.features]


class SequenceContract:
    """Inherit, and set ``rows``."""

    rows: list[Row]

    def pytest_generate_tests(self, metafunc):
        metafunc.parametrize('row', self.rows, ids=lambda row: row.name)

    @pytest.mark.parametrize('case', CASES, ids=lambda case: case.name)
    def test_eight_devices_are_one(self, row, case):
        row = row if case.attention is None else row._replace(attention=Options(name=case.attention))
        x, where, d_out = draw(case)
        if any(reason.startswith('NaN') for reason in row.refused(case)):
            out, _ = sharded(row, case)(x, where, d_out)
            assert np.all(np.isnan(out[:, T // DEVICES :]))  # on the first device indices may be right
        elif row.refused(case):
            with pytest.raises(
                UnsupportedError, match=r"sequence '\w+' cannot do .*: .*\. Choose (sequence|att)"
            ):
                sharded(row, case)(x, where, d_out)
        else:
            close(sharded(row, case)(x, where, d_out), single(PROGRAMS[case.program])(x, where, d_out))

    def test_content_of_padding_changes_nothing(self, row):
        case = BY_NAME['t5']
        x, where, d_out = draw(case)
        padding = (where.q_seg == 0)[..., None, None]
        q, k, v, d_bad = (np.where(padding, np.nan, a) for a in (*x[:3], d_out))
        found = sharded(row, case)(x._replace(q=q, k=k, v=v), where, d_bad)
        jax.tree.map(np.testing.assert_array_equal, found, sharded(row, case)(x, where, d_out))
        for a in (found[0], *found[1][:3]):
            np.testing.assert_array_equal(np.where(padding, a, 0), 0)

    def test_rows_and_heads_may_be_sharded_too(self, row):
        """Two devices each for rows, tokens and heads, and a single key head, which both need."""
        mesh = jax.make_mesh((2, 2, 2), ('data', 'context', 'tensor'), axis_types=(AUTO,) * 3)
        program = PROGRAMS['t5']._replace(kv=1)
        x, where, d_out = draw(BY_NAME['t5'], kv=1)
        rule = row._replace(options=Options(ulysses=2) if row.options else Options())
        found = compiled(shard(rule.strategy(), row.attention, mesh), program)(x, where, d_out)
        close(found, single(program)(x, where, d_out))

    def test_log_sum_exp(self, row):
        x, where, _ = draw(BY_NAME['packed window'])
        rule = PROGRAMS['window'].rule
        attend = shard(row.strategy(), row.attention, line_mesh(), lse=True)
        out, lse = jax.jit(lambda x, where: attend(*x[:3], where, rule))(x, where)
        expected = ATTENTION['dense'](*x[:3], where, rule)
        np.testing.assert_allclose(out, expected, rtol=2e-5, atol=2e-5)
        s = np.einsum('BTNH,BSNH->BTNS', x.q, np.repeat(x.k, 4, axis=2)) / np.sqrt(H)
        seen = np.asarray(rule.allow(where) & (where.k_seg != 0)[:, None, None])[:, 0, :, None]
        formula = np.log(
            np.sum(np.where(seen, np.exp(s), 0), axis=-1), where=seen.any(-1), out=np.zeros((B, T, 8))
        )
        real = where.q_seg != 0
        np.testing.assert_allclose(np.asarray(lse)[real], formula[real], atol=2e-5)


def draw(case: Case, kv: int | None = None) -> tuple[Inputs, Where, np.ndarray]:
    """Random inputs of a case in the order of the text, where they stand, and a gradient of the output."""
    program, (pos, seg) = PROGRAMS[case.program], case.layout()
    t, random = pos.shape[1], np.random.default_rng(0)

    def normal(*shape: int) -> np.ndarray:
        return random.normal(size=shape).astype(np.float32)

    kv = kv or program.kv
    table = None if program.table is None else {k: normal(*shape) for k, shape in program.table.items()}
    x = Inputs(
        normal(B, t, program.heads, H),
        normal(B, t, kv, H),
        normal(B, t, kv, H),
        table,
        normal(program.heads) if program.sinks else None,
    )
    return x, Where(pos, pos, seg, seg, np.arange(program.heads)), normal(B, t, program.heads, H)


def line_mesh() -> jax.sharding.Mesh:
    return jax.make_mesh((DEVICES,), ('context',), axis_types=(AUTO,))


def sharded(row: Row, case: Case) -> Callable:
    """``(inputs, where, d_out) -> (out, gradients)`` in the order of the text, computed in that of the case."""
    shard(row.strategy(), row.attention, line_mesh(), order=case.order)  # refuses orders
    program = _sharded(row, case.program)

    def run(x: Inputs, where: Where, d_out: np.ndarray) -> tuple:
        length = d_out.shape[1]
        to = orders.permutation(case.order, T, DEVICES)

        def there(a: np.ndarray) -> np.ndarray:
            return orders.pad(a, T)[:, to]

        def back(a: np.ndarray) -> np.ndarray:
            return orders.restore(a, case.order, DEVICES, length)

        moved = Inputs(*map(there, x[:3]), *x[3:])
        out, d = program(moved, Where(*map(there, where[:4]), where.heads), there(d_out))
        return back(out), Inputs(*map(back, d[:3]), *d[3:])

    return run


@functools.cache
def _sharded(row: Row, program: str) -> Callable:
    return compiled(shard(row.strategy(), row.attention, line_mesh()), PROGRAMS[program])


def single(program: Program) -> Callable:
    """Dense attention on one device."""
    return _single(program._replace(table=None))


@functools.cache
def _single(program: Program) -> Callable:
    return compiled(ATTENTION['dense'], program)


def compiled(attend: Callable, program: Program) -> Callable:
    def out_and_gradients(x: Inputs, where: Where, d_out: jax.Array) -> tuple[jax.Array, Inputs]:
        def forward(x: Inputs) -> jax.Array:
            bias = None if program.bias is None else jax.tree_util.Partial(program.bias, x.table)
            options = {'softcap': program.softcap, 'sink_logits': x.sinks}
            return attend(x.q, x.k, x.v, where, program.rule, bias, **options)

        out, pull = jax.vjp(forward, x)
        return out, pull(d_out)[0]

    run = jax.jit(out_and_gradients)
    return lambda *arguments: jax.device_get(run(*arguments))


def close(found: tuple, expected: tuple) -> None:
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-5, atol=2e-5), found, expected)


def test_every_feature_has_a_case():
    assert {feature for case in CASES for feature in case.features} == set(FEATURES)
