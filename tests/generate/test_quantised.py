"""Quantised caches: the numbers of KIVI by NumPy in float64, the same codes whatever the pieces, and their size."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lcx.attention import cached, masks
from lcx.config import Options
from lcx.errors import ConfigError
from lcx.generate.policies import Policy, Room, held_bytes, make_policy
from lcx.generate.quantised import Quantised, number, pack, quantise, unpack
from lcx.generate.ring import Ring
from lcx.models import LayerKind, ModelConfig
from lcx.models.cache import Entry, Shape
from lcx.models.decoder import Decoder
from tests.models.tiny import T, changed, parameters, random_batch

L, B, K, N, H = 2, 2, 2, 4, 8
STORE = Quantised(tokens=40, bits=4, group=4, residual=6)
PIECES = ((29, 1), (10, 10, 2, 2, 2, 2, 1, 1), (2, *[1] * 28))
RANDOM = np.random.default_rng(0)
TEXT = [(RANDOM.normal(size=(B, 30, K, H)) + 3 * RANDOM.normal(size=H)).astype(np.float32) for _ in range(2)]


@functools.cache
def writing(store: Quantised):
    """``(state, k, v, seg) -> (state, keys)``: a piece written in the second layer, and all that is read there."""

    @jax.jit
    def write(state, k, v, seg):
        pos = jnp.broadcast_to(state.next + jnp.arange(k.shape[1]), seg.shape)
        state = store.begin(state, pos, seg)
        new = Entry(k, v, pos, seg)
        state = store.write(state, jnp.int32(1), new)
        keys = store.blocks(state, jnp.int32(1)).read(jnp.int32(0), store.slots)
        return store.settle(state, jnp.int32(1), new, None), keys

    return write


def read_in(pieces, store=STORE, text=TEXT, seg=None, dtype=jnp.float32):
    """The state after all pieces, and what the last one reads."""
    k, v = text
    seg = np.ones(k.shape[:2], np.int32) if seg is None else seg
    state, start = store.init(Shape(tuple(range(L)), L, len(k), K, H), dtype), 0
    for size in pieces:
        part = slice(start, start + size)
        state, keys = writing(store)(state, k[:, part], v[:, part], seg[:, part])
        start += size
    return state, keys


def bfloat16(x: np.ndarray, towards: float) -> np.ndarray:
    """The nearest bfloat16 that does not lie on the other side of ``x``."""
    near = x.astype(jnp.bfloat16)
    away = np.nextafter(near, np.asarray(towards, near.dtype))
    outside = near.astype(float) > x if towards < 0 else near.astype(float) < x
    return np.where(outside, away, near).astype(float)


def kivi(x: np.ndarray, bits: int, axis: int) -> tuple[np.ndarray, np.ndarray]:
    """Codes, and the numbers that they stand for, in float64; groups lie along ``axis``."""
    x = x.astype(float)
    zero = bfloat16(x.min(axis, keepdims=True), -np.inf)
    scale = bfloat16((x.max(axis, keepdims=True) - zero) / (2**bits - 1), np.inf)
    codes = np.rint((x - zero) / scale)
    return codes, zero + scale * codes


@pytest.mark.parametrize('bits', [2, 4, 8])
def test_numbers_come_back_within_half_a_step_whatever_they_are(bits):
    x = RANDOM.normal(size=(6, 16, 8)).astype(np.float32) * [[[1e-3]], [[1]], [[50]], [[1]], [[1]], [[1]]]
    x = (x + np.array([0, 100, -7, 0, 0, 0])[:, None, None]).astype(np.float32)
    x[3], x[4], x[5, 3:] = 0, 1.2345678, np.nan  # constant ones; padding after the third token
    real = np.ones((6, 16, 1), bool)
    real[5, 3:] = False
    codes, scale, zero = quantise(jnp.array(x), real, bits, axis=1)
    assert codes.max() == 2**bits - 1
    back = number(zero) + number(scale) * unpack(pack(codes, bits), bits)
    assert np.isfinite(back).all()
    error = np.where(real, np.abs(back - x), 0)
    assert (
        error <= 0.5 * number(scale) + 1e-6 * np.abs(x).max(1, keepdims=True, where=real, initial=0)
    ).all()
    assert (number(scale)[5] < 8 / (2**bits - 1)).all()


@pytest.mark.parametrize('bits', [2, 4, 8])
def test_codes_numbers_and_attention_are_those_of_kivi(bits):
    store = dataclasses.replace(STORE, bits=bits)
    state, keys = read_in((10, 10, 10), store)
    done, whole = 24, [x.swapaxes(1, 2) for x in TEXT]  # 30 tokens but 6, in groups of 4
    old = [x[:, :, :done].reshape(B, K, done // 4, 4, H) for x in whole]
    parts = kivi(old[0], bits, axis=3), kivi(old[1].reshape(*old[1].shape[:-1], 2, 4), bits, axis=5)
    for packed, (codes, _) in zip((state.keys, state.values), parts):
        found = unpack(packed.codes[1], bits)[:, :, : done // 4]
        np.testing.assert_array_equal(found, codes.reshape(found.shape))
        assert not packed.codes[0].any()  # another layer
    # The last piece was read as it was: what is quantised now is read from the next one on.
    np.testing.assert_allclose(keys.k[:, :, 20:30], whole[0][:, :, 20:], atol=0)
    q = RANDOM.normal(size=(B, 1, N, H)).astype(np.float32)
    seg, pos = np.ones((B, 1), np.int32), np.full((B, 1), 30)
    state = store.begin(state, pos, seg)
    last = [RANDOM.normal(size=(B, 1, K, H)).astype(np.float32) for _ in range(2)]
    state = store.write(state, jnp.int32(1), Entry(*last, pos, seg))
    query = cached.Query((cached.Side(masks.causal, jnp.array(q)),), pos, seg, jnp.arange(N))
    out, _ = cached.attend(query, store.blocks(state, jnp.int32(1)))
    k, v = (
        np.concatenate([x.reshape(B, K, done, H), text[:, :, done:], new.swapaxes(1, 2)], axis=2).repeat(2, 1)
        for (_, x), text, new in zip(parts, whole, last)
    )
    s = np.einsum('BTNH,BNSH->BNTS', q.astype(float), k) / H**0.5
    p = np.exp(s - s.max(-1, keepdims=True))
    expected = np.einsum('BNTS,BNSH->BTNH', p / p.sum(-1, keepdims=True), v)
    np.testing.assert_allclose(out, expected, atol=2e-5)


def test_pieces_of_any_lengths_leave_the_same_behind():
    states, reads = zip(*(read_in(pieces) for pieces in PIECES))
    for state, keys in zip(states[1:], reads[1:]):
        groups = 24 // STORE.group
        for packed, expected in zip((state.keys, state.values), (states[0].keys, states[0].values)):
            for x, y in zip(packed, expected):
                np.testing.assert_array_equal(x[:, :, :, :groups], y[:, :, :, :groups])
        jax.tree.map(
            lambda x, y: np.testing.assert_array_equal(x[:, :, :30], y[:, :, :30]), keys[:2], reads[0][:2]
        )
        np.testing.assert_array_equal(keys.seg, reads[0].seg)
    newest = reads[0].k[:, :, 24:30]
    np.testing.assert_array_equal(newest, TEXT[0].swapaxes(1, 2)[:, :, 24:])


@pytest.mark.parametrize('size', [4, 7, 12, 43])
@pytest.mark.parametrize('last', [1, 9])
def test_blocks_of_any_size_are_the_whole(size, last):
    state, _ = read_in((20,))
    new = Entry(*(x[:, 20 : 20 + last] for x in TEXT), np.full((B, last), 20), np.ones((B, last), np.int32))
    state = STORE.write(STORE.begin(state, new.pos, new.seg), jnp.int32(1), new)
    blocks = STORE.blocks(state, jnp.int32(1))
    whole, read = blocks.read(jnp.int32(0), blocks.slots), jax.jit(blocks.read, static_argnums=1)
    for j in range(-(-blocks.slots // size)):
        start, fresh = cached.window_of(j, size, blocks.slots)
        part = read(jnp.int32(j), size)
        for x, y in zip(part[:2], whole[:2]):
            np.testing.assert_array_equal(x, y[:, :, start : start + size])
        np.testing.assert_array_equal(part.seg, np.where(fresh, whole.seg[:, start : start + size], 0))


def test_padding_is_not_counted_whatever_it_holds():
    """A row whose padding fills groups has the codes of the row without; elsewhere no range holds the padding."""
    padding = 8
    seg = np.ones((B, 30 + padding), np.int32)
    seg[0, :padding], seg[1, :6] = 0, 0  # the second row begins in the middle of a group
    text = [np.concatenate([np.full((B, padding, K, H), np.nan, np.float32), x], axis=1) for x in TEXT]
    text[0][1, 6:8], text[1][1, 6:8] = TEXT[0][1, :2], TEXT[1][1, :2]
    _, padded = read_in((29 + padding, 1), text=text, seg=seg)
    _, plain = read_in((29, 1))
    for x, y in zip(padded[:2], plain[:2]):
        assert np.isfinite(x).all()
        np.testing.assert_array_equal(x[0, :, padding : padding + 30], y[0, :, :30])
        np.testing.assert_array_equal(x[1, :, padding : padding + 30], y[1, :, :30])


def test_half_precision_is_read_as_it_was_written():
    _, keys = read_in((29, 1), dtype=jnp.bfloat16)
    newest = TEXT[0].swapaxes(1, 2)[:, :, 24:].astype(jnp.bfloat16)
    assert keys.k.dtype == keys.v.dtype == jnp.bfloat16
    np.testing.assert_array_equal(keys.k[:, :, 24:30], newest)


def through(model: ModelConfig, store: Quantised | Ring, pieces: tuple[int, ...]) -> np.ndarray:
    """The hidden states of a text read in pieces."""
    decoder, batch = Decoder(model, length=T), random_batch()
    texts = batch.tokens, batch.positions, batch.segments
    read = jax.jit(lambda params, caches, *text: decoder.apply({'params': params}, *text, caches))
    caches, found, start = Policy(lambda reach: store).caches(model, batch=2), [], 0
    for size in pieces:
        hidden, caches = read(parameters(model), caches, *(x[:, start : start + size] for x in texts))
        found.append(hidden)
        start += size
    return np.concatenate(found, axis=1)


SELF_EXTEND = LayerKind(regions=Options(name='self_extend', group=2, window=4))
COPE = LayerKind(mixer=Options(name='cope'))
MODELS = {
    'rope': changed(layers=1),
    'dynamic_ntk': changed(layers=1, position=Options(name='dynamic_ntk'), trained_length=T // 2),
    'self_extend': changed(layers=1, kinds={'full': SELF_EXTEND}),
    'cope': changed(layers=1, kinds={'full': COPE}, position=Options(name='none')),
}


@pytest.mark.parametrize('name', MODELS)
def test_a_text_within_the_residual_is_read_exactly_and_eight_bits_are_close(name):
    """What follows the first 16 tokens reads some that are quantised."""
    pieces, store = (8, 8, 8), Quantised(T, bits=8, group=4, residual=9)
    found, expected = (through(MODELS[name], store, pieces) for store in (store, Ring(T)))
    np.testing.assert_allclose(found[:, :16], expected[:, :16], atol=2e-5)
    assert 1e-5 < np.abs(found - expected).max() < 0.05


SMOLLM2 = ModelConfig(
    vocab=8,
    width=8,
    layers=30,
    heads=9,
    kv_heads=3,
    head_dim=64,
    hidden=8,
    trained_length=64,
    dtype='bfloat16',
)


@pytest.mark.parametrize(
    ('bits', 'dtype', 'residual', 'share'),
    [
        (8, 'bfloat16', 128, 0.546),
        (4, 'bfloat16', 128, 0.295),
        (2, 'bfloat16', 128, 0.169),
        (8, 'float32', 64, 0.550),
        (4, 'float32', 64, 0.299),
        (4, 'float32', 128, 0.307),
    ],
)
def test_bytes_are_this_share_of_a_full_cache_in_bfloat16(bits, dtype, residual, share):
    """Of 16,384 tokens. 4.5 bits of 16 are 0.281; in full precision up to residual + 64 tokens, fp32 twice as large."""
    room = Room(prompt=16384, new=0, chunk=512)

    def size(options, dtype):
        policy, model = make_policy(options, room), dataclasses.replace(SMOLLM2, dtype=dtype)
        return held_bytes(jax.eval_shape(lambda: policy.caches(model, batch=1)))

    full = size({'name': 'full'}, 'bfloat16')
    found = size({'name': 'quantised', 'bits': bits, 'residual': residual}, dtype) / full
    assert share - 0.001 < found <= share


@pytest.mark.parametrize('tokens', [1, 4])
def test_pieces_are_written_in_place_and_dequantised_block_by_block(tokens):
    model = changed(layers=4)
    policy = make_policy({'name': 'quantised'}, Room(prompt=2**16, new=0, chunk=4))
    caches = jax.eval_shape(lambda: policy.caches(model, batch=1))
    decoder = Decoder(model)
    step = jax.jit(lambda p, c, *x: decoder.apply({'params': p}, *x, c), donate_argnums=1)
    token = (jax.ShapeDtypeStruct((1, tokens), jnp.int32),) * 3
    memory = step.lower(parameters(model), caches, *token).compile().memory_analysis()
    assert memory.temp_size_in_bytes < held_bytes(caches) / 8


def test_the_policy_leaves_windows_as_they_are():
    policy = make_policy({'name': 'quantised'}, Room(prompt=4096, new=64, chunk=64))
    assert policy.store(masks.Reach()) == Quantised(4160)
    assert policy.store(masks.Reach(255)) == Ring(256 + 2 * 64)


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        ({'bits': 3}, r'cache\.bits: 3 must be 2, 4 or 8'),
        ({'bits': 2, 'group': 6}, r'cache\.group: 6 must be a multiple of 4'),
        ({'group': 0}, r'cache\.group: 0 must be a multiple of 2'),
        ({'residual': -1}, r'cache\.residual: -1 must be at least 0'),
    ],
)
def test_options_out_of_range_are_named(options, message):
    with pytest.raises(ConfigError, match=message):
        make_policy({'name': 'quantised', **options}, Room(1, 1, 1))
