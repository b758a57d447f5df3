"""Attention in regions is its methods' papers, written here as one matrix of distances in NumPy float64.

s_ij = scale (R(d_ij) q_i) k_j    R(d): RoPE by the distance d of the pair
p = softmax(s)    out = p v    ds = p (do v^T - do out)    dq_i = sum_j R(-d_ij) ds_ij k_j
"""

import functools
import inspect
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lcx.attention import PARTIAL, REGIONS, blockwise, both, causal, dense, regions, same_segment, window
from lcx.config import Options, make
from lcx.errors import ConfigError
from lcx.models import LayerKind
from lcx.positions import POSITIONS
from lcx.types import Where
from tests.attention.test_blockwise import visited
from tests.models.tiny import (
    CONFIG,
    changed,
    close,
    gradient,
    loss,
    packed_batch,
    parameters,
    random_batch,
    separate_batch,
)

N, K, H = 4, 2, 8
UNSEEN = -1
PARTIALS = {
    'dense': dense.partial,
    'blockwise': functools.partial(blockwise.partial, block=8),
    'default blocks': blockwise.partial,
}


def self_extend(i, j, *, group, window):
    return i - j if i - j < window else i // group + window - window // group - j // group


def rerope(i, j, *, window):
    return min(i - j, window)


def leaky_rerope(i, j, *, window, leak):
    return i - j if i - j < window else window + (i - j - window) / leak


