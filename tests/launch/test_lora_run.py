"""``lcx train`` with adapters: from a run's parameters to results, through a stop, and back to a plain model."""

import json
import shutil

import jax
import numpy as np
import pytest

from lcx.compress import LoraConfig, leaves, lora
from lcx.config import build
from lcx.errors import ConfigError
from lcx.models import ModelConfig, init
from lcx.train.checkpoint import Checkpoints
from lcx.train.tune import merged_params
from tests.running import CONFIGS, digest, digests, lcx, on_corpus, rows, steps, timeless

NORMS = {
    f'{name}/scale' for name in ('final_norm', 'layers/full_0/mixer_norm', 'layers/full_0/feed_forward_norm')
}
ADAPTERS = {f'layers/full_0/mixer/{m}/{x}' for m in ('query', 'out') for x in (lora.A, lora.B)}


@pytest.fixture(scope='module')
def corpus(tmp_path_factory):
    return on_corpus(tmp_path_factory.mktemp('tune'))


@pytest.fixture(scope='module')
def base(corpus, tmp_path_factory):
    """A run of all parameters at length 64; it has been evaluated nowhere."""
    workdir = tmp_path_factory.mktemp('base') / 'run'
    words = [f'--config={CONFIGS}/base.py:smoke', f'--workdir={workdir}', *corpus]
    assert lcx('train', *words, '--config.eval.run=()') == 0
    return workdir


@pytest.fixture(scope='module')
def command(base, corpus):
    """The words of a run of adapters and norms at the length 128, in groups of 32."""

    def words(workdir, *more, init=base, targets=('mixer/query', 'mixer/out'), train=('*norm*',)):
        return [
            'train', f'--config={CONFIGS}/longlora.py:smoke', f'--workdir={workdir}', *corpus,
            f'--config.init_from={init}', '--config.stages[0].length=128', f'--config.tune.targets={targets}',
            f'--config.tune.train={train}', "--config.eval.run=('perplexity',)", '--config.checkpoint.keep=9',
            *(more or ['--config.tune.rank=2']),
        ]  # fmt: skip

    return words


@pytest.fixture(scope='module')
def tuned(command, tmp_path_factory):
    workdir = tmp_path_factory.mktemp('tuned') / 'run'
    assert lcx(*command(workdir)) == 0
    return workdir


def test_a_checkpoint_holds_all_parameters_and_the_state_of_those_that_train(base, tuned):
    before, after = digests(base, 4), digests(tuned, 4)
    params = {n.removeprefix('params/') for n in after if n.startswith('params/')}
    assert params == {n.removeprefix('params/') for n in before if n.startswith('params/')} | ADAPTERS
    changed = {n for n in params if after[f'params/{n}'] != before.get(f'params/{n}')}
    assert changed == ADAPTERS | NORMS
    moments = {n for n in after if n.startswith('opt_state/')}
    assert {n.partition('/mu/')[2] for n in moments if '/mu/' in n} == ADAPTERS | NORMS
    assert len(moments) == 2 * len(ADAPTERS | NORMS) + len({n for n in moments if n.endswith('count')})


def test_a_run_that_was_killed_goes_on_bit_by_bit_without_the_run_it_came_from(
    base, command, tuned, tmp_path
):
    shutil.copytree(tuned, tmp_path / 'run')
    for step in steps(tmp_path / 'run')[1:]:
        shutil.rmtree(tmp_path / 'run' / 'checkpoints' / str(step))
    base.rename(tmp_path / 'base')
    try:
        assert lcx(*command(tmp_path / 'run')) == 0
    finally:
        (tmp_path / 'base').rename(base)
    assert steps(tmp_path / 'run') == steps(tuned) == [2, 4]
    assert digest(tmp_path / 'run', 4) == digest(tuned, 4)
    found, expected = (
        [(r['step'], r['loss'], r['grad_norm']) for r in rows(w / 'metrics.jsonl')][-2:]
        for w in (tmp_path / 'run', tuned)
    )
    assert found == expected


def read(workdir, step=4):
    """``(model, merged parameters)`` of a checkpoint."""
    with Checkpoints(workdir / 'checkpoints', keep=None) as checkpoints:
        model = build(ModelConfig, checkpoints.extra(step)['model'], 'model')
        return model, merged_params(checkpoints, model, step)


