"""Eviction: which tokens survive, against the papers' rules in float64 NumPy, and what a cache keeps whatever comes."""

import collections
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lcx.attention import cached, masks
from lcx.config import Options
from lcx.errors import ConfigError
from lcx.generate import eviction
from lcx.generate.evicting import Evicting, compressed
from lcx.generate.policies import BOUNDED, Room, held_bytes, make_policy
from lcx.generate.reading import room, score
from lcx.models import LayerKind, init
from lcx.models import score as whole_score
from lcx.models.attention import remembered
from lcx.models.cache import Cache, Entry, Memory, Shape
from lcx.types import PADDING
from tests.contracts.cache_contract import HYBRID, padded, pieces, stepping, whole
from tests.models.tiny import CONFIG, T, changed, parameters, random_batch

B, K, G, H, LENGTH = 2, 2, 2, 4, 24
PAD = (0, 5)
L = 3  # layers in the stack, each with queries, keys and values of its own
RANDOM = np.random.default_rng(0)
Q = RANDOM.normal(size=(L, B, LENGTH, K * G, H)) * 2
KEYS, VALUES = (RANDOM.normal(size=(L, B, LENGTH, K, H)) for _ in range(2))
INDEX = np.arange(LENGTH)
SEG = (np.array(PAD)[:, None] <= INDEX).astype(np.int32)
POS = np.where(SEG, INDEX - np.array(PAD)[:, None], 0).astype(np.int32)
ROWS, ONES = [6] * 4, [6] + [1] * 18


@functools.partial(jax.jit, donate_argnums=0)
def read(cache: Cache, q, k, v, pos, seg) -> Cache:
    """All layers read one piece."""

    def layer(cache, xs):
        number, q, k, v = xs
        side = cached.Side(masks.both(masks.causal, masks.same_segment), q)
        query = cached.Query((side,), pos, seg, jnp.arange(K * G))
        return remembered(Memory(cache, number), Entry(k, v, pos, seg), query)[1], None

    return jax.lax.scan(layer, cache.begin(pos, seg), (jnp.arange(L), q, k, v))[0]


def empty(store: Evicting) -> Cache:
    return Cache.make(store, Shape(tuple(range(L)), L, B, K, H), jnp.float32)


def through(cache: Cache, sizes, end=LENGTH):
    """The caches after each piece, as arrays of NumPy: they are donated to the next."""
    done = end - sum(sizes)
    for size in sizes:
        part = slice(done, done + size)
        three = (x[:, :, part].astype(np.float32) for x in (Q, KEYS, VALUES))
        cache = read(cache, *three, POS[:, part], SEG[:, part])
        yield jax.tree.map(np.array, cache)
        done += size


def tokens(cache: Cache, layer: int):
    """The indices of what each row and head of a layer holds."""
    pos, seg = cache.state.pos[layer], cache.state.seg[layer]
    return [[sorted(p[s > 0] + PAD[b]) for p, s in zip(pos[b], seg[b])] for b in range(B)]


class Paper:
    """One row of one layer, token sets as lists of indices; ``judge`` says what remains of each head's."""

    def __init__(self, layer: int, row: int):
        self.q, self.k, self.pad = Q[layer, row], KEYS[layer, row], PAD[row]
        self.held = [[] for _ in range(K)]

    def attention(self, head: int, queries, ids):
        """'G T n' probabilities."""
        s = np.einsum('tgh,nh->gtn', self.q[queries, head * G : head * G + G], self.k[ids, head]) / np.sqrt(H)
        s = np.where(np.array(queries)[:, None] >= np.array(ids), s, -np.inf)
        p = np.exp(s - s.max(-1, keepdims=True))
        return p / p.sum(-1, keepdims=True)

    def read(self, start: int, size: int, judge):
        new = [i for i in range(start, start + size) if i >= self.pad]
        if new:
            ids = [held + new for held in self.held]
            self.held = judge(self, new, ids, [self.attention(h, new, ids[h]) for h in range(K)])


