"""Strategies on eight devices; run by ``test_on_eight_devices.py`` in a process that has them."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lcx.attention import (
    ATTENTION,
    PARTIAL,
    both,
    causal,
    either,
    regions,
    same_segment,
    sinks,
    streaming,
    window,
)
from lcx.attention.masks import Rule
from lcx.config import Options
from lcx.errors import ConfigError, UnsupportedError
from lcx.models import LayerKind, ModelConfig, boxed, init
from lcx.parallel import STRATEGIES, MeshConfig, mesh, orders, processes, rules, shard
from lcx.parallel.traffic import collective_bytes
from lcx.train.config import (
    CheckpointConfig,
    LogConfig,
    LossConfig,
    OptimizerConfig,
    StageConfig,
    TrainConfig,
)
from lcx.train.footprint import footprint
from lcx.train.loss import loss_sums
from lcx.train.step import gradients
from lcx.types import Where
from tests.contracts.sequence_contract import AUTO, BY_NAME, B, H, Row, SequenceContract, T, draw, line_mesh
from tests.contracts.sequence_contract import test_every_feature_has_a_case as test_every_feature_has_a_case
from tests.models.tiny import random_batch

BLOCKWISE = Options(name='blockwise', block=4)
DENSE = Options(name='dense')
DOCUMENT = both(causal, same_segment)


class TestContract(SequenceContract):
    rows = [
        Row('all_gather'),
        Row('ring', BLOCKWISE),
        Row('ulysses'),
        Row('ulysses_ring', options=Options(ulysses=2)),
        Row('halo'),
    ]


ROWS = {row.name: row for row in TestContract.rows}


def test_every_strategy_has_a_row():
    assert set(ROWS) == set(STRATEGIES)


@functools.cache
def forward(name: str, rule: Rule, attention: Options = DENSE, **options):
    """The compiled forward pass of a strategy by name, as a function of ``(inputs, where)``."""
    attend = shard(ROWS[name].strategy(), attention, line_mesh(), **options)
    return jax.jit(lambda x, where: attend(*x[:3], where, rule))


def same_as_dense(found, x, where, rule):
    np.testing.assert_allclose(found, ATTENTION['dense'](*x[:3], where, rule), rtol=2e-5, atol=2e-5)


# ------------------------------------------------------------------------------------------------ memory and traffic


@pytest.mark.parametrize('name', ['ring', 'all_gather'])
def test_what_the_backward_pass_keeps_is_shared_by_all_devices(name):
    """Bytes of residuals on one device of eight, and on one alone."""
    kept = {}
    for devices in (1, 8):
        mesh = jax.make_mesh((devices,), ('context',), axis_types=(AUTO,), devices=jax.devices()[:devices])
        x, where, _ = draw(BY_NAME['window'])
        attend = shard(name, BLOCKWISE, mesh)
        place = jax.NamedSharding(mesh, jax.P(None, 'context'))
        *x, q_pos, k_pos, q_seg, k_seg = (jax.device_put(a, place) for a in (*x[:3], *where[:4]))
        where = Where(q_pos, k_pos, q_seg, k_seg, where.heads)
        pull = jax.jit(lambda x, w, a=attend: jax.vjp(lambda *x: a(*x, w, causal), *x)[1])(x, where)
        kept[devices] = sum(a.addressable_shards[0].data.nbytes for a in jax.tree.leaves(pull))
    assert kept[8] / kept[1] < 0.16


@functools.cache
def text(name: str, backward: bool) -> str:
    """The compiled program of a strategy for tokens that already lie on their devices."""
    x, where, d_out = draw(BY_NAME['sinks'])  # as many key heads as query heads
    attend = shard(ROWS[name].strategy(), DENSE, line_mesh())
    place = jax.NamedSharding(line_mesh(), jax.P(None, 'context'))
    q, k, v, d_out, *sides = (jax.device_put(a, place) for a in (*x[:3], d_out, *where[:4]))

    def run(q, k, v, d_out, *sides):
        def attention(q, k, v):
            return attend(q, k, v, Where(*sides, where.heads), both(DOCUMENT, window(5)))

        return jax.vjp(attention, q, k, v)[1](d_out) if backward else attention(q, k, v)

    return jax.jit(run).lower(q, k, v, d_out, *sides).compile().as_text()


def bytes_sent(name: str, backward: bool) -> dict[str, int]:
    return dict(collective_bytes(text(name, backward)))


def test_bytes_that_a_device_sends():
    n, u, tokens = 8, 2, B * T // 8
    x, numbers = 4 * tokens * 8 * H, 4 * tokens  # a shard of q, k, v or out; of positions or of segments
    keys = 2 * x + 2 * numbers
    assert bytes_sent('all_gather', False) == {'all-gather': (n - 1) * keys}
    assert bytes_sent('ring', False) == {'collective-permute': (n - 1) * keys}
    assert bytes_sent('ring', True) == {'collective-permute': (n - 1) * keys + n * (keys + 2 * x)}
    assert bytes_sent('ulysses', False) == {
        'all-to-all': 4 * x * (n - 1) // n,
        'all-gather': (n - 1) * 4 * numbers,
    }
    assert bytes_sent('ulysses_ring', False) == {
        'all-to-all': 4 * x * (u - 1) // u,
        'all-gather': (u - 1) * 4 * numbers,
        'collective-permute': (n // u - 1) * u * (keys - 2 * x + 2 * x // u),
    }
    ends = 4 * keys // 6 + 2 * 4 * B  # of six tokens four, and the last token's numbers
    assert bytes_sent('halo', False) == {
        'collective-permute': ends,
        'all-reduce': 2 * 2 * 4 * B * (n - 1) // n,
    }


def test_what_travels_in_a_ring_is_sent_before_the_step_is_computed():
    """In the schedule of both loops: k, v, positions and segments; backward dk and dv, too."""
    sent = []
    for computation in text('ring', True).split('\n}\n'):
        before, branch, after = computation.partition(' conditional(')
        if branch and ' collective-permute(' in before and not computation.lstrip().startswith('ENTRY'):
            assert ' collective-permute(' not in after
            sent.append(before.count(' collective-permute('))
    assert sorted(sent) == [4, 6]


@pytest.mark.parametrize(
    ('rule', 'order', 'steps'),
    [
        (causal, 'contiguous', 8 * 9 // 2),
        (both(causal, window(7)), 'contiguous', 8 + 7),
        (causal, 'zigzag', 64),
        (both(causal, window(4)), 'zigzag', 8 + 7 + 7),  # the neighbours of two pieces
    ],
    ids=['causal', 'window', 'zigzag', 'window zigzag'],
)
def test_steps_of_the_ring_without_a_pair_are_not_computed(rule, order, steps, monkeypatch):
    counted = []
    dense = PARTIAL['dense']

    @functools.wraps(dense)
    def counting(*arguments, **named):
        jax.debug.callback(lambda: counted.append(1))
        return dense(*arguments, **named)

    monkeypatch.setitem(PARTIAL, 'dense', counting)
    attend = shard('ring', DENSE, line_mesh(), order=order)
    to = orders.permutation(order, T, 8)
    x, where, _ = draw(BY_NAME['window'])
    where = Where(*(a[:, to] for a in where[:4]), where.heads)
    jax.block_until_ready(jax.jit(lambda *x: attend(*x, where, rule))(*(a[:, to] for a in x[:3])))
    jax.effects_barrier()
    assert len(counted) == steps


# -------------------------------------------------------------------------------------------------- halo, and orders


def nan_rows(out) -> list[bool]:
    return np.all(np.isnan(out), axis=(1, 2, 3)).tolist()


def test_halo_gives_nan_where_the_shard_before_is_not_the_text_before():
    x, where, _ = draw(BY_NAME['packed window'])
    run = forward('halo', both(DOCUMENT, window(5)))
    assert nan_rows(run(x, where)) == [False, False]
    zigzag = orders.permutation('zigzag', T, 8)
    assert nan_rows(run(x, Where(*(a[:, zigzag] for a in where[:4]), where.heads))) == [True, True]
    gap = where.k_seg.copy()
    gap[0, 20] = 0  # padding inside a row: what lies before is farther than its positions say
    assert nan_rows(run(x, where._replace(q_seg=gap, k_seg=gap))) == [True, False]
    assert nan_rows(run(x, where._replace(q_pos=where.q_pos + (where.q_pos == 30)))) == [False, True]


def test_halo_gives_nan_where_tokens_read_other_documents():
    x, where, _ = draw(BY_NAME['packed window'])
    run = forward('halo', both(causal, window(5)))
    assert nan_rows(run(x, where)) == [True, True]
    plain = draw(BY_NAME['window'])[1]
    same_as_dense(run(x, plain), x, plain, both(causal, window(5)))


@pytest.mark.parametrize('count', [1, 3, 11])
def test_halo_brings_the_first_tokens_of_every_document(count):
    """Wherever documents begin: inside a shard, at its end, over two of them."""
    rule = both(DOCUMENT, either(window(2), sinks(count)))
    run = forward('halo', rule)
    for lengths in ((48,), (17, 31), (6, 42), (5, 13, 30), (1, 22, 2, 23), (40,)):
        seg = np.zeros((B, T), np.int32)
        seg[:, : sum(lengths)] = np.repeat(np.arange(len(lengths)) + 1, lengths)
        pos = np.zeros((B, T), np.int32)
        pos[:, : sum(lengths)] = np.concatenate([np.arange(n) for n in lengths])
        x, where, _ = draw(BY_NAME['window'])
        where = Where(pos, pos, seg, seg, where.heads)
        same_as_dense(run(x, where), x, where, rule)


def test_halo_refuses_what_reads_ahead_and_other_queries():
    x, where, _ = draw(BY_NAME['window'])
    with pytest.raises(
        UnsupportedError, match=r"'halo' cannot do a rule that reads ahead: .* Choose sequence: all_ga"
    ):
        forward('halo', window(5))(x, where)
    with pytest.raises(
        UnsupportedError, match=r'reads 7 tokens back: a shard has 6 tokens.*ring, ulysses, ulysses_ring'
    ):
        forward('halo', both(causal, window(8)))(x, where)
    half = Where(where.q_pos[:, 24:], where.k_pos, where.q_seg[:, 24:], where.k_seg, where.heads)
    with pytest.raises(UnsupportedError, match='3 queries and 6 keys a shard'):
        forward('halo', both(causal, window(5)))(x._replace(q=x.q[:, 24:]), half)


# ----------------------------------------------------------------------------------------------- meshes and their users


def test_queries_may_be_fewer_than_keys():
    x, where, _ = draw(BY_NAME['window'])
    x, where = x._replace(q=x.q[:, 24:]), where._replace(q_pos=where.q_pos[:, 24:], q_seg=where.q_seg[:, 24:])
    for name in ('all_gather', 'ring', 'ulysses', 'ulysses_ring'):
        same_as_dense(forward(name, causal)(x, where), x, where, causal)


def test_one_line_of_two_mesh_axes_and_a_mesh_in_context():
    mesh = jax.make_mesh((4, 2), ('rings', 'heads'), axis_types=(AUTO, AUTO))
    x, where, _ = draw(BY_NAME['packed'])
    for name in ('ulysses_ring', 'ring'):
        attend = shard(name, DENSE, axis=('rings', 'heads'))
        with jax.set_mesh(mesh):
            out = jax.jit(lambda x, where, a=attend: a(*x[:3], where, DOCUMENT))(x, where)
        same_as_dense(out, x, where, DOCUMENT)


def test_bfloat16_stays_near_float32_and_gradients_have_its_type():
    x, where, d_out = draw(BY_NAME['packed'])
    low = [jnp.asarray(a, jnp.bfloat16) for a in (*x[:3], d_out)]

    def run(attend, q, k, v, d_out):
        out, pull = jax.vjp(lambda *x: attend(*x, where, DOCUMENT), q, k, v)
        return out, *pull(d_out)

    found = jax.jit(functools.partial(run, shard('ring', DENSE, line_mesh())))(*low)
    for a, e in zip(found, run(ATTENTION['dense'], *(np.float32(a) for a in low))):
        assert a.dtype == jnp.bfloat16
        np.testing.assert_allclose(np.float32(a), e, atol=2**-6 * np.max(np.abs(e)))


def test_regions_merge_what_a_ring_gives():
    """StreamingLLM's positions in the scores, by attention over many devices as over one."""
    x, where, _ = draw(BY_NAME['packed'])
    split = streaming.streaming(window=4, sinks=2)
    sides = [(x.q, x.k), (2 * x.q, x.k)]
    run = functools.partial(regions.attend, regions=split, sides=sides, v=x.v, where=where, rule=DOCUMENT)
    found = jax.jit(lambda: run(shard('ring', DENSE, line_mesh(), lse=True)))()
    np.testing.assert_allclose(found, run(PARTIAL['dense']), rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize(
    ('options', 'change', 'message'),
    [
        ({'strategy': 'rings'}, {}, r"sequence.name: unknown 'rings'\. Did you mean 'ring'"),
        (
            {'strategy': {'name': 'ring', 'ulysses': 2}},
            {},
            r"sequence.ulysses \(of 'ring'\): unknown 'ulysses'",
        ),
        ({'attention': {'name': 'densest'}}, {}, "attention.name: unknown 'densest'. Did you mean 'dense'"),
        (
            {'attention': {'name': 'xla'}, 'lse': True},
            {},
            "attention.name: 'xla' gives no log-sum-exp. Choices: bloc",
        ),
        ({'order': 'zigzags'}, {}, "order: unknown 'zigzags'. Did you mean 'zigzag'"),
        ({'axis': 'contxt'}, {}, "axis: unknown 'contxt'. Did you mean 'context'"),
        (
            {'mesh': 'explicit'},
            {},
            r"mesh: axis 'context' is Explicit; make it with axis_types=AxisType\.Auto",
        ),
        ({'mesh': None}, {}, r'mesh: none is given and none is in context; enter jax.set_mesh\(mesh\)'),
        (
            {},
            {'tokens': 45},
            'query tokens: 45 over 8 devices of mesh axis context .*Nearest: 40 or 48; .*arrange',
        ),
        ({'batch_axes': ('context',)}, {}, 'rows: 2 over 8 devices of mesh axis context .*Nearest: 8'),
        ({'head_axis': 'context'}, {'heads': 12}, 'query heads: 12 over 8 devices .*Nearest: 8 or 16'),
        (
            {'strategy': 'ulysses'},
            {'heads': 12},
            "'ulysses' cannot do 12 query heads over 8 .*: all_gather, ring, uly",
        ),
        (
            {'strategy': {'name': 'ulysses_ring', 'ulysses': 8}},
            {'heads': 4},
            "'ulysses_ring' cannot do 4 query heads",
        ),
        ({'strategy': 'ulysses_ring'}, {}, r'sequence.ulysses: needed where .* a divisor of its 8 devices'),
        (
            {'strategy': {'name': 'ulysses_ring', 'ulysses': 3}},
            {},
            'sequence.ulysses: 3 does not divide 8 devices. Choices: 1, 2, 4, 8',
        ),
    ],
)
def test_errors_name_field_value_and_a_way_out(options, change, message):
    given = {'strategy': 'ring', 'attention': DENSE, 'mesh': line_mesh(), **options}
    if given['mesh'] == 'explicit':
        given['mesh'] = jax.make_mesh((8,), ('context',), axis_types=(jax.sharding.AxisType.Explicit,))
    tokens, heads = change.get('tokens', T), change.get('heads', 8)
    x = jnp.zeros((B, tokens, heads, H))
    with pytest.raises(ConfigError, match=message):
        shard(**given)(x, x, x, Where.plain(B, tokens, tokens, heads), causal)


def small_model() -> ModelConfig:
    kinds = Options({'full': LayerKind(attention=Options(name='blockwise', block=64))})
    sizes = dict(vocab=256, width=64, layers=4, heads=4, kv_heads=2, head_dim=16, hidden=176)
    return ModelConfig(**sizes, kinds=kinds, remat='full')


def test_a_planned_mesh_is_made_and_parameters_lie_as_planned():
    model = small_model()
    devices = mesh.make(MeshConfig(fsdp=-1, tensor=2, stage=2), jax.devices())
    assert dict(devices.shape) == {'data': 1, 'fsdp': 2, 'context': 1, 'tensor': 2, 'stage': 2}
    where = rules.shardings(boxed(model), devices)
    params = jax.jit(lambda: init(model, jax.random.key(0)), out_shardings=where)()
    for x, lies in zip(jax.tree.leaves(params), jax.tree.leaves(where), strict=True):
        (size,) = {shard.data.nbytes for shard in x.addressable_shards}
        assert size * rules.divided(lies.spec, devices) == x.nbytes


def test_a_gradient_takes_what_was_planned():
    model, rows, length = small_model(), 16, 256
    devices = mesh.make(MeshConfig(fsdp=4, tensor=2), jax.devices())
    config = TrainConfig(
        0,
        (StageConfig(1, length, rows),),
        LossConfig(chunk=128),
        OptimizerConfig(),
        CheckpointConfig(),
        LogConfig(),
    )
    plan = footprint(config, (model,), devices)
    where = rules.shardings(boxed(model), devices)

    def placed(x: jax.ShapeDtypeStruct, place: jax.NamedSharding) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=place)

    params = jax.tree.map(placed, jax.eval_shape(lambda: init(model, jax.random.key(0))), where)
    split = jax.NamedSharding(devices, rules.spec(('batch',), rules.ACTIVATIONS))
    batch = jax.tree.map(lambda x: placed(x, split), random_batch(rows, length, model.vocab))
    sums = functools.partial(loss_sums, model, z_loss=0.0, chunk=128)
    with jax.set_mesh(devices):
        step = jax.jit(lambda *x: gradients(*x, jax.random.key(0), sums, 1)[0], out_shardings=where)
        found = step.lower(params, batch).compile().memory_analysis()
    (stage,) = plan.stages
    assert plan.gradients == pytest.approx(found.output_size_in_bytes, abs=1000)  # and pointers to them
    planned = plan.gathered + stage.activations + max(stage.period, stage.logits)
    assert 1 / 1.35 < planned / found.temp_size_in_bytes < 1.35  # measured: 1.08


