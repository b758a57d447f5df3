"""Data order is a function of seed, step and global batch: never of processes, threads or interruptions."""

import itertools
import json

import numpy as np
import pytest

from lcx.data import packing as packings
from lcx.data import tokens
from lcx.data.pipeline import batches
from lcx.data.tokenizers import Bytes
from lcx.errors import ConfigError, DataError

from .test_packing import check_row

LENGTH, BATCH, STEPS = 16, 8, 24


@pytest.fixture(scope='module')
def held(tmp_path_factory):
    """60 documents, 0 to 59 tokens long: about 110 windows, so 24 batches cross an epoch's end."""
    random = np.random.default_rng(0)
    texts = [''.join(map(chr, random.integers(97, 123, n))) for n in random.permutation(60)]
    path = tmp_path_factory.mktemp('tokens') / 'a'
    tokens.write(path, texts, Bytes())
    return tokens.read(path, 'test')


def opened(held, packing, **changes):
    return batches(held, **{'length': LENGTH, 'batch': BATCH, 'seed': 3, 'packing': packing} | changes)


def take(iterator, steps):
    return list(itertools.islice(iterator, steps))


def same(left, right):
    for a, b in zip(left, right, strict=True):
        for name, x, y in zip(a._fields, a, b):
            np.testing.assert_array_equal(x, y, err_msg=name)


@pytest.fixture(params=packings.PACKINGS)
def packing(request):
    return request.param


def test_shapes_and_types(held, packing):
    batch = next(opened(held, packing))
    for name, kind in {
        'tokens': 'i4',
        'targets': 'i4',
        'weights': 'f4',
        'positions': 'i4',
        'segments': 'i4',
    }.items():
        array = getattr(batch, name)
        assert array.shape == (BATCH, LENGTH) and array.dtype == kind
    assert batch.ids.shape == (BATCH,) and batch.ids.dtype == np.int32


def test_a_batch_can_be_one_row(held, packing):
    single, eight = take(opened(held, packing, batch=1), BATCH), next(opened(held, packing))
    np.testing.assert_array_equal(np.concatenate([b.tokens for b in single]), eight.tokens)


@pytest.mark.parametrize('rows', [[[0, 1, 2, 3], [4, 5, 6, 7]], [[0, 1, 6, 7], [2, 3], [4, 5]]])
def test_processes_share_the_batches_of_one(held, packing, rows):
    alone = take(opened(held, packing), STEPS)
    shares = [take(opened(held, packing, mine=np.array(mine)), STEPS) for mine in rows]
    back = np.argsort(np.concatenate(rows))
    joined = [type(step[0])(*(np.concatenate(parts)[back] for parts in zip(*step))) for step in zip(*shares)]
    same(joined, alone)


@pytest.mark.parametrize('prefetch', [0, 2])
def test_resume_at_every_step(held, packing, prefetch):
    alone = take(opened(held, packing), STEPS)
    iterator = opened(held, packing, prefetch=prefetch)
    states = [iterator.get_state()]
    for _ in range(STEPS - 1):
        next(iterator)
        states.append(iterator.get_state())
    for step, state in enumerate(states):
        resumed = opened(held, packing, prefetch=prefetch)
        resumed.set_state(json.loads(json.dumps(state)))
        same(take(resumed, 3)[: STEPS - step], alone[step : step + 3])
        resumed.close()


def test_resume_goes_back_and_to_other_process_counts(held, packing):
    iterator = opened(held, packing)
    take(iterator, 5)
    state = iterator.get_state()
    expected = take(iterator, 4)
    iterator.set_state(state)
    same(take(iterator, 4), expected)
    second_half = opened(held, packing, mine=np.arange(BATCH // 2, BATCH))
    second_half.set_state(state)
    same(take(second_half, 4), [type(b)(*(array[BATCH // 2 :] for array in b)) for b in expected])


def test_a_state_of_other_data_is_refused(held, packing):
    state = opened(held, packing).get_state()
    with pytest.raises(DataError, match='is for seed 3; now it is 4'):
        opened(held, packing, seed=4).set_state(state)


def test_seeds_and_epochs_have_their_own_order(held, packing):
    def order(**changes):
        return np.concatenate([batch.ids for batch in take(opened(held, packing, **changes), STEPS)]).tolist()

    assert order() == order() != order(seed=4)
    if packing != 'first_fit':
        count = len(packings.PACKINGS[packing](held, LENGTH).starts)
        first, second = order()[:count], order()[count : 2 * count]
        assert sorted(first) == list(range(count))  # every window once an epoch
        assert first[: len(second)] != second


def test_first_fit_keeps_pieces_whole(held):
    spans = packings.pieces(held, LENGTH)
    pieces = {tuple(held.stream[a : a + n + 1].tolist()) for a, n in zip(*spans)}
    seen, filled = set(), []
    for batch in take(opened(held, 'first_fit'), STEPS):
        filled.append(np.mean(batch.segments > 0))
        for row in zip(*batch[:5]):
            check_row(*row)
            for segment in range(1, row[4].max() + 1):
                (at,) = np.nonzero(row[4] == segment)
                seen.add((*row[0][at].tolist(), int(row[1][at[-1]])))
        assert np.array_equal(batch.tokens[:, 0], held.stream[spans.starts[batch.ids]])
    assert seen == pieces
    assert np.mean(filled) > 0.9


def test_too_little_text_names_the_numbers(held, packing):
    with pytest.raises(
        DataError, match=rf'test gives \d+ rows of length 16 with packing {packing!r}.*batch of 1000'
    ):
        opened(held, packing, batch=1000)


def test_bad_arguments(held):
    for mine in ([], [7, 8]):
        with pytest.raises(
            ConfigError, match=rf'batch: 8 rows, of which .{str(mine)[1:-1]}. are not the rows'
        ):
            opened(held, 'pad', mine=np.array(mine, int))
    with pytest.raises(ConfigError, match=r"unknown 'firstfit'. Did you mean 'first_fit'"):
        opened(held, 'firstfit')
    with pytest.raises(ConfigError, match='length 0'):
        opened(held, 'pad', length=0)