def best(ids, score, budget, recent):
    """The newest ``recent`` and those of the highest score; of equals the newer ones."""
    fixed = ids[max(0, len(ids) - recent) :] if recent else []
    rest = sorted(set(ids) - set(fixed), key=lambda i: (score[i], i))
    room = budget - len(fixed)
    return sorted(rest[max(0, len(rest) - room) :] + fixed)


def paper_h2o(budget, recent):
    sums = collections.defaultdict(float)

    def judge(row, new, ids, probabilities):
        out = []
        for head in range(K):
            for i, total in zip(ids[head], probabilities[head].sum((0, 1))):
                sums[head, i] += total
            score = {i: sums[head, i] for i in ids[head]}
            out.append(best(ids[head], score, budget, recent))
        return out

    return judge


def paper_tova(budget):
    def judge(row, new, ids, probabilities):
        last = np.concatenate([p[:, -1] for p in probabilities]).mean(0)
        return [best(ids[0], dict(zip(ids[0], last)), budget, 0)] * K

    return judge


def paper_scissorhands(budget, history, recent):
    """Low scores of each token, one list per head: how many queries ago, and in how many of the group's heads."""
    low = collections.defaultdict(float)

    def judge(row, new, ids, probabilities):
        out = []
        for head in range(K):
            p, n = probabilities[head], len(ids[head])
            queries = new[-history:]
            for at, i in enumerate(ids[head]):
                # The share of older queries that is still in the window, which slides by the tokens of the piece.
                low[head, i] *= max(0, 1 - row.size / history)
                seeing = [t for t, q in enumerate(new) if q in queries and q >= i]
                low[head, i] += np.mean([sum(p[g, t, at] < 1 / n for t in seeing) for g in range(G)])
            out.append(best(ids[head], {i: -low[head, i] for i in ids[head]}, budget, recent))
        return out

    return judge


CHUNKED = {
    'h2o': (eviction.h2o(None), 8, lambda: paper_h2o(8, 4)),
    'h2o, 3 recent': (eviction.h2o(3), 9, lambda: paper_h2o(9, 3)),
    'tova': (eviction.tova(), 7, lambda: paper_tova(7)),
    'scissorhands': (eviction.scissorhands(4, 2), 8, lambda: paper_scissorhands(8, 4, 2)),
}


@pytest.mark.parametrize('name', CHUNKED)
def test_what_survives_is_what_the_paper_keeps(name):
    """Piece by piece and token by token, after each of them: all heads and layers, with padding."""
    rule, budget, judge = CHUNKED[name]
    for sizes in (ROWS, ONES):
        papers = [[(Paper(layer, row), judge()) for row in range(B)] for layer in range(L)]
        done = 0
        for cache, size in zip(through(empty(Evicting(rule, 6, budget)), sizes), sizes):
            for layer in range(L):
                for row, (paper, rules) in enumerate(papers[layer]):
                    paper.size = size
                    paper.read(done, size, rules)
                    assert tokens(cache, layer)[row] == paper.held, (sizes, done, layer, row)
            done += size