def test_what_is_read_is_a_plain_model_of_merged_matrices(tuned):
    model, params = read(tuned)
    fresh = init(model, jax.random.key(0))
    assert jax.tree.structure(params) == jax.tree.structure(fresh)
    config = LoraConfig(rank=2, alpha=16.0, targets=('mixer/query', 'mixer/out'))
    shapes = jax.eval_shape(lambda: lora.init(config, model, fresh, jax.random.key(0)))
    with Checkpoints(tuned / 'checkpoints', keep=None) as checkpoints:
        saved, _, _ = checkpoints.restore(
            leaves.join(jax.eval_shape(lambda: fresh), shapes), 4, part='params'
        )
    saved, found = leaves.named(saved), leaves.named(params)
    path = 'layers/full_0/mixer/out'
    a, b, w = (np.float64(saved[f'{path}/{x}']) for x in (lora.A, lora.B, 'kernel'))
    merged = w + 8 * np.einsum('LNHR,LRD->LNHD', a, b)
    np.testing.assert_allclose(found[f'{path}/kernel'], merged, rtol=1e-6, atol=1e-7)
    assert np.abs(merged - w).max() > 1e-4


def test_an_evaluation_reads_everything_and_gives_what_the_run_gave_at_its_end(tuned, tmp_path):
    """Its model has the plain causal rule: groups are for training."""
    model, _ = read(tuned)
    assert [dict(r) for r in model.kinds['full'].rule] == [{'name': 'causal'}]
    assert model.position['factor'] == 2.0 and model.trained_length == 128
    assert lcx('eval', f'--init={tuned}', f'--workdir={tmp_path}/eval') == 0
    found, expected = rows(tmp_path / 'eval' / 'results.jsonl'), rows(tuned / 'results.jsonl')
    assert [r['length'] for r in found if r['evaluator'] == 'perplexity'] == [128, 256]
    for row, other in zip(found, expected, strict=True):
        assert timeless(row, run='') == timeless(other, run='')


def test_rules_of_a_stage_change_what_is_learned(command, tuned, tmp_path):
    assert lcx(*command(tmp_path / 'run', '--config.tune.rank=2', '--config.stages[0].rules=None')) == 0
    found, other = (rows(w / 'metrics.jsonl')[0]['loss'] for w in (tmp_path / 'run', tuned))
    assert found != other and abs(found - other) < 0.5  # of a model that hardly knows anything yet


def test_a_tuned_run_can_be_tuned_on(command, tuned, tmp_path):
    """All of its parameters, with what its adapters learned inside."""
    assert lcx(*command(tmp_path / 'run', init=tuned, targets=('feed_forward/up',), train=())) == 0
    (_, before), (_, after) = read(tuned), read(tmp_path / 'run')
    before, after = leaves.named(before), leaves.named(after)
    changed = {n for n in before if not np.array_equal(before[n], after[n])}
    assert changed == {'layers/full_0/feed_forward/up/kernel'}


def test_who_reads_adapters_as_a_plain_model_gets_an_error(base, tuned):
    model, _ = read(tuned)
    with Checkpoints(tuned / 'checkpoints', keep=None) as checkpoints:
        shapes = jax.eval_shape(lambda: init(model, jax.random.key(0)))
        with pytest.raises(ConfigError, match=r'lora_a is saved as .*, but nothing is expected'):
            checkpoints.restore(shapes, part='params')


@pytest.mark.parametrize(
    ('changes', 'override', 'message'),
    [
        ({'targets': ('mixer/quary',)}, '--config.tune.rank=2', "tune.targets: unknown 'mixer/quary'"),
        ({'train': ('nrm*',)}, '--config.tune.rank=2', "tune.train: unknown 'nrm*'"),
        ({}, '--config.tune.rank=0', 'tune.rank: 0 must be greater than 0'),
        ({}, '--config.tune.name=full', "tune.alpha (of 'full'): unknown 'alpha'"),
    ],
)
def test_what_cannot_be_tuned_is_said_before_anything_is_made(
    command, tmp_path, capsys, changes, override, message
):
    assert lcx(*command(tmp_path / 'run', override, **changes)) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / 'run').exists()


def test_the_configuration_keeps_what_trains(command, tuned, capsys):
    assert json.loads((tuned / 'config.json').read_text())['tune']['rank'] == 2
    before = digest(tuned, 4)
    assert lcx(*command(tuned, '--config.tune.rank=4')) == 2
    assert 'tune.rank: 2 -> 4' in capsys.readouterr().err and digest(tuned, 4) == before
