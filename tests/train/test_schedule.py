"""Learning rates as numbers: warm-up, the three shapes, and where a stage begins."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lcx.train.schedule import schedule

PLAIN = dict(peak=2.0, steps=10, start=0, warmup=0.2, decay=0.4, final=0.1)


def rates(name, at, **changes):
    return np.asarray(schedule(name, **{**PLAIN, **changes})(jnp.array(at)))


@pytest.mark.parametrize(
    ('name', 'expected'),
    [
        # Two steps of warm-up; the shapes fall over the other eight.
        ('cosine', [1, 2, 2, 1.736396, 1.1, 0.463604, 0.2]),
        ('constant', [1, 2, 2, 2, 2, 2, 2]),
        ('wsd', [1, 2, 2, 2, 2, 1.1, 0.2]),  # stable up to step 6: the last 0.4 of the stage decay
    ],
)
def test_rates_are_these_numbers(name, expected):
    np.testing.assert_allclose(rates(name, [0, 1, 2, 4, 6, 8, 10]), expected, rtol=1e-6)


@pytest.mark.parametrize('name', ['cosine', 'constant', 'wsd'])
def test_a_later_stage_has_the_same_rates(name):
    np.testing.assert_array_equal(rates(name, np.arange(10)), rates(name, np.arange(1000, 1010), start=1000))


def test_without_warmup_the_first_step_is_at_the_peak():
    np.testing.assert_allclose(rates('cosine', [0, 5, 10], warmup=0.0), [2, 1.1, 0.2], rtol=1e-6)


def test_a_stage_can_be_all_warmup():
    np.testing.assert_allclose(rates('cosine', np.arange(4), steps=4, warmup=1.0), [0.5, 1, 1.5, 2])


def test_a_stage_of_one_step_trains_at_the_peak():
    np.testing.assert_allclose(rates('wsd', [0], steps=1, warmup=0.05, decay=0.2), [2])


def test_compiled_rates_are_the_same():
    rate = schedule('cosine', **PLAIN)
    compiled = [jax.jit(rate)(jnp.int32(step)) for step in range(10)]
    np.testing.assert_allclose(compiled, rates('cosine', np.arange(10)), rtol=1e-6)
