"""Scoring in parts of bounded size, and the fields of config.eval."""

import dataclasses
import functools

import jax
import numpy as np
import pytest

from lcx.data import tokens
from lcx.data.tasks import Copy
from lcx.data.tokenizers import Bytes
from lcx.errors import ConfigError
from lcx.eval import EVALUATORS, Context, EvalConfig, RulerConfig
from lcx.eval.api import mean, scored, whole_rows
from lcx.models import LayerKind, ModelConfig, init, score

MODEL = ModelConfig(
    vocab=40,
    width=16,
    layers=1,
    heads=2,
    kv_heads=1,
    head_dim=8,
    hidden=16,
    kinds={'full': LayerKind(attention={'name': 'dense'})},
)
IDS = np.random.default_rng(0).integers(0, 40, (5, 17), np.int32)
GOOD = EvalConfig(
    run=('perplexity',),
    split='validation',
    every=None,
    lengths=(64, 128),
    windows=4,
    depths=(0.0, 1.0),
    samples=2,
    last=32,
    tokens=1024,
)


def test_parts_and_padding_rows_change_nothing():
    params, compiled, shapes = (
        init(MODEL, jax.random.key(0)),
        jax.jit(functools.partial(score, MODEL, chunk=64)),
        [],
    )

    def apply(params, batch):
        shapes.append((batch.tokens.shape, int(np.sum(np.all(batch.segments == 0, axis=1)))))
        return compiled(params, batch)

    whole = scored(apply, params, whole_rows(IDS), tokens=1000)
    parts = scored(apply, params, whole_rows(IDS), tokens=3 * 16)
    single = scored(apply, params, whole_rows(IDS), tokens=1)
    for a, b, c in zip(whole, parts, single):
        assert isinstance(a, np.ndarray) and a.shape == (5, 16)
        np.testing.assert_allclose(a, b, atol=1e-5)
        np.testing.assert_allclose(a, c, atol=1e-5)
    assert shapes == [((5, 16), 0), ((3, 16), 0), ((3, 16), 1), *[((1, 16), 0)] * 5]


def test_whole_rows_are_inputs_and_the_tokens_after_them():
    batch = whole_rows(IDS)
    np.testing.assert_array_equal(batch.tokens, IDS[:, :16])
    np.testing.assert_array_equal(batch.targets, IDS[:, 1:])
    assert np.all(batch.weights == 1) and np.all(batch.segments == 1)
    assert batch.positions[3].tolist() == list(range(16)) and batch.ids.tolist() == list(range(5))


@pytest.mark.parametrize(('last', 'counts'), [(3, [3] * 5), ([1, 2, 16, 4, 0], [1, 2, 16, 4, 0])])
def test_of_whole_rows_with_a_prompt_the_last_targets_count(last, counts):
    weights = whole_rows(IDS, last).weights
    assert weights.dtype == np.float32
    assert weights.tolist() == [[0.0] * (16 - n) + [1.0] * n for n in counts]


def test_mean_and_its_error():
    assert mean([2.0]) == (2.0, 0.0)
    assert mean([1.0, 2.0, 6.0]) == (3.0, pytest.approx(7**0.5 / 3**0.5))


@pytest.mark.parametrize(
    ('fields', 'message'),
    [
        ({'lengths': ()}, r'lengths: \(\) evaluates nothing'),
        ({'lengths': (64, 100)}, 'lengths: 100 is not a power of two; the nearest is 128'),
        ({'lengths': (0,)}, 'lengths: 0 is not a power of two; the nearest is 1'),
        ({'lengths': (128, 64)}, r'lengths: \(128, 64\) must rise'),
        ({'lengths': (64, 64)}, r'lengths: \(64, 64\) must rise'),
        ({'last': 65}, 'last: 65 exceeds the shortest of lengths, 64'),
        ({'last': 0}, 'last: 0 must be greater than 0'),
        ({'windows': -1}, 'windows: -1 must be greater than 0'),
        ({'every': 0}, 'every: 0 must be greater than 0'),
        ({'samples': 0}, 'samples: 0 must be greater than 0'),
        ({'depths': ()}, r'depths: \(\) must be at least one share of the text, from 0 to 1'),
        (
            {'depths': (0.5, 50.0)},
            r'depths: \(0.5, 50.0\) must be at least one share of the text, from 0 to 1',
        ),
        ({'depths': (1.0, 0.0)}, r'depths: \(1.0, 0.0\) must rise'),
    ],
)
def test_errors_name_the_field(fields, message):
    with pytest.raises(ConfigError, match=f'^{message}'):
        dataclasses.replace(GOOD, **fields)


def test_evaluators_have_the_name_of_what_they_measure(tmp_path):
    tokens.write(tmp_path / 'a', ['a' * 5000], Bytes())
    documents = tokens.read(tmp_path / 'a', 'test')
    config = dataclasses.replace(GOOD, lengths=(4096,), sizes=(5,), ruler=RulerConfig(tasks=('vt',)))
    context = Context(config, documents, Bytes(), seed=0, task=Copy(Bytes()))
    text = {name for name in EVALUATORS if isinstance(EVALUATORS[name], type)}
    assert {name: EVALUATORS[name].name for name in text} == {name: name for name in text}
    made = {name: EVALUATORS[name](context).name for name in EVALUATORS if name not in text}
    assert made == {**{name: name for name in made}, 'task': 'copy', 'task_sizes': 'copy_sizes'}
