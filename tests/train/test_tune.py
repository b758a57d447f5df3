"""Tuning a part: what is frozen has no gradient, no optimizer state, no copy, and no change."""

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lcx.compress import leaves
from lcx.config import Options, make
from lcx.errors import ConfigError
from lcx.train import state as states
from lcx.train.config import (
    CheckpointConfig,
    LogConfig,
    LossConfig,
    OptimizerConfig,
    StageConfig,
    TrainConfig,
)
from lcx.train.loss import loss_sums
from lcx.train.optimizer import optimizer
from lcx.train.step import gradients, train_step
from lcx.train.tune import TUNINGS, abstract_params, flops
from tests.models.tiny import attending, parameters, random_batch

# One layer, since XLA counts the work of a loop's body once; its shapes differ from one another.
MODEL = attending(layers=1, remat='none')
BATCH = random_batch(rows=4)
TOKENS = BATCH.tokens.size
KEY = jax.random.key(0)
OPTIMIZER = optimizer('adamw', lambda step: 1e-2, beta1=0.9, beta2=0.95, weight_decay=0.1, clip=1.0)
OPTIONS = {
    'full': Options(name='full'),
    'chosen': Options(name='chosen', train=('final_norm', '*norm*')),
    'lora': Options(name='lora', rank=3, targets=('mixer/query', 'mixer/out'), train=('embedding',)),
    'lora and norms': Options(name='lora', rank=2, targets=('*',), train=('*norm*',)),
}
TRAINED = {
    'chosen': {f'{n}/scale' for n in ('final_norm', *(f'layers/full_0/{x}_norm' for x in ('mixer', 'feed_forward')))},
    'lora': {
        'embedding',
        *(f'layers/full_0/mixer/{name}/lora_{x}' for name in ('query', 'out') for x in 'ab'),
    },
}  # fmt: skip


@functools.cache
def tuning(name):
    return make(TUNINGS, OPTIONS[name], 'tune')


def prepared(name):
    return tuning(name).prepare(MODEL, parameters(MODEL), KEY)


def state(name):
    params = jax.tree.map(jnp.array, prepared(name))  # copies, which may be donated
    return states.create(params, OPTIMIZER, jax.random.clone(KEY), tuning(name).trains)


def sums(name):
    return tuning(name).wrap(functools.partial(loss_sums, MODEL, z_loss=0.0, chunk=TOKENS))


@functools.cache
def step(name, accumulate=1):
    f = functools.partial(
        train_step,
        loss_sums=sums(name),
        optimizer=OPTIMIZER,
        accumulate=accumulate,
        trains=tuning(name).trains,
    )
    return jax.jit(f, donate_argnums=0).lower(state(name), BATCH)


@functools.cache
def compiled(name, accumulate=1):
    return step(name, accumulate).compile()


def size(tree):
    return sum(x.nbytes for x in jax.tree.leaves(tree))


@pytest.mark.parametrize('name', ['chosen', 'lora'])
def test_what_is_named_trains_and_all_else_stays_in_every_bit(name):
    before = {n: np.array(x) for n, x in leaves.named(prepared(name)).items()}
    now = state(name)
    for _ in range(2):  # the first step moves B, and with it, from the second on, A has a gradient
        now, metrics = compiled(name)(now, BATCH)
        assert metrics['finite']
    changed = {n for n, x in leaves.named(now.params).items() if not np.array_equal(x, before[n])}
    assert changed == TRAINED[name]


@pytest.mark.parametrize('name', ['chosen', 'lora', 'full'])
def test_the_optimizer_has_state_for_trained_leaves_alone(name):
    now = state(name)
    trained, frozen = leaves.split(now.params, tuning(name).trains)
    counts = [x for x in jax.tree.leaves(now.opt_state) if x.ndim == 0]
    assert size(now.opt_state) == 2 * size(trained) + size(counts)
    assert (size(frozen) > 0) == (name != 'full')


def test_the_gradient_of_a_part_is_that_part_of_the_gradient():
    """And so the norm that clips is over what trains."""
    trained, frozen = leaves.split(prepared('lora'), tuning('lora').trains)

    def whole(params, batch, key):
        return sums('lora')(params, batch, key)

    def part(trained, batch, key):
        return sums('lora')(leaves.join(trained, frozen), batch, key)

    found, expected = (
        jax.jit(functools.partial(gradients, loss_sums=f, accumulate=1))(params, BATCH, KEY)[0]
        for f, params in ((part, trained), (whole, prepared('lora')))
    )
    expected, _ = leaves.split(expected, tuning('lora').trains)
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-7), found, expected)
    _, metrics = compiled('lora')(state('lora'), BATCH)
    norm = np.sqrt(sum(np.sum(np.square(x, dtype=np.float64)) for x in jax.tree.leaves(found)))
    np.testing.assert_allclose(metrics['grad_norm'], norm, rtol=1e-5)
    _, metrics = compiled('lora', 2)(state('lora'), BATCH)
    np.testing.assert_allclose(metrics['grad_norm'], norm, rtol=1e-5)


