"""A pipeline: the repeats of the layers lie on the stages of a mesh, and microbatches pass through them.

    schedule = make(SCHEDULES, {'name': 'gpipe', 'microbatches': 8}, 'pipeline')
    x = pipeline(schedule, body, params, x, rows, shared)       # what a scan of ``body`` over ``params`` gives

Stages are the manual axis of a ``jax.shard_map`` and the other axes stay Auto, so that ``body`` is computed over data,
fsdp, context and tensor as it is without a pipeline, shard_maps of sequence parallelism in it included. Each tick, a
stage runs its repeats on one microbatch and sends the result to the next one (collective-permute); what leaves the
last returns to the first, for the next round or as the result. The backward pass is the transpose of that loop: the
same ticks from last to first, after all of the forward ones, whatever the schedule.

The other form, ``vmap(spmd_axis_name='stage')`` over a buffer that ``jnp.roll`` turns, is not used: under vmap a
``lax.cond`` becomes a select, in a shard_map too, where each device has but one stage (in compiled programs two
conditionals became none), and ring attention would compute the steps that its rule lets it leave out.

What it costs, with R rounds, M microbatches and S stages, and m bytes of the hidden states that a device has at once:

    idle          :mod:`lcx.parallel.schedules`. Idle stages compute what nobody reads: all must send when others do
    sends         m / M a tick forward, and backward; 2 (S - 1) / S m at each end, as embedding, last layers and loss
                  are computed by all stages alike
    circular      stage s needs groups s, s + S, ..., of which others hold most: each step the layers of a stage move,
                  in fp32, R collective-permutes of 1/R of them, and their gradients back; and a second copy is held.
                  The order of the parameters is that of the scan, so checkpoints know of no pipeline
    holds         what a repeat keeps for the backward pass, ticks / (R M) times as much as without a pipeline; not
                  parameters or rows, which are cut out again; and m, which waits at the first stage
    gradients     of parameters are summed over data, and parameters gathered over fsdp, by each tick, as XLA leaves
                  these collectives in the loop: fsdp and a pipeline go together only if the network is fast

Rows are dealt to microbatches in turn (row i to microbatch i modulo M), so that rows which lie on different devices of
data and fsdp stay where they are.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from lcx.errors import ConfigError
from lcx.parallel.mesh import share
from lcx.parallel.rules import ACTIVATIONS, FIELDS, PARAMETERS, Mesh
from lcx.parallel.schedules import Schedule
from lcx.types import Array, Float, Int, Tree

(AXIS,) = PARAMETERS['layers']
CUTS = (
    'dynamic_slice',
    'squeeze',
    'reshape',
    'sharding_constraint',
)  # primitives that cost nothing to do again

# (parameters of one repeat, x 'B T D', rows 'B ...', shared) -> like x
Body = Callable[[Tree, Array, Tree, Tree], Array]


def pipeline(
    schedule: Schedule,
    body: Body,
    params: Tree,
    x: Float[Array, 'B T D'],
    rows: Tree,
    shared: Tree,
    policy: Callable | None = None,
) -> Float[Array, 'B T D']:
    """``x`` after ``body`` with each of the repeats of ``params``, on the stages of the mesh in context.

    Args:
      body: must treat rows apart.
      params: arrays 'L ...', in the order in which they are used, L sharded over stage.
      rows: what ``body`` gets of the rows at hand besides ``x``: arrays 'B T ...'.
      shared: what it gets whole. Differentiable arrays must be fp32.
      policy: of ``jax.checkpoint``: what the backward pass keeps of a repeat; None keeps everything.

    Raises:
      ConfigError: there is no mesh with stages in context, or see :func:`check`.
    """
    mesh = _in_context()
    repeats, stages = jax.tree.leaves(params)[0].shape[0], mesh.shape[AXIS]
    check(schedule, mesh, repeats, x.shape[0])
    xs, rows = jax.tree.map(functools.partial(_deal, schedule.microbatches, mesh), (x, rows))
    one = jax.checkpoint(functools.partial(_repeat, body), policy=policy or _no_cuts, prevent_cse=False)

    def on_stage(params: Tree, xs: Array, stage: Array, rows: Tree, shared: Tree) -> Array:
        xs, stage = xs[0], stage[0]
        params = _own_groups(params, stage, stages, schedule.rounds)
        count, last = repeats // (stages * schedule.rounds), schedule.microbatches - 1

        def tick(carry: tuple[Array, Array], number: Array) -> tuple[tuple[Array, Array], None]:
            waiting, x = carry
            here = schedule.slot(number, stage, stages)
            x = jnp.where(stage == 0, _take(waiting, here.microbatch), x)

            def step(x: Array, i: Array) -> tuple[Array, None]:
                return one(x, params, rows, shared, here.round * count + i, here.microbatch), None

            x, _ = jax.lax.scan(step, x, jnp.arange(count))
            x = jax.lax.ppermute(x, AXIS, [(i, (i + 1) % stages) for i in range(stages)])
            came = schedule.slot(number, stages - 1, stages)  # to the first stage; others never read theirs
            kept = jnp.where(came.live, x, _take(waiting, came.microbatch))
            return (jax.lax.dynamic_update_index_in_dim(waiting, kept, came.microbatch, 0), x), None

        start = xs, jnp.zeros_like(xs[last])  # of finite gradient, unlike what a buffer may hold
        (xs, _), _ = jax.lax.scan(tick, start, jnp.arange(schedule.ticks(stages)))
        return xs[None]

    # Only the first stage gets x, and its result counts. As an argument that all share, x would have a gradient that
    # shard_map sums over the stages, in bfloat16, of which XLA aborts on CPUs (jaxlib 0.10.2).
    first = jnp.pad(xs[None], [(0, stages - 1)] + [(0, 0)] * xs.ndim)
    own, all_ = jax.P(AXIS), jax.P()
    run = jax.shard_map(
        on_stage,
        mesh=mesh,
        axis_names={AXIS},
        in_specs=(own, own, own, all_, all_),
        out_specs=own,
        check_vma=False,  # loops of kernels begin with constants
    )
    return _join(run(params, first, jnp.arange(stages), rows, shared)[0])


def check(schedule: Schedule, mesh: Mesh, repeats: int, rows: int) -> None:
    """Raises ConfigError where stages and rounds do not divide the repeats, or devices and microbatches the rows.

    The message has both numbers and the nearest that go together.
    """
    rounds, count = schedule.rounds, schedule.microbatches
    share(mesh.shape, FIELDS['layers'], repeats, (AXIS,), rounds, 'rounds (pipeline.rounds)')
    try:
        share(
            mesh.shape,
            'rows',
            rows,
            ACTIVATIONS['batch'],
            count,
            'microbatches (pipeline.microbatches)',
        )
    except ConfigError as error:
        devices = math.prod(mesh.shape.get(name, 1) for name in ACTIVATIONS['batch'])
        fits = [n for n in range(1, rows + 1) if rows % (n * devices) == 0]
        near = min(fits, key=lambda n: abs(n - count), default=None)
        hint = f', or pipeline.microbatches {near}' if fits else ''
        raise ConfigError(f'{str(error).removesuffix(".")}{hint}.') from None


def _in_context() -> Mesh:
    mesh = jax.sharding.get_abstract_mesh()
    if AXIS not in mesh.shape:
        raise ConfigError(
            f'pipeline: no mesh with axis {AXIS!r} is in context; enter jax.set_mesh(mesh), or leave '
            'ModelConfig.pipeline empty.'
        )
    return mesh


def _deal(count: int, mesh: Mesh, x: Float[Array, 'B ...']) -> Float[Array, 'M b ...']:
    """Rows in turn to microbatches, and tokens where they are."""
    x = x.reshape(-1, count, *x.shape[1:]).swapaxes(0, 1)
    axes = (tuple(axis for axis in ACTIVATIONS[name] if axis in mesh.shape) for name in ('batch', 'length'))
    return jax.lax.with_sharding_constraint(x, jax.P(None, *(found or None for found in axes)))


def _join(x: Float[Array, 'M b ...']) -> Float[Array, 'B ...']:
    return x.swapaxes(0, 1).reshape(-1, *x.shape[2:])


def _repeat(
    body: Body, x: Array, params: Tree, rows: Tree, shared: Tree, at: Array, microbatch: Array
) -> Array:
    """Parameters and rows are cut out in here, where the backward pass cuts them out again instead of keeping them."""
    return body(_take(params, at), x, _take(rows, microbatch), shared)


def _no_cuts(primitive: jax.extend.core.Primitive, *_: object, **__: object) -> bool:
    return primitive.name not in CUTS


def _take(tree: Tree, index: Int[Array, '']) -> Tree:
    return jax.tree.map(lambda x: jax.lax.dynamic_index_in_dim(x, index, 0, keepdims=False), tree)


def _own_groups(params: Tree, stage: Array, stages: int, rounds: int) -> Tree:
    """The repeats that this stage computes, in the order of rounds, from those that every stage holds.

    Of group q, stage q // R holds it and stage q mod S computes it, in round q // S. With L the least common multiple
    of both, the groups of one colour (q + q // L) mod R are one of each holder and one for each stage: R permutations.
    """
    if stages == 1 or rounds == 1:
        return params
    groups = np.arange(stages * rounds)
    colours = (groups + groups // math.lcm(stages, rounds)) % rounds
    sent = [groups[colours == colour] for colour in range(rounds)]  # by holder
    held = jax.tree.map(lambda x: x.reshape(rounds, -1, *x.shape[1:]), params)
    came = []
    for turn in sent:
        part = _take(held, jnp.asarray(turn % rounds)[stage])
        pairs = [(int(q) // rounds, int(q) % stages) for q in turn]
        came.append(jax.tree.map(functools.partial(jax.lax.ppermute, axis_name=AXIS, perm=pairs), part))
    came = jax.tree.map(lambda *x: jnp.stack(x), *came)
    order = jnp.asarray(colours.reshape(rounds, stages))[:, stage]  # the colour of each round's group
    own = [_take(came, order[number]) for number in range(rounds)]
    return jax.tree.map(lambda *x: jnp.concatenate(x), *own)
