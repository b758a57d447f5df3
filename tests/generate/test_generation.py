"""Generation through a cache: what the model without one would write, whatever the batch, the bucket and the chunk."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lcx.config import Options
from lcx.errors import ConfigError
from lcx.generate import Sampling, at_step, generate, row_keys
from lcx.generate.loop import READ, STEP, Plan, begin, bucket, piece, programs, settle, stream, written
from lcx.generate.policies import POLICIES, Policy, Room, held_bytes, lossless
from lcx.models.decoder import Decoder
from lcx.types import PADDING
from tests.models.tiny import CONFIG, V, changed, parameters

LENGTHS, NEW, CHUNK = (3, 14, 9), 6, 4  # the bucket is of four chunks
PROMPTS = [np.random.default_rng(n).integers(0, V, n) for n in LENGTHS]
LONG = np.random.default_rng(1).integers(0, V, 29)  # beyond the trained length
SIZE = 40  # of the uncached texts
LAYERS = changed(layers=1)  # where depth does not matter


@functools.cache
def forward(model, length):
    """``(params, tokens, positions, segments) -> hidden, logits`` of whole rows, uncached."""
    decoder = Decoder(model, length=length)

    def run(params, *text):
        hidden = decoder.apply({'params': params}, *text)
        return hidden, decoder.apply({'params': params}, hidden, method='logits')

    return jax.jit(run)


def uncached(model, ids, positions=None, length=SIZE):
    """Hidden state and logits of the last of ``ids``."""
    n = len(ids)
    positions = np.arange(n) if positions is None else positions[:n]
    text = np.array(ids, np.int32), positions, np.ones(n, np.int32)
    text = [np.pad(x, (0, SIZE - n))[None] for x in text]
    return [np.array(x)[0, n - 1] for x in forward(model, length)(parameters(model), *text)]


def continued(model, ids, new=NEW, choose=np.argmax, **options):
    """What repeated forward passes write."""
    text = list(ids)
    for _ in range(new):
        text.append(int(choose(uncached(model, text, **options)[1])))
    return text[len(ids) :]


def run(prompts, model=CONFIG, new=NEW, chunk=CHUNK, **options):
    return [
        ids.tolist() for ids in generate(model, parameters(model), prompts, new=new, chunk=chunk, **options)
    ]


@pytest.fixture(scope='module')
def greedy():
    return [continued(CONFIG, ids) for ids in PROMPTS]


@pytest.mark.parametrize('chunk', [4, 16])
def test_greedy_text_is_that_of_repeated_forward_passes(greedy, chunk):
    assert run(PROMPTS, chunk=chunk) == greedy
    assert len({tuple(row) for row in greedy}) == 3 and len(set(greedy[1])) > 2  # it says something


def test_a_prompt_alone_is_the_prompt_in_a_batch(greedy):
    assert [run([ids])[0] for ids in PROMPTS] == greedy


@pytest.mark.parametrize('chunk', [4, 32])
def test_a_text_beyond_the_trained_length_where_rotations_follow_it(chunk):
    """From the first chunk on the whole prompt counts, and then each new token."""
    model = changed(position=Options(name='dynamic_ntk'))
    plan = Plan.of(model, [LONG], new=NEW, chunk=chunk)
    prompt = plan.prompt([LONG], 0)
    reading = programs(plan).read(
        parameters(model), prompt, begin(plan, prompt), prompt.first(chunk), plan.chunks
    )
    np.testing.assert_allclose(reading.last[0], uncached(model, LONG)[0], atol=2e-5)
    assert run([LONG], model, chunk=chunk) == [continued(model, LONG)]


def test_factors_that_follow_the_length_are_those_of_bucket_and_new_tokens():
    model = changed(layers=1, position=Options(name='ntk'))
    assert run([LONG], model) == [continued(model, LONG, length=32 + NEW)]
    assert run([LONG], model) != [continued(model, LONG, length=64 + NEW)]


@pytest.mark.parametrize('name', ['randomized', 'random_float'])
def test_positions_that_are_drawn_are_drawn_once_for_the_whole_text(name):
    model = changed(layers=1, position=Options(name=name, target_length=100))
    plan = Plan.of(model, PROMPTS, new=NEW, chunk=CHUNK)
    drawn = [row[plan.room.prompt - n :] for row, n in zip(plan.prompt(PROMPTS, 5).positions, LENGTHS)]
    assert all(len(row) == n + NEW and np.all(np.diff(row) > 0) for row, n in zip(drawn, LENGTHS))
    assert max(row[-1] for row in drawn) > 60
    expected = [continued(model, ids, positions=row) for ids, row in zip(PROMPTS, drawn)]
    assert run(PROMPTS, model, seed=5) == expected
    wide = Plan.of(model, [*PROMPTS[:2], LONG], new=NEW, chunk=CHUNK).prompt([*PROMPTS[:2], LONG], 5)
    for row, other, n in zip(drawn, wide.positions, LENGTHS[:2]):
        np.testing.assert_array_equal(row, other[-n - NEW :])


def test_rows_stop_at_an_end_and_the_loop_when_all_have(greedy):
    ends = [greedy[0][1], greedy[1][3], greedy[2][2]]
    expected = [row[: min(row.index(e) for e in ends if e in row) + 1] for row in greedy]
    assert max(map(len, expected)) < NEW
    assert run(PROMPTS, eos=ends) == expected
    plan = Plan.of(CONFIG, PROMPTS, new=NEW, chunk=CHUNK, eos=ends)
    assert written(plan, parameters(CONFIG), plan.prompt(PROMPTS, 0))[1] == max(map(len, expected))


def test_no_more_than_new_tokens():
    assert [len(ids) for ids in run(PROMPTS[:1], LAYERS, new=1)] == [1]
    assert [len(ids) for ids in run(PROMPTS, LAYERS)] == [NEW] * 3


def test_a_row_draws_by_its_number_whatever_the_batch():
    sampling = Sampling(temperature=1.5, top_k=40)
    draw = functools.partial(run, model=LAYERS, sampling=sampling, seed=3)
    a, b, c = PROMPTS
    first, second = draw([a, b, c]), draw([c, b])
    assert first[1] == second[1] and first[0] != second[0] and draw([a])[0] == first[0]
    assert draw([a, b, c]) == first and draw([a, b, c], seed=4) != first
    keys = row_keys(3, jnp.arange(3))
    choose = lambda logits, step: sampling.choose(logits[None], at_step(keys[1:2], step))[0]  # noqa: E731
    text = list(b)
    for step in range(NEW):
        text.append(int(choose(uncached(LAYERS, text)[1], step)))
    assert first[1] == text[len(b) :]


def test_tokens_of_prompt_and_text_are_penalised():
    sampling, text = Sampling(repetition_penalty=3.0), list(PROMPTS[0])
    for _ in range(NEW):
        seen = np.isin(np.arange(V), text)[None]
        text.append(int(sampling.choose(jnp.array(uncached(LAYERS, text)[1])[None], seen=seen)[0]))
    found = run([PROMPTS[0], PROMPTS[1]], LAYERS, sampling=sampling)[0]
    assert found == text[len(PROMPTS[0]) :] and found != run([PROMPTS[0]], LAYERS)[0]


def test_a_policy_forgets_when_the_prompt_ends(monkeypatch):
    """One that hides all of the prompt: the first token still knows it, and the others only one another."""

    def hidden(cache):
        state = cache.state._replace(seg=jnp.full_like(cache.state.seg, PADDING))
        return type(cache)(cache.store, state, cache.newest)

    def forgetful(*, room):
        return Policy(lambda reach: lossless(reach, room), compress=hidden)

    monkeypatch.setitem(POLICIES, 'forgetful', forgetful)
    (found,) = run(PROMPTS[1:2], LAYERS, cache={'name': 'forgetful'})
    n = len(PROMPTS[1])
    text = [int(np.argmax(uncached(LAYERS, PROMPTS[1])[1]))]
    for _ in range(NEW - 1):
        text.append(int(np.argmax(uncached(LAYERS, text, positions=np.arange(n, SIZE))[1])))
    assert found == text


def test_tokens_come_one_by_one(greedy):
    told = []
    plan = Plan.of(CONFIG, PROMPTS[:2], new=NEW, chunk=CHUNK)
    prompt = plan.prompt(PROMPTS[:2], 0)
    steps = stream(plan, parameters(CONFIG), prompt, told=lambda *x: told.append(x))
    assert np.stack(list(steps), axis=1).tolist() == greedy[:2]
    assert told == [(i, 4) for i in (1, 2, 3, 4)]
    ended = Plan.of(CONFIG, PROMPTS[:1], new=NEW, chunk=CHUNK, eos=greedy[0][2])
    steps = stream(ended, parameters(CONFIG), ended.prompt(PROMPTS[:1], 0))
    assert [int(x[0]) for x in steps] == greedy[0][: greedy[0].index(greedy[0][2]) + 1]


def test_only_chunks_with_tokens_are_read():
    told = []
    plan = Plan.of(LAYERS, [np.arange(33)], new=2, chunk=4)
    assert plan.room.prompt == 64
    list(stream(plan, parameters(LAYERS), plan.prompt([np.arange(33)], 0), told=lambda *x: told.append(x)))
    assert told[-1] == (9, 9)


def test_buckets_are_powers_of_two_of_chunks():
    assert [bucket(n, 512) for n in (1, 512, 513, 1024, 1025, 5000)] == [512, 512, 1024, 1024, 2048, 8192]
    assert bucket(7, 3) == 12


def test_for_short_prompts_chunks_are_halved():
    assert [piece(n, 512) for n in (1, 64, 65, 256, 257, 5000)] == [64, 64, 128, 256, 512, 512]
    assert [piece(1, n) for n in (100, 200, 204, 51)] == [100, 100, 102, 51]
    assert Plan.of(LAYERS, [np.arange(9), np.arange(70)], new=1).room == Room(128, 1, 128)


def test_one_program_inside_a_bucket():
    model = changed(layers=1, hidden=24)
    before = written._cache_size()
    for n in (9, 12, 16):
        run([np.arange(n), np.arange(2)], model)
    assert written._cache_size() == before + 1
    run([np.arange(17), np.arange(2)], model)
    assert written._cache_size() == before + 2


@pytest.mark.parametrize('cache', [{'name': 'full'}, {'name': 'streaming', 'window': 2**18 - 100}], ids=str)
def test_caches_are_written_in_place(cache):
    prompt = [np.zeros(2**18, np.int32)]
    plan = Plan.of(LAYERS, prompt, new=2, chunk=16, cache=cache)
    prompt, params = plan.prompt(prompt, 0), parameters(LAYERS)
    reading = jax.eval_shape(functools.partial(begin, plan), prompt)
    state = jax.eval_shape(functools.partial(settle, plan), params, prompt, *reading)
    size = held_bytes(reading.caches)

    def extra(program, *arguments):
        return program.lower(plan, params, prompt, *arguments).compile().memory_analysis().temp_size_in_bytes

    assert extra(STEP, state) < size / 4
    assert extra(READ, reading, 0, 1) < size / 4
    assert size < extra(written) < 1.4 * size  # here the cache is inside


@pytest.mark.parametrize(
    ('prompts', 'options', 'message'),
    [
        ([], {}, 'prompts: there is none.'),
        ([[1, 2], []], {}, r'prompts\[1\]: empty'),
        ([[1]], {'new': 0}, 'new: 0 must be at least 1'),
        ([[1]], {'chunk': 0}, 'chunk: 0 must be at least 1'),
        ([[1]], {'cache': {'name': 'ful'}}, "cache.name: unknown 'ful'. Did you mean 'full'?"),
        ([[1]], {'cache': {'name': 'streaming', 'sink': 4}}, "unknown 'sink'. Did you mean 'sinks'?"),
        (
            [[1] * 100],
            {'cache': {'name': 'full', 'tokens': 64}},
            'cache.tokens: 64 cannot hold a prompt of 128 and 6 new tokens; give 134, or a policy .*: streaming',
        ),
    ],
)
def test_what_cannot_be_generated(prompts, options, message):
    with pytest.raises(ConfigError, match=message):
        run(prompts, **options)


def test_a_policy_that_does_not_go_with_the_model():
    from lcx.models import LayerKind

    model = changed(kinds={'full': LayerKind(regions=Options(name='rerope', window=4))})
    with pytest.raises(ConfigError, match="'streaming' has regions of its own"):
        run(PROMPTS, model, cache={'name': 'streaming', 'window': 4})


def test_a_model_in_16_bits():
    assert [len(ids) for ids in run(PROMPTS, changed(layers=1, dtype='bfloat16'))] == [NEW] * 3