@pytest.mark.parametrize(
    ('sizes', 'process_of', 'rows'),
    [
        ({'data': 8}, lambda d: d // 4, [[0, 1, 2, 3, 4, 5, 6, 7], [8, 9, 10, 11, 12, 13, 14, 15]]),
        ({'data': 2, 'fsdp': 2, 'tensor': 2}, lambda d: d // 4, [range(8), range(8, 16)]),
        ({'context': 8}, lambda d: d // 4, [range(16), range(16)]),
        ({'data': 4, 'context': 2}, lambda d: d % 2, [range(16), range(16)]),
        ({'data': 2, 'context': 4}, lambda d: d // 2, [range(8), range(8), range(8, 16), range(8, 16)]),
        ({'fsdp': 8}, lambda d: (d // 2) % 2, [[0, 1, 2, 3, 8, 9, 10, 11], [4, 5, 6, 7, 12, 13, 14, 15]]),
    ],
)
def test_rows_of_processes_are_those_that_their_devices_hold(sizes, process_of, rows):
    """By sharding an array of the row numbers; and a global array comes out of what each process has."""
    devices = mesh.make(MeshConfig(**sizes), jax.devices())
    where = jax.NamedSharding(devices, rules.spec(('batch', 'length'), rules.ACTIVATIONS))
    numbers = np.arange(16 * 8).reshape(16, 8)
    whole = jax.device_put(numbers, where)
    for process, mine in enumerate(rows):
        found = processes.rows_of_process(devices, 16, process, lambda device: process_of(device.id))
        np.testing.assert_array_equal(found, mine)
        own = [s for s in whole.addressable_shards if process_of(s.device.id) == process]
        held = np.concatenate([np.asarray(s.data)[:, 0] // 8 for s in own])
        assert set(held) == set(mine)
    np.testing.assert_array_equal(processes.put(numbers, where, np.arange(16), 16), whole)
    np.testing.assert_array_equal(processes.put(numbers, where), whole)
