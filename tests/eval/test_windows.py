"""Rows of single windows: their means are those of the perplexity evaluator, and finished ones are not made again."""

import numpy as np
import pytest

from lcx.data import tokens
from lcx.data.tokenizers import Bytes
from lcx.errors import ConfigError
from lcx.eval import Context, EvalConfig, Perplexity, WindowPerplexity
from lcx.models import Scores

CONFIG = EvalConfig(
    run=(),
    split='validation',
    every=None,
    lengths=(16, 32),
    windows=5,
    depths=(0.5,),
    samples=1,
    last=4,
    tokens=64,
)


@pytest.fixture(scope='module')
def context(tmp_path_factory):
    random = np.random.default_rng(0)
    path = tmp_path_factory.mktemp('tokens') / 'a'
    tokens.write(path, [''.join(map(chr, random.integers(97, 123, 200))) for _ in range(3)], Bytes())
    return Context(CONFIG, tokens.read(path, 'test'), Bytes(), seed=0)


class Model:
    """Scores that are a function of the token and its place, and a count of the rows asked for."""

    def __init__(self, last=CONFIG.last):
        self.shapes, self.last = [], last  # how many targets count

    def __call__(self, params, batch):
        self.shapes.append(batch.tokens.shape)
        real = np.any(batch.segments, axis=1)
        assert batch.weights[real].sum(axis=1).tolist() == [self.last or batch.tokens.shape[1]] * sum(real)
        assert self.last is None or np.all(batch.weights[real, -self.last :] == 1)
        nll = batch.targets / 64 + 1 / (1 + batch.positions)
        return Scores(nll, np.zeros_like(nll), np.zeros_like(nll))


def test_means_over_windows_are_those_of_perplexity(context):
    rows = list(WindowPerplexity(context).run(Model(), None))
    assert [(r['length'], r['window']) for r in rows] == [(n, i) for n in (16, 32) for i in range(5)]
    whole = [r for r in Perplexity(context).run(Model(None), None) if r['evaluator'] == 'perplexity']
    for row in whole:
        mine = [r for r in rows if r['length'] == row['length']]
        assert np.exp(np.mean([r['nats'] for r in mine])) == pytest.approx(row['ppl'])
        assert np.exp(np.mean([r['last_nats'] for r in mine])) == pytest.approx(row['last_ppl'])
        for name in ('bits_per_byte', 'last_bits_per_byte'):
            assert np.mean([r[name] for r in mine]) == pytest.approx(row[name])


def test_a_length_has_one_shape_and_finished_windows_are_left_out(context):
    model = Model()
    rows = list(WindowPerplexity(context).run(model, None))
    assert set(model.shapes) == {(4, 16), (2, 32)}
    done = [*rows[:3], *rows[6:9]]
    again = Model()
    rest = list(WindowPerplexity(context).run(again, None, done))
    assert rest == [r for r in rows if r not in done] and again.shapes == [(4, 16), (2, 32)]
    other = [{**row, 'text': 'another'} for row in rows]
    assert list(WindowPerplexity(context).run(Model(), None, other)) == rows


def test_a_task_has_no_windows(context):
    with pytest.raises(ConfigError, match=r"eval\.run: 'window_perplexity' reads text"):
        WindowPerplexity(context._replace(tokens=None))