def paper_snapkv(layer, row, budget, observe, pool, width):
    """Of the whole prompt: its last queries vote for what came before them."""
    paper, ids = Paper(layer, row), list(range(PAD[row], LENGTH))
    out = []
    for head in range(K):
        votes = paper.attention(head, ids[-observe:], ids)[..., :-observe].sum((0, 1))
        around = [votes[max(0, i - width // 2) : i + width // 2 + 1] for i in range(len(votes))]
        pooled = [max(x) if pool == 'max' else sum(x) / width for x in around]
        score = dict(zip(ids, pooled))
        out.append(best(ids, score, budget, observe) if budget > observe else ids[-observe:])
    return out


@pytest.mark.parametrize('pool, width', [('max', 5), ('mean', 3)])
@pytest.mark.parametrize('sizes', [[24], [18, 6]])
def test_snapkv_compresses_a_prompt_as_the_paper_does(pool, width, sizes):
    rule = eviction.snapkv(5, pool, width)
    *_, cache = through(empty(Evicting(rule, 24, 9, whole=32)), sizes)
    small = compressed(cache, more=7)
    assert small.state.slots == 9 + 7 + 24
    for layer in range(L):
        for row in range(B):
            assert tokens(small, layer)[row] == paper_snapkv(layer, row, 9, 5, pool, width)
    assert np.all(np.diff(small.state.pos[..., :9]) > 0)  # in the order of the text


@pytest.mark.parametrize('depth, budget, beta', [(3, 11, 20.0), (32, 2048, 20.0), (5, 40, 2.0), (1, 9, 20.0)])
def test_pyramids_have_the_budgets_of_the_authors_code(depth, budget, beta):
    """Steps from (2 - 1 / beta) to 1 / beta of what is not observed; the mean is the budget to the token."""
    observe = 5
    found = eviction.pyramidkv(observe, 'max', 7, beta, 10**6).budgets(budget, depth)
    least = (budget - observe) / beta
    most = 2 * (budget - observe) - least
    expected = observe + np.linspace(most, least, depth) if depth > 1 else [budget]
    if depth > 1:
        np.testing.assert_allclose(found, expected, atol=0.51)
        assert sum(found) == depth * budget and list(found) == sorted(found, reverse=True)
    short = eviction.pyramidkv(observe, 'max', 7, beta, budget + 1).budgets(budget, depth)
    assert max(short) <= budget + 1 and sum(eviction.pyramidkv(5, 'max', 7, 1.0, 99).budgets(9, 4)) == 36


def test_pyramidkv_is_snapkv_with_the_budget_of_each_layer():
    rule = eviction.pyramidkv(5, 'mean', 3, 4.0, 24)
    *_, cache = through(empty(Evicting(rule, 24, 9, whole=24)), [24])
    assert cache.state.budgets == (12, 9, 6)
    small = compressed(cache)
    for layer, budget in enumerate(cache.state.budgets):
        for row in range(B):
            assert tokens(small, layer)[row] == paper_snapkv(layer, row, budget, 5, 'mean', 3)


RULES = {
    'h2o': eviction.h2o(3),
    'tova': eviction.tova(),
    'scissorhands': eviction.scissorhands(6, 3),
    'snapkv': eviction.snapkv(3, 'max', 3),
    'pyramidkv': eviction.pyramidkv(3, 'mean', 3, 5.0, LENGTH),
}


def kept(cache):
    """How many tokens each head holds, 'L B K'."""
    return np.sum(np.array(cache.state.seg) != PADDING, axis=-1)


ALWAYS = {'tova': 0}  # how many of the newest tokens are kept; else 3


@pytest.mark.parametrize('name', RULES)
def test_budgets_recent_tokens_and_padding(name):
    """In pieces, then token by token, then in pieces again: every head keeps as many real tokens as it may."""
    done, budget = 0, 8
    sizes = [6, 6, 1, 1, 1, 1, 1, 1, 6]
    for cache, size in zip(through(empty(Evicting(RULES[name], 6, budget)), sizes), sizes):
        done += size
        budgets = np.array(cache.state.budgets)
        assert budgets.mean() == budget
        real = np.maximum(done - np.array(PAD), 0)
        expected = np.minimum(real, budgets[:, None])
        np.testing.assert_array_equal(kept(cache), np.broadcast_to(expected[..., None], (L, B, K)))
        assert cache.state.slots == budgets.max() + 6
        for layer in range(L):
            for row, heads in enumerate(tokens(cache, layer)):
                for ids in heads:
                    assert len(set(ids)) == len(ids)
                    recent = ALWAYS.get(name, 3)
                    assert set(range(max(PAD[row], done - recent), done)) <= set(ids)
                assert name != 'tova' or heads[0] == heads[1]


OPTIONS = {
    'h2o': {},
    'tova': {},
    'scissorhands': {'history': 8, 'recent': 3},
    'snapkv': {'observe': 5},
    'pyramidkv': {'observe': 5, 'beta': 1.2},
}


def through_model(model, policy, texts, sizes, prompt):
    """Hidden states, and the caches at the end; the prompt ends after ``prompt`` tokens."""
    caches, found, done = policy.caches(model, batch=2), [], 0
    for piece in pieces(texts, sizes):
        hidden, caches = stepping(model)(parameters(model), caches, *piece)
        found.append(hidden)
        done += piece[0].shape[1]
        if done == prompt:
            caches = jax.jit(policy.compressed)(caches)
    return np.concatenate(found, axis=1), caches


@pytest.mark.parametrize('name', OPTIONS)
def test_a_compressed_prompt_that_fits_is_not_changed(name):
    """It is read as if all were kept: grouped heads, a row with padding. The contract has what drops by the piece."""
    options = {'name': name, 'after': 'prompt', 'budget': 24, **OPTIONS[name]}
    policy = make_policy(options, Room(prompt=20, new=4, chunk=10))
    texts = padded()
    found, caches = through_model(CONFIG, policy, texts, (10, 10, 1, 1, 1, 1), prompt=20)
    real = texts[2] > 0
    expected = whole(CONFIG)(parameters(CONFIG), *texts)
    np.testing.assert_allclose(found[real], expected[real], atol=2e-5)
    np.testing.assert_array_equal(kept(caches.layers[0]), [[[24, 24], [11, 11]]] * 2)


def test_keys_that_are_turned_when_read():
    """Heads keep tokens of their own, and turn their keys by themselves."""
    kinds = {
        'ntk': LayerKind(position=Options(name='dynamic_ntk', original_length=4)),
        'extend': LayerKind(regions=Options(name='self_extend', group=3, window=7)),
    }
    model = changed(kinds=kinds, pattern=('ntk', 'extend'))
    policy = make_policy({'name': 'h2o', 'budget': 24}, Room(prompt=24, new=0, chunk=12))
    batch = random_batch()
    texts = batch.tokens, batch.positions, batch.segments
    caches, found = policy.caches(model, batch=2).until(jnp.full(2, T - 1)), []
    for piece in pieces(texts, (12, 12)):
        hidden, caches = stepping(model)(parameters(model), caches, *piece)
        found.append(hidden)
    expected = whole(model)(parameters(model), *texts)
    np.testing.assert_allclose(np.concatenate(found, axis=1), expected, atol=5e-5)


def test_a_step_moves_one_token():
    """Besides the cache it needs far less than a copy of either array."""
    model = changed(head_dim=64)
    policy = make_policy({'name': 'h2o', 'budget': 2**17}, Room(prompt=2**18, new=0, chunk=8))
    caches = jax.eval_shape(lambda: policy.caches(model, batch=2))
    token = (jax.ShapeDtypeStruct((2, 1), jnp.int32),) * 3
    params = jax.eval_shape(lambda: init(model, jax.random.key(0)))
    memory = stepping(model).lower(params, caches, *token).compile().memory_analysis()
    assert memory.temp_size_in_bytes < caches.layers[0].state.k.size * 4 / 8


def test_one_program_decodes_whether_there_is_room_or_not():
    policy = make_policy({'name': 'h2o', 'budget': 6}, Room(prompt=24, new=0, chunk=8))
    before = stepping(CONFIG)._cache_size()
    _, caches = through_model(CONFIG, policy, padded(), (1,) * 24, prompt=None)
    assert stepping(CONFIG)._cache_size() == before + 1
    np.testing.assert_array_equal(kept(caches.layers[0]), [[[6, 6], [6, 6]]] * 2)


@pytest.mark.parametrize('name, options', [('snapkv', {'observe': 4}), ('h2o', {'after': 'prompt'})])
def test_texts_are_scored(name, options):
    """Up to the end of the prompt as without a cache; what follows reads what is kept."""
    batch = random_batch()
    batch = batch._replace(weights=(np.arange(T) >= 15).astype(np.float32) * batch.weights)
    policy = make_policy({'name': name, 'budget': 7, **options}, room(T, 8))
    found = jax.jit(lambda params: score(CONFIG, params, batch, policy, chunk=8, logits=64))(
        parameters(CONFIG)
    )
    expected = jax.jit(lambda params: whole_score(CONFIG, params, batch, chunk=64))(parameters(CONFIG))
    np.testing.assert_allclose(found.nll[:, :16], expected.nll[:, :16], atol=5e-5)
    assert np.max(np.abs(found.nll - expected.nll)[:, 16:]) > 1e-3


def test_bytes_are_as_good_as_tokens():
    """Keys and values of one layer, all rows and heads."""
    size = 10 * (2 * 2 * 2 * 8 * 4)
    caches = [
        make_policy({'name': 'h2o', **budget}, Room(100, 0, 8)).caches(HYBRID, batch=2).layers[0]
        for budget in ({'bytes': size + 5}, {'budget': 10})
    ]
    assert caches[0].state.budgets == caches[1].state.budgets == (10,)
    assert caches[0].state.k.shape == (1, 2, 2, 10 + 8, 8)
    assert 2 * caches[0].state.k.nbytes * 10 // 18 == size


def test_equal_options_are_one_program():
    one, two = (make_policy({'name': 'scissorhands', 'budget': 40}, Room(100, 0, 8)).store for _ in range(2))
    reach = masks.causal.reach
    assert one(reach) == two(reach) and hash(one(reach)) == hash(two(reach))


@pytest.mark.parametrize(
    'options, message',
    [
        ({'name': 'h2o'}, r'cache\.budget: give tokens .* or bytes .* one of both'),
        ({'name': 'tova', 'budget': 9, 'bytes': 99}, r'cache\.budget: give tokens .* one of both'),
        ({'name': 'h2o', 'budget': 1}, r'cache\.budget: 1 must be at least 2'),
        ({'name': 'h2o', 'budget': 8, 'recent': 8}, r'cache\.budget: 8 must be at least 9: one token beside'),
        ({'name': 'h2o', 'budget': 8, 'recent': -1}, r'cache\.recent: -1 must be at least 0'),
        ({'name': 'tova', 'budget': 0}, r'cache\.budget: 0 must be at least 1'),
        ({'name': 'scissorhands', 'budget': 10}, r'cache\.budget: 10 must be at least 11'),
        ({'name': 'scissorhands', 'budget': 10, 'history': 0}, r'cache\.history: 0 must be at least 1'),
        ({'name': 'snapkv', 'budget': 32}, r'cache\.budget: 32 must be at least 33'),
        ({'name': 'snapkv', 'budget': 64, 'observe': 0}, r'cache\.observe: 0 must be at least 1'),
        ({'name': 'snapkv', 'budget': 64, 'pool': 'men'}, r"cache\.pool: unknown 'men'\. Did you mean 'mean'"),
        ({'name': 'snapkv', 'budget': 64, 'width': 4}, r'cache\.width: 4 must be an odd number'),
        ({'name': 'pyramidkv', 'budget': 64, 'beta': 0.5}, r'cache\.beta: 0\.5 must be at least 1'),
        ({'name': 'h2o', 'budget': 8, 'after': 'promt'}, r"cache\.after: unknown 'promt'\. Did you mean 'prompt'"),
    ],
)  # fmt: skip
def test_options_that_cannot_be(options, message):
    with pytest.raises(ConfigError, match=message):
        make_policy(options, Room(100, 0, 8))


def test_what_is_only_known_with_the_model():
    policy = make_policy({'name': 'h2o', 'bytes': 600}, Room(100, 0, 8))
    with pytest.raises(
        ConfigError, match=r'bytes: 600 hold 1 tokens of a layer; .* needs 2, that is 1024 bytes'
    ):
        policy.caches(HYBRID, batch=4)
    policy = make_policy({'name': 'h2o', 'budget': 4}, Room(100, 0, 8))
    with pytest.raises(ConfigError, match='chunk: 9 tokens at a time, in a cache made for pieces of 8'):
        through_model(HYBRID, policy, padded(), (9,), prompt=None)


def test_memory_that_does_not_grow():
    sizes = {}
    for name, options in OPTIONS.items():
        makes = (make_policy({'name': name, 'budget': 33, **options}, Room(n, 0, 8)) for n in (100, 1000))
        a, b = (held_bytes(jax.eval_shape(lambda p=p: p.caches(HYBRID, batch=1))) for p in makes)
        sizes[name] = a == b
    assert {name for name, same in sizes.items() if same} == set(OPTIONS) & set(BOUNDED)