def dual_chunk(i, j, *, chunk, local):
    """Section 3 of arXiv:2402.17463, with c = chunk + local."""
    c = chunk + local
    successive = [*range(chunk, chunk + local), *[c - 1] * chunk][:chunk]
    by_chunks_between = {0: i % chunk, 1: successive[i % chunk]}
    return by_chunks_between.get(i // chunk - j // chunk, c - 1) - j % chunk


def lm_infinite(i, j, *, window, sinks):
    return min(i - j, window) if i - j < window or j < sinks else UNSEEN


def streaming(i, j, *, window, sinks):
    """Positions in the cache: its tokens in order, without those that were dropped."""
    cache = [t for t in range(i + 1) if t < sinks or t > i - window]
    return cache.index(i) - cache.index(j) if j in cache else UNSEEN


CASES = {  # as options, and the distance in the method's paper
    'self_extend': ({'name': 'self_extend', 'group': 3, 'window': 7}, self_extend),
    'rerope': ({'name': 'rerope', 'window': 9}, rerope),
    'leaky_rerope': ({'name': 'leaky_rerope', 'window': 6, 'leak': 2.5}, leaky_rerope),
    'dual_chunk': ({'name': 'dual_chunk', 'chunk': 7, 'local': 3}, dual_chunk),
    'dual_chunk, wide': ({'name': 'dual_chunk', 'chunk': 4, 'local': 9}, dual_chunk),
    'lm_infinite': ({'name': 'lm_infinite', 'window': 8, 'sinks': 2}, lm_infinite),
    'streaming': ({'name': 'streaming', 'window': 6, 'sinks': 3}, streaming),
}
PLAIN = {  # regions that hold what plain attention does, up to 40 tokens
    'self_extend': {'name': 'self_extend', 'group': 4, 'window': 40},
    'rerope': {'name': 'rerope', 'window': 40},
    'leaky_rerope': {'name': 'leaky_rerope', 'window': 40, 'leak': 4.0},
    'dual_chunk': {'name': 'dual_chunk', 'chunk': 40, 'local': 1},
    'lm_infinite': {'name': 'lm_infinite', 'window': 40, 'sinks': 1},
    'streaming': {'name': 'streaming', 'window': 40, 'sinks': 1},
}
SHORT = {  # by which a model trained at 24 tokens reads 100
    'self_extend': {'name': 'self_extend', 'group': 8, 'window': 12},
    'rerope': {'name': 'rerope', 'window': 20},
    'leaky_rerope': {'name': 'leaky_rerope', 'window': 16, 'leak': 16.0},
    'dual_chunk': {'name': 'dual_chunk', 'chunk': 16, 'local': 6},
    'lm_infinite': {'name': 'lm_infinite', 'window': 20, 'sinks': 4},
    'streaming': {'name': 'streaming', 'window': 20, 'sinks': 4},
}


def read(options):
    return make(REGIONS, options, 'regions')


def numbers(options):
    return {k: v for k, v in options.items() if k != 'name'}


def distances(case: str, length: int) -> np.ndarray:
    """The distance of every pair, 'T T'; UNSEEN after the query and where nothing is read."""
    options, paper = CASES[case]
    pairs = [
        [paper(i, j, **numbers(options)) if j <= i else UNSEEN for j in range(length)] for i in range(length)
    ]
    return np.array(pairs, np.float64)


@pytest.mark.parametrize('case', CASES)
def test_regions_hold_every_pair_once_at_the_distance_of_the_paper(case):
    length = 60
    where, pos = Where.plain(1, length, length, heads=1), jnp.arange(length)[None]
    found, held = np.full((length, length), UNSEEN, np.float64), np.zeros((length, length), int)
    for rule, query, key in read(CASES[case][0]):
        inside = np.array(rule.allow(where))[0, 0]
        apart = np.float64(query(pos))[0, :, None] - np.float64(key(pos))[0]
        found, held = np.where(inside, apart, found), held + inside
    expected = distances(case, length)
    np.testing.assert_allclose(found, expected, atol=1e-5)
    np.testing.assert_array_equal(held, expected != UNSEEN)


@pytest.mark.parametrize('name', [name for name in REGIONS if name != 'leaky_rerope'])
def test_pictures(name):
    """The matrix of distances in the docstring, for the numbers named with it."""
    text = inspect.getmodule(REGIONS[name]).__doc__
    given = dict(re.findall(r'(\w+)=(\d+)', re.search(rf'``{name}\((.*?)\)``', text)[1]))
    drawn = re.findall(r'^ {4}([\d.](?: [\d.]){7})$', text, re.MULTILINE)
    paper = functools.partial(globals()[name], **{k: int(v) for k, v in given.items()})
    rows = [[paper(i, j) if j <= i else UNSEEN for j in range(8)] for i in range(8)]
    assert drawn == [' '.join('.' if d == UNSEEN else str(d) for d in row) for row in rows]


def packed() -> Where:
    """Rows of documents of odd lengths with padding between and behind them, 41 tokens."""
    lengths, segments = ([17, 3, 19, 2], [38, 3]), ([1, 0, 2, 0], [1, 0])
    pos = np.stack([np.concatenate([np.arange(n) for n in row]) for row in lengths]).astype(np.int32)
    seg = np.stack([np.repeat(s, n) for s, n in zip(segments, lengths)]).astype(np.int32)
    return Where.self_attention(pos, seg, N)._replace(heads=np.arange(N))


def draw(where: Where):
    random, (b, t) = np.random.default_rng(0), where.q_pos.shape
    return [random.normal(size=(b, t, n, H)).astype(np.float32) for n in (N, K, K, N)]


def turned(x, angle):
    """RoPE, half-split: '... H' by '... H/2' angles."""
    (a, b), cos, sin = np.split(x, 2, axis=-1), np.cos(angle), np.sin(angle)
    return np.concatenate([a * cos - b * sin, b * cos + a * sin], axis=-1)


def formula(apart, seen, scale, q, k, v, d_out):
    """``out, dq, dk, dv`` of 'B T S' distances in float64."""
    q, k, v, d_out = (np.float64(x) for x in (q, k, v, d_out))
    k, v = (np.repeat(x, N // K, axis=2) for x in (k, v))
    angle = (apart[..., None] * 10000.0 ** (-np.arange(0, H, 2) / H))[:, :, :, None]  # 'B T S 1 P'
    turned_q, turned_k = turned(q[:, :, None], angle), turned(k[:, None], -angle)
    s = np.einsum('BTSNH,BSNH->BNTS', turned_q, k) * scale
    p = np.exp(s) * seen[:, None]
    total = p.sum(axis=-1, keepdims=True)
    p = p / np.where(total == 0, 1, total)
    out = np.einsum('BNTS,BSNH->BTNH', p, v)
    drift = np.einsum('BTNH,BTNH->BNT', d_out, out)
    ds = p * (np.einsum('BTNH,BSNH->BNTS', d_out, v) - drift[..., None]) * scale
    dk = np.einsum('BNTS,BTSNH->BSNH', ds, turned_q)
    dv = np.einsum('BNTS,BTNH->BSNH', p, d_out)
    dk, dv = (x.reshape(*x.shape[:2], K, N // K, H).sum(axis=3) for x in (dk, dv))
    return out, np.einsum('BNTS,BTSNH->BTNH', ds, turned_k), dk, dv


ROPE = make(POSITIONS, {'name': 'rope'}, 'position', head_dim=H)


def passes(attend):
    """``(q, k, v, d_out) -> (out, dq, dk, dv)``, compiled."""

    def run(q, k, v, d_out):
        out, pull = jax.vjp(attend, q, k, v)
        return out, *pull(d_out)

    return jax.jit(run)


def in_regions(partial, split, where, position=ROPE, rule=same_segment):
    def attend(q, k, v):
        sides = [
            (position.query({}, q, r.query(where.q_pos)), position.key({}, k, r.key(where.k_pos)))
            for r in split
        ]
        return regions.attend(PARTIALS[partial], split, sides, v, where, rule)

    return attend


@functools.partial(jax.jit, static_argnums=(0, 1))
def plain(attend, rules, q, k, v, where):
    rule = both(causal, same_segment, *rules)
    return attend(ROPE.query({}, q, where.q_pos), ROPE.key({}, k, where.k_pos), v, where, rule)


@functools.cache
def on_packed(partial, options: Options):
    return passes(in_regions(partial, read(options), packed()))


@pytest.mark.parametrize('partial', ['dense', 'blockwise'])
@pytest.mark.parametrize('case', CASES)
def test_values_and_gradients_are_the_papers(case, partial):
    where = packed()
    apart = distances(case, 41)[where.q_pos[:, :, None], where.k_pos[:, None]]
    seen = (
        (apart != UNSEEN) & (where.q_seg[:, :, None] == where.k_seg[:, None]) & (where.q_seg > 0)[..., None]
    )
    x = draw(where)
    expected = formula(apart, seen, H**-0.5, *x)
    close(on_packed(partial, Options(CASES[case][0]))(*x), expected, 3e-5)


def test_the_rotation_is_the_position_methods():
    """Dual chunk attention with YaRN: its frequencies and its scale, at distances within chunks."""
    where = Where.plain(2, 41, 41, heads=N)
    options = {'name': 'yarn', 'factor': 4.0}
    yarn = make(POSITIONS, options, 'position', head_dim=H, length=41, trained_length=10)
    x = draw(where)
    found = jax.jit(in_regions('dense', read(CASES['dual_chunk'][0]), where, yarn))(*x[:3])
    pos = jnp.arange(41)[None]
    s = np.zeros((2, N, 41, 41))
    apart = distances('dual_chunk', 41)
    for d in np.unique(apart[apart != UNSEEN]).astype(int):
        q, k = yarn.query({}, x[0], jnp.full_like(pos, d)), yarn.key({}, x[1], jnp.zeros_like(pos))
        at_d = np.einsum('BTNH,BSNH->BNTS', q, np.repeat(k, N // K, axis=2)) * H**-0.5
        s = np.where(apart == d, at_d, s)
    p = np.where(apart != UNSEEN, np.exp(s), 0)
    p /= p.sum(axis=-1, keepdims=True)
    np.testing.assert_allclose(
        found, np.einsum('BNTS,BSNH->BTNH', p, np.repeat(x[2], N // K, axis=2)), atol=2e-5
    )


@pytest.mark.parametrize('name', PLAIN)
def test_short_texts_are_plain_attention_exactly(name):
    x = draw(packed())[:3]
    found = jax.jit(in_regions('dense', read(PLAIN[name]), packed()))(*x)
    np.testing.assert_array_equal(found, plain(dense.attend, (), *x, packed()))


@pytest.mark.parametrize(
    'options',
    [
        {'name': 'self_extend', 'group': 1, 'window': 5},
        {'name': 'leaky_rerope', 'window': 5, 'leak': 1.0},
    ],
    ids=lambda options: options['name'],
)
def test_what_stretches_by_one_is_plain_attention(options):
    x = draw(packed())[:3]
    found = jax.jit(in_regions('dense', read(options), packed()))(*x)
    np.testing.assert_allclose(found, plain(dense.attend, (), *x, packed()), atol=2e-5)


@pytest.mark.parametrize('case', CASES)
def test_content_of_padding_changes_nothing(case):
    x, padding = draw(packed()), (packed().q_seg == 0)[..., None, None]
    for partial in ('dense', 'blockwise'):
        run = on_packed(partial, Options(CASES[case][0]))
        for a, b in zip(run(*(np.where(padding, np.nan, a) for a in x)), run(*x)):
            np.testing.assert_array_equal(a, b)
            assert not np.any(np.where(padding, a, 0))


def test_a_rule_of_the_layer_holds_too():
    x, split = draw(packed())[:3], read({'name': 'self_extend', 'group': 1, 'window': 3})
    found = jax.jit(in_regions('dense', split, packed(), rule=both(same_segment, window(6))))(*x)
    np.testing.assert_allclose(found, plain(dense.attend, (window(6),), *x, packed()), atol=2e-5)


def test_memory_of_forward_and_backward_is_linear_in_length():
    """Growth of temporary memory when the length doubles; compiled only, never run."""
    split = read(SHORT['dual_chunk'])

    def bytes_at(length: int) -> int:
        shapes = [jax.ShapeDtypeStruct((1, length, n, H), jnp.float32) for n in (N, K, K, N)]
        run = passes(in_regions('default blocks', split, Where.plain(1, length, length, heads=N)))
        return run.lower(*shapes).compile().memory_analysis().temp_size_in_bytes

    assert bytes_at(4096) / bytes_at(2048) < 2.3


@pytest.mark.parametrize(
    ('options', 'blocks'),
    [  # of the 4 x 4 blocks of 8 tokens, for each region
        ({'name': 'self_extend', 'group': 2, 'window': 10}, [4 + 3 + 2, 3 + 2 + 1]),
        ({'name': 'dual_chunk', 'chunk': 8, 'local': 4}, [4, 3, 2 + 1]),
        ({'name': 'lm_infinite', 'window': 8, 'sinks': 2}, [4 + 3, 3]),
    ],
    ids=lambda x: x['name'] if isinstance(x, dict) else '',
)
def test_only_blocks_of_the_region_are_made(options, blocks, monkeypatch):
    where = Where.plain(1, 32, 32, heads=1)
    found = [sum(visited(region.rule, where, monkeypatch)) for region in read(options)]
    assert found == [2 * count for count in blocks]  # forward and backward


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (
            {'name': 'self_extent', 'group': 2, 'window': 4},
            "name: unknown 'self_extent'. Did you mean 'self_ext",
        ),
        ({'name': 'self_extend', 'group': 2}, "window: 'self_extend' needs it"),
        ({'name': 'self_extend', 'group': 0, 'window': 4}, 'group: 0 must be at least 1'),
        ({'name': 'self_extend', 'group': 2, 'window': 0}, 'window: 0 must be at least 1'),
        (
            {'name': 'rerope', 'window': 4, 'leak': 2.0},
            r"leak \(of 'rerope'\): unknown 'leak'.* Choices: window",
        ),
        ({'name': 'leaky_rerope', 'window': 4, 'leak': 0.5}, 'leak: 0.5 must be at least 1'),
        ({'name': 'leaky_rerope', 'window': -4, 'leak': 2.0}, 'window: -4 must be at least 1'),
        ({'name': 'dual_chunk', 'chunk': 4, 'local': 0}, 'local: 0 must be at least 1'),
        ({'name': 'dual_chunk', 'chunk': 0, 'local': 4}, 'chunk: 0 must be at least 1'),
        ({'name': 'lm_infinite', 'window': 4, 'sinks': 0}, 'sinks: 0 must be at least 1'),
    ],
)
def test_errors_name_the_option(options, message):
    with pytest.raises(ConfigError, match=f'^regions.{message}'):
        LayerKind(regions=Options(options))


class TestModel:
    @staticmethod
    def config(regions, attention='dense', **fields):
        attention = {'name': attention} if isinstance(attention, str) else attention
        kind = LayerKind(attention=Options(attention), regions=regions)
        return changed(kinds={'full': kind}, **fields)

    @staticmethod
    def value(config, batch) -> float:
        """The loss, forwards only: gradients are tested above, and once for a whole model below."""
        return float(jax.jit(functools.partial(loss, config))(parameters(CONFIG), batch))

    @pytest.mark.parametrize('name', SHORT)
    def test_blockwise_is_dense_at_four_times_the_trained_length(self, name):
        batch = random_batch(rows=1, length=100)
        small = {'name': 'blockwise', 'block': 32}
        found, expected, without = (
            self.value(self.config(*given), batch)
            for given in ((SHORT[name], small), (SHORT[name], 'dense'), (None, 'dense'))
        )
        np.testing.assert_allclose(found, expected, rtol=1e-6)
        assert abs(found - without) > 1e-3

    @pytest.mark.parametrize('name', PLAIN)
    def test_short_texts_are_those_of_the_model_without(self, name):
        found, expected = (self.value(self.config(r), packed_batch()) for r in (PLAIN[name], None))
        np.testing.assert_allclose(found, expected, rtol=1e-6)

    @pytest.mark.parametrize('name', CASES)
    def test_packed_is_separate(self, name):
        config = self.config(CASES[name][0])
        found, expected = (self.value(config, batch) for batch in (packed_batch(), separate_batch()))
        np.testing.assert_allclose(found, expected, rtol=1e-6)

    def test_without_regions_the_program_is_the_same(self):
        """Whatever way they are absent."""
        batch, params = random_batch(), parameters(CONFIG)
        absent = {'name': None, 'window': None}
        programs = {
            str(jax.make_jaxpr(gradient(self.config(r)))(params, batch)) for r in (None, Options(), absent)
        }
        assert len(programs) == 1

    def test_a_kind_has_regions_of_its_own(self):
        """Through rematerialisation, scan over layers and another position method, gradients included."""
        batch, found, plain = random_batch(rows=1, length=50), [], Options(name='dense')
        for attention in (Options(name='blockwise'), plain):
            kinds = {
                'near': LayerKind(attention=plain, rule=({'name': 'causal'}, {'name': 'window', 'size': 8})),
                'far': LayerKind(
                    attention=attention,
                    regions=Options(SHORT['dual_chunk']),
                    position=Options(name='yarn', factor=2.0),
                ),
            }
            config = changed(pattern=('near', 'far'), kinds=kinds, remat='full')
            found.append(gradient(config)(parameters(config), batch))
        close(*found, atol=2e-4)  # of sums over 50 tokens

    @pytest.mark.parametrize(
        ('kind', 'fields', 'message'),
        [
            (
                {'attention': Options(name='splash')},
                {},
                "attention.name: 'splash' gives no log-sum-exp, .* Choices with regions: blockwise, dense",
            ),
            (
                {},
                {'position': {'name': 'dynamic_ntk'}},
                "kinds.full.regions: 'rerope' gives tokens other positions",
            ),
        ],
    )
    def test_errors(self, kind, fields, message):
        with pytest.raises(ConfigError, match=f'^{message}'):
            changed(kinds={'full': LayerKind(**kind, regions=Options(SHORT['rerope']))}, **fields)

    def test_every_partial_is_of_an_implementation(self):
        for name in PARTIAL:
            self.config(SHORT['rerope'], name)
