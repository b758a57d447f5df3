"""A pipeline gives what a scan gives; run by ``test_on_eight_devices.py`` in a process that has the devices."""

import dataclasses
import functools
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lcx.compress import LoraConfig, leaves, lora
from lcx.config import Options, make
from lcx.models import LayerKind, ModelConfig, boxed
from lcx.parallel import MeshConfig, mesh, rules
from lcx.parallel.pipeline import pipeline
from lcx.parallel.placement import Placement
from lcx.parallel.schedules import SCHEDULES, Schedule
from lcx.parallel.traffic import collective_bytes
from tests.models.tiny import LENGTHS, T, changed, gradient, loss, parameters, random_batch

# ------------------------------------------------------------------------------------------ any body, on stages alone

B, D = 24, 4  # rows, and features of them


def schedule(microbatches: int, rounds: int) -> Schedule:
    name = {'name': 'gpipe'} if rounds == 1 else {'name': 'circular', 'rounds': rounds}
    return make(SCHEDULES, {**name, 'microbatches': microbatches}, 'pipeline')


def on_stages(stages: int):
    auto = jax.sharding.AxisType.Auto
    line = jax.make_mesh((stages,), ('stage',), axis_types=(auto,), devices=jax.devices()[:stages])
    return jax.set_mesh(line)


def body(params, x, rows, shared):
    return jnp.tanh(x @ params['w'] + rows[..., None] * shared + params['b'])


def scanned(params, x, rows, shared):
    return jax.lax.scan(lambda x, p: (body(p, x, rows, shared), None), x, params)[0]


def draw(repeats: int):
    random = np.random.default_rng(0)
    shapes = {'w': (repeats, D, D), 'b': (repeats, D)}
    params = {name: random.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}
    x, rows, shared = (random.normal(size=s).astype(np.float32) for s in ((B, 3, D), (B, 3), (D,)))
    return params, x, rows, shared


GRID = [
    # stages, microbatches, rounds, repeats
    (1, 3, 1, 2),
    (2, 1, 1, 4),
    (4, 3, 1, 8),
    (8, 24, 1, 8),
    (1, 4, 2, 4),
    (2, 3, 2, 8),
    (4, 4, 2, 8),
    (4, 2, 2, 8),
    (2, 6, 4, 8),
    (4, 6, 3, 12),
    (6, 8, 4, 24),
]


@pytest.mark.parametrize(('stages', 'microbatches', 'rounds', 'repeats'), GRID)
def test_values_and_gradients_are_those_of_a_scan(stages, microbatches, rounds, repeats):
    given = draw(repeats)

    def gradients(f):
        return jax.jit(jax.value_and_grad(lambda *x: jnp.sum(f(*x) ** 2), argnums=(0, 1, 2, 3)))(*given)

    with on_stages(stages):
        found = gradients(functools.partial(pipeline, schedule(microbatches, rounds), body))
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(gradients(scanned)), strict=True):
        np.testing.assert_allclose(a, b, rtol=2e-5, atol=2e-5 * np.max(np.abs(b)))


def test_bfloat16_stays_near_float32():
    """And XLA does not abort, as it does of sums over a manual axis in bfloat16 on CPUs."""
    params, x, rows, shared = draw(4)

    def gradients(f, dtype):
        low = jax.jit(jax.grad(lambda x: jnp.sum(f(*cast(params, x), rows, shared).astype(jnp.float32) ** 2)))
        return np.float32(low(x.astype(dtype)))

    def cast(params, x):
        return jax.tree.map(lambda w: w.astype(x.dtype), params), x

    def run(params, x, rows, shared):
        small = schedule(3, 2)
        return pipeline(small, lambda *given: body(*given).astype(x.dtype), params, x, rows, shared)

    with on_stages(2):
        found = gradients(run, jnp.bfloat16)
    expected = gradients(scanned, jnp.float32)
    assert np.linalg.norm(found - expected) < 0.1 * np.linalg.norm(expected)


