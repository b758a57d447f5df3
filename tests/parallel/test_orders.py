"""Orders of tokens: what lies where, nothing is lost, and the work is shared evenly."""

import jax.numpy as jnp
import numpy as np
import pytest

from lcx.attention import both, causal, same_segment, window
from lcx.errors import ConfigError
from lcx.parallel import ORDERS, orders
from lcx.types import Batch, Where


@pytest.mark.parametrize(
    ('order', 'expected'),
    [
        ('contiguous', [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11]),
        ('zigzag', [0, 1, 10, 11, 2, 3, 8, 9, 4, 5, 6, 7]),
        ('striped', [0, 3, 6, 9, 1, 4, 7, 10, 2, 5, 8, 11]),
    ],
)
def test_twelve_tokens_over_three_devices(order, expected):
    assert orders.permutation(order, 12, 3).tolist() == expected


def batch(length: int, kind) -> Batch:
    numbers = 1 + np.arange(2 * length).reshape(2, length)
    tokens, targets, positions = (kind(numbers + k) for k in (0, 1, 2))
    return Batch(tokens, targets, kind(numbers / 7), positions, kind(1 + numbers % 2), kind(np.arange(2)))


@pytest.mark.parametrize('kind', [np.asarray, jnp.asarray])
@pytest.mark.parametrize('order', ORDERS)
def test_what_is_arranged_is_restored_without_its_padding(order, kind):
    given = batch(13, kind)
    moved = orders.arrange(given, order, 3)
    length = {'contiguous': 15, 'zigzag': 18, 'striped': 15}[order]
    assert moved.tokens.shape == (2, length) and isinstance(moved.tokens, type(given.tokens))
    padding = moved.segments == 0
    assert np.sum(padding) == 2 * (length - 13)
    assert not np.any(np.where(padding, moved.weights, 0)) and np.all(moved.ids == given.ids)
    for a, b in zip(moved[:-1], given[:-1]):
        assert a.dtype == b.dtype
        np.testing.assert_array_equal(orders.restore(a, order, 3, 13), b)


def test_errors_name_numbers_and_choices():
    with pytest.raises(ConfigError, match=r"order: unknown 'zigzak'\. Did you mean 'zigzag'"):
        orders.permutation('zigzak', 12, 3)
    with pytest.raises(ConfigError, match="order: unknown 'zigzak'"):
        orders.arrange(batch(13, np.asarray), 'zigzak', 3)
    with pytest.raises(
        ConfigError, match=r"length: 15 tokens .* 6 pieces of 'zigzag' on 3 devices\. Nearest: 12 or 18"
    ):
        orders.permutation('zigzag', 15, 3)


def balance(rule, order: str, documents: int = 1) -> float:
    """The most blocks of 64 tokens that one of 8 devices makes, over their mean, for 16384 tokens."""
    length, devices = 16384, 8
    to = orders.permutation(order, length, devices)
    pos = (np.arange(length) % (length // documents))[to][None]
    seg = (1 + np.arange(length) // (length // documents))[to][None]
    work = orders.work(rule, Where(pos, pos, seg, seg, np.arange(1)), devices, 64)
    return work.max() / work.mean()


@pytest.mark.parametrize(
    ('order', 'low', 'high'), [('zigzag', 1, 1.05), ('striped', 1, 1.05), ('contiguous', 1.8, 1.9)]
)
def test_how_evenly_causal_work_is_shared(order, low, high):
    assert low <= balance(causal, order) <= high


def test_how_evenly_other_work_is_shared():
    """Short documents and windows are even in the order of the text already."""
    packed = both(causal, same_segment)
    assert balance(packed, 'contiguous', documents=16) == 1
    assert 1 < balance(packed, 'contiguous', documents=2) < 1.8
    assert balance(packed, 'zigzag', documents=16) < 1.05
    assert balance(both(causal, window(1024)), 'contiguous') < 1.05
    assert balance(both(causal, window(1024)), 'striped') < 1.05