def test_frozen_matrices_cost_no_gradient():
    """XLA's own count of the gradient's work, against 2 per token and parameter of a matrix, and 6 of an adapter.

    The norms train too, so that the gradient goes down to the input of every matrix.
    """

    def work(name):
        @jax.jit
        def gradient(trained, frozen):
            def part(trained, batch, key):
                return sums(name)(leaves.join(trained, frozen), batch, key)

            return gradients(trained, BATCH, KEY, part, 1)

        parts = leaves.split(prepared(name), tuning(name).trains)
        return gradient.lower(*parts).compile().cost_analysis()['flops']

    whole = work('full')
    for name in ('chosen', 'lora and norms'):
        saved = TOKENS * (flops(tuning('full'), MODEL, 24) - flops(tuning(name), MODEL, 24))
        assert saved > 0.18 * whole
        np.testing.assert_allclose(work(name), whole - saved, rtol=0.04)


def test_flops_count_what_trains():
    per = 32 * (32 + 16 + 16 + 32) + 3 * 32 * 40  # of the matrices of the only layer
    assert flops(tuning('full'), MODEL, 24) == MODEL.flops(24)
    assert MODEL.flops(24) - flops(tuning('chosen'), MODEL, 24) == 2 * (per + 64 * 32)
    adapters = 3 * 2 * (32 + 32)  # the embedding trains, but is looked up: the output is a matrix of its own
    assert flops(tuning('lora'), MODEL, 24) - MODEL.flops(24) == 6 * adapters - 2 * (per + 64 * 32)


def test_frozen_leaves_are_passed_through():
    """Nothing selects between new and old ones or copies them, and the whole state is donated."""
    kernels = {name: x.shape for name, x in leaves.named(prepared('full')).items() if name.endswith('kernel')}
    shapes = {s for s in kernels.values() if len(s) == 3} | {(1, 32, 4, 8)}

    def selected(name):
        found = re.findall(r'stablehlo\.select .* : tensor<i1>, tensor<([0-9x]+)xf32>', step(name).as_text())
        return {tuple(map(int, s.split('x'))) for s in found}

    assert shapes <= selected('full') and not shapes & selected('lora and norms')
    text = compiled('lora and norms').as_text()
    for shape in shapes:
        kernel = f'f32[{",".join(map(str, shape))}]'
        assert kernel in text and not re.search(rf'= {re.escape(kernel)}\S* copy\(', text)
    memory = compiled('lora and norms').memory_analysis()
    assert memory.alias_size_in_bytes >= size(state('lora and norms').params)


@pytest.mark.parametrize('name', ['lora'])
def test_a_bad_step_leaves_no_trace(name):
    before = state(name)
    kept = jax.tree.map(np.array, (before.params, before.opt_state))
    after, metrics = compiled(name)(before, BATCH._replace(weights=BATCH.weights * np.nan))
    assert not metrics['finite'] and not after.finite
    jax.tree.map(np.testing.assert_array_equal, (after.params, after.opt_state), kept)


def test_adapters_decay_and_frozen_leaves_and_norms_do_not():
    name = 'lora'
    still = BATCH._replace(weights=0 * BATCH.weights)  # no gradient
    before = {n: np.array(x) for n, x in leaves.named(prepared(name)).items()}
    after, _ = compiled(name)(state(name), still)
    for n, x in leaves.named(after.params).items():
        factor = 1 - 1e-2 * 0.1 if n in TRAINED[name] else 1
        np.testing.assert_allclose(x, before[n] * factor, rtol=1e-6, err_msg=n)


def config(**options):
    stages = (StageConfig(steps=1, length=8, batch=1),)
    rest = (LossConfig(), OptimizerConfig(), CheckpointConfig(), LogConfig())
    return TrainConfig(0, stages, *rest, tune=Options(options))


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        ({'name': 'lore'}, "tune.name: unknown 'lore'. Did you mean 'lora'? Choices: chosen, full, lora."),
        ({'name': 'full', 'rank': 4}, "tune.rank (of 'full'): unknown 'rank'."),
        ({'name': 'chosen'}, "tune.train: 'chosen' needs it."),
        ({'name': 'lora', 'rank': 0}, 'tune.rank: 0 must be greater than 0.'),
        ({'name': 'lora', 'targets': ()}, 'tune.targets: () adapts nothing'),
        ({'name': 'lora', 'targets': 'mixer/query'}, "tune.targets: 'mixer/query' is a str; expected a tuple."),
    ],
)  # fmt: skip
def test_errors(options, message):
    with pytest.raises(ConfigError) as error:
        config(**options)
    assert message in str(error.value)


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        ({'name': 'lora', 'targets': ('mixer/quary',)}, "tune.targets: unknown 'mixer/quary'."),
        ({'name': 'lora', 'train': ('embeding',)}, "tune.train: unknown 'embeding'. Did you mean 'embedding'?"),
        ({'name': 'chosen', 'train': ('norm',)}, "tune.train: unknown 'norm'."),
    ],
)  # fmt: skip
def test_a_pattern_that_matches_nothing_is_an_error(options, message):
    with pytest.raises(ConfigError) as error:
        abstract_params(config(**options).tuning, MODEL)
    assert message in str(error.value) and 'Choices: ' in str(error.value)