@pytest.mark.parametrize(('stages', 'microbatches', 'rounds', 'repeats'), GRID)
def test_idle_slots_are_as_many_as_the_formula_says(stages, microbatches, rounds, repeats):
    """Every repeat tells whose rows it got and how many had worked on them: what it does first is useful."""
    done = []

    def telling(number, x, rows, shared):
        del rows, shared
        jax.debug.callback(lambda *who: done.append(tuple(int(n) for n in who)), number, *x[0, 0])
        return x.at[..., 1].add(1)

    numbers = jnp.arange(repeats, dtype=jnp.float32)
    x = jnp.stack([jnp.broadcast_to(jnp.arange(1.0, B + 1)[:, None], (B, 1)), jnp.zeros((B, 1))], axis=-1)
    with on_stages(stages):
        run = jax.jit(functools.partial(pipeline, schedule(microbatches, rounds), telling))
        out = jax.block_until_ready(run(numbers, x, jnp.zeros((B, 1)), ()))
    jax.effects_barrier()
    np.testing.assert_array_equal(out, x.at[..., 1].set(repeats))
    useful = {(number, row) for number, row, before in done if row and before == number}
    group = repeats // (stages * rounds)
    for stage in range(stages):
        own = [number for number in range(repeats) if number // group % stages == stage]
        slots = sum(number in own for number, _, _ in done) / group
        busy = sum(number in own for number, _ in useful) / group
        ticks = rounds * microbatches + stages - 1
        if microbatches < stages:
            ticks = rounds * stages + microbatches - 1
        assert (slots, busy) == (ticks, rounds * microbatches)
    idle = 1 - len(useful) / len(done)
    if microbatches >= stages or rounds == 1:
        assert idle == pytest.approx((stages - 1) / (rounds * microbatches + stages - 1), abs=1e-12)
    assert idle == pytest.approx(schedule(microbatches, rounds).idle(stages), abs=1e-12)


@pytest.mark.parametrize('rounds', [1, 2])
def test_bytes_that_a_stage_sends(rounds):
    stages, microbatches, repeats = 4, 6, 8
    params, *given = draw(repeats)
    with on_stages(stages):
        params = jax.device_put(params, jax.NamedSharding(jax.sharding.get_mesh(), jax.P('stage')))
        run = jax.jit(functools.partial(pipeline, schedule(microbatches, rounds), body))
        text = run.lower(params, *given).compile().as_text()
    whole = 4 * B * 3 * D
    layers = 4 * repeats // stages * (D * D + D) * (rounds > 1)
    assert dict(collective_bytes(text)) == {
        'collective-permute': schedule(microbatches, rounds).ticks(stages) * whole // microbatches + layers,
        'all-reduce': 2 * whole * (stages - 1) // stages,
    }


# ------------------------------------------------------------------------------------- the model, on all axes of a mesh


class Case(NamedTuple):
    sizes: dict  # of the mesh
    pipeline: dict
    fields: dict = {}


CASES = {
    'gpipe, data, fewer than stages': Case(
        {'stage': 4, 'data': 2}, {'name': 'gpipe', 'microbatches': 3}, {'remat': 'full', 'layers': 17}
    ),
    'gpipe, data and ring': Case({'stage': 2, 'data': 2, 'context': 2}, {'name': 'gpipe', 'microbatches': 6}),
    'circular, ring': Case({'stage': 4, 'context': 2}, {'name': 'circular', 'microbatches': 6}),
    'circular, fsdp and tensor': Case(
        {'stage': 2, 'fsdp': 2, 'tensor': 2},
        {'name': 'circular', 'microbatches': 3, 'rounds': 4},
        {'remat': 'dots', 'position': Options(name='transformer_xl', dims=12)},
    ),
}
ROWS = 12


def model(layers: int = 16, **fields) -> ModelConfig:
    """Full layers with the model's positions, and windows with a learned bias; of 17 one follows the scan."""
    attention = Options(name='blockwise', block=4)
    full = LayerKind(attention=attention)
    near = LayerKind(
        attention=attention,
        rule=(Options(name='causal'), Options(name='window', size=5)),
        position=Options(name='t5', num_buckets=8, max_distance=16),
    )
    return changed(layers=layers, pattern=('full', 'near'), kinds={'full': full, 'near': near}, **fields)


def packed(rows: int):
    """Rows of three documents and padding, each with its own cuts."""
    batch, lengths = random_batch(rows=rows), [*LENGTHS, T - sum(LENGTHS)]
    order = [np.roll(lengths[:3], i) for i in range(rows)]
    segments = np.stack([np.repeat([1, 2, 3, 0], [*o, lengths[3]]) for o in order]).astype(np.int32)
    positions = np.stack([np.concatenate([np.arange(n) for n in (*o, lengths[3])]) for o in order])
    inside = (segments > 0) & (segments == np.roll(segments, -1, axis=1))
    return batch._replace(
        positions=positions.astype(np.int32), segments=segments, weights=inside.astype(np.float32)
    )


def placed(case: Case, config: ModelConfig, loss, params, batch):
    """``loss(model, params, batch)`` and its gradients by a pipeline, everything being where a mesh has it."""
    sizes = case.sizes
    devices = mesh.make(MeshConfig(**sizes), jax.devices()[: math.prod(sizes.values())])
    piped = dataclasses.replace(config, pipeline=Options(case.pipeline))
    where = rules.shardings(lora.boxed(boxed(config), params), devices)
    with jax.set_mesh(devices):
        step = jax.jit(jax.value_and_grad(functools.partial(loss, piped)), out_shardings=(None, where))
        return step(jax.tree.map(jax.device_put, params, where), Placement(devices).put(batch))


def same(found, expected) -> None:
    """Every leaf, to 2e-5 of itself and of its largest number."""
    assert jax.tree.structure(found) == jax.tree.structure(expected)
    flat, _ = jax.tree_util.tree_flatten_with_path(expected)
    for a, (path, b) in zip(jax.tree.leaves(found), flat, strict=True):
        atol = 2e-5 * np.max(np.abs(b))
        np.testing.assert_allclose(a, b, rtol=2e-5, atol=atol, err_msg=jax.tree_util.keystr(path))


@pytest.mark.parametrize('name', CASES)
def test_a_model_is_the_same_with_a_pipeline(name):
    case, batch = CASES[name], packed(ROWS)
    config = model(**{**case.fields, 'remat': 'none'})
    params = parameters(config)
    found = placed(case, model(**case.fields), loss, params, batch)
    same(found, gradient(config)(params, batch))


def test_adapters_go_through_a_pipeline():
    """An interceptor of Linen and leaves beside the kernels, as LoRA has them."""
    case, config = Case({'stage': 2}, {'name': 'gpipe', 'microbatches': 2}), changed()
    settings = LoraConfig(rank=2, alpha=4.0, targets=('mixer/query',))
    adapters = lora.init(settings, config, parameters(config), jax.random.key(0))
    adapters = jax.tree.map(lambda x: x + 0.1, adapters)
    params, batch = leaves.join(parameters(config), adapters), packed(4)
    adapted = lora.adapted(settings, loss)
    expected = jax.jit(jax.value_and_grad(functools.partial(adapted, config)))(params, batch)
    same(placed(case, config, adapted, params, batch), expected)
