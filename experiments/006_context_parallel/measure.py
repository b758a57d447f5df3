r"""What sequence parallelism takes of each of eight devices, read out of compiled programs: nothing large is run.

    XLA_FLAGS=--xla_force_host_platform_device_count=8 python experiments/006_context_parallel/measure.py \
        --out=results.jsonl
    python experiments/006_context_parallel/measure.py --time --out=times.jsonl        # on all accelerators there are

Attention of one layer, forward and backward, 8 query and 2 key heads of 64 (a quarter of the heads of Llama
3.1 8B, half their size), one row whose tokens lie on all devices, by each strategy of lcx.parallel: the bytes that the
busiest device sends, temporary memory and time to compile; by rule and order the blocks of scores of each device; and
the same of the gradient of a model of four layers. Counted in float32, in which CPUs send bfloat16 too.

``--time`` runs attention in bfloat16 instead, in turns with one device's share of the work on one device.
"""

from __future__ import annotations

import argparse
import datetime
import json
import statistics
import time

import jax
import jax.numpy as jnp
import numpy as np

from lcx.attention import both, causal, same_segment, window
from lcx.attention.blockwise import attend
from lcx.config import Options
from lcx.models import LayerKind, ModelConfig, boxed, init
from lcx.parallel import MeshConfig, orders, rules, shard
from lcx.parallel.mesh import make
from lcx.parallel.traffic import collective_bytes
from lcx.train.loss import abstract_batch, loss_sums
from lcx.types import Where

HEADS, KEY_HEADS, HEAD = 8, 2, 64
BLOCK, WINDOW = 256, 512
LENGTHS = 4096, 8192, 16384, 32768, 65536
MODEL_LENGTH = 8192
STRATEGIES = {
    'all_gather': {'name': 'all_gather'},
    'ring': {'name': 'ring'},
    'ulysses': {'name': 'ulysses'},
    'ulysses_ring 2': {'name': 'ulysses_ring', 'ulysses': 2},
    'ulysses_ring 4': {'name': 'ulysses_ring', 'ulysses': 4},
    'halo': {'name': 'halo'},
}
RULES = {
    'causal': both(causal, same_segment),
    'window': both(causal, window(WINDOW), same_segment),
}


def line() -> jax.sharding.Mesh:
    devices = jax.devices()
    return jax.make_mesh((len(devices),), ('context',), axis_types=(jax.sharding.AxisType.Auto,))


def program(strategy: str, rule: str, length: int, mesh: jax.sharding.Mesh, order: str, dtype: jnp.dtype):
    """``(jitted gradient, its arguments as shapes that lie on the mesh)``."""
    place = jax.NamedSharding(mesh, jax.P(None, 'context'))

    def like(dtype, *shape) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct((1, length, *shape), dtype, sharding=place)

    over = shard(STRATEGIES[strategy], {'name': 'blockwise', 'block': BLOCK}, mesh, order=order)

    def gradient(q, k, v, d_out, positions, segments):
        where = Where.self_attention(positions, segments, HEADS)
        out, pull = jax.vjp(lambda *x: over(*x, where, RULES[rule]), q, k, v)
        return out, *pull(d_out)

    q, k = like(dtype, HEADS, HEAD), like(dtype, KEY_HEADS, HEAD)
    return jax.jit(gradient), (q, k, k, q, like(jnp.int32), like(jnp.int32))


def compiled(strategy: str, rule: str, length: int, mesh: jax.sharding.Mesh) -> dict:
    """A row: what the program of a strategy sends and holds."""
    run, shapes = program(strategy, rule, length, mesh, 'contiguous', jnp.float32)
    return row_of(run.lower(*shapes), what='attention', strategy=strategy, rule=rule, length=length)


def trained(strategy: str, length: int) -> dict:
    """A row: the gradient of a model of four layers, a row of tokens over all devices."""
    kind = LayerKind(
        Options(name='attention'), Options(name='blockwise', block=BLOCK), sequence=STRATEGIES[strategy]
    )
    sizes = {
        'width': 512,
        'layers': 4,
        'heads': HEADS,
        'kv_heads': KEY_HEADS,
        'head_dim': HEAD,
        'hidden': 1408,
    }
    model = ModelConfig(vocab=512, **sizes, remat='full', kinds={'full': kind})
    mesh = make(MeshConfig(context=len(jax.devices())), jax.devices())
    where = rules.shardings(boxed(model), mesh)
    params = rules.placed(jax.eval_shape(lambda: init(model, jax.random.key(0))), where)
    place = jax.NamedSharding(mesh, rules.spec(('batch', 'length'), rules.ACTIVATIONS))
    alone = jax.NamedSharding(mesh, jax.P())
    batch = abstract_batch(1, length)
    batch = rules.placed(batch, type(batch)(*(place if x.ndim == 2 else alone for x in batch)))

    def loss(params, batch):
        return loss_sums(model, params, batch, jax.random.key(0), z_loss=0.0, chunk=1024)[0]

    with jax.set_mesh(mesh):
        lowered = jax.jit(jax.grad(loss), out_shardings=where).lower(params, batch)
        return row_of(lowered, what='gradient of a model', strategy=strategy, rule='causal', length=length)


def row_of(lowered: jax.stages.Lowered, **facts) -> dict:
    """What the compiled program sends and holds."""
    start = time.monotonic()
    done = lowered.compile()
    seconds = time.monotonic() - start
    sent = dict(collective_bytes(done.as_text()))
    return {
        **facts,
        'sent': sum(sent.values()),
        **{f'sent_{name}': size for name, size in sent.items()},
        'temporary': done.memory_analysis().temp_size_in_bytes,
        'compile_seconds': round(seconds, 2),
    }


def packed(length: int) -> tuple[np.ndarray, np.ndarray]:
    """Positions and segments of a row of documents, a few long and many short ones."""
    random, sizes = np.random.default_rng(0), []
    while sum(sizes) < length:
        sizes.append(int(np.clip(random.lognormal(np.log(length / 16), 1.2), 64, length - sum(sizes))))
        if length - sum(sizes) < 64:
            sizes[-1] += length - sum(sizes)
    segments = np.repeat(np.arange(1, len(sizes) + 1), sizes).astype(np.int32)
    return np.concatenate([np.arange(n, dtype=np.int32) for n in sizes])[None], segments[None]


def balance(case: str, order: str, length: int, devices: int) -> dict:
    """A row: blocks of scores that each device makes."""
    positions, segments = (
        packed(length) if case == 'packed' else (np.arange(length)[None], np.ones((1, length), int))
    )
    to = orders.permutation(order, length, devices)
    positions, segments = (np.int32(x[:, to]) for x in (positions, segments))
    where = Where.self_attention(jnp.asarray(positions), jnp.asarray(segments), 1)
    work = orders.work(RULES.get(case, RULES['causal']), where, devices, BLOCK)
    ratio = float(work.max() / work.mean())
    return {
        'what': 'balance',
        'case': case,
        'order': order,
        'length': length,
        'blocks': work.tolist(),
        'max_over_mean': ratio,
    }


def alone(length: int, devices: int):
    """Causal attention of a device's share of the work on one device: 1 / devices of the pairs."""
    own = int(length / devices**0.5) // BLOCK * BLOCK
    q, k = (jnp.ones((1, own, heads, HEAD), jnp.bfloat16) for heads in (HEADS, KEY_HEADS))
    where = Where.plain(1, own, own, HEADS)

    @jax.jit
    def gradient(q, k, v, d_out):
        out, pull = jax.vjp(lambda *x: attend(*x, where, causal, block=BLOCK), q, k, v)
        return out, *pull(d_out)

    return lambda: gradient(q, k, k, q), own**2 * devices / length**2


def timed(strategy: str, order: str, length: int, mesh: jax.sharding.Mesh, rounds: int) -> dict:
    """A row: seconds of a strategy and, in turns with it, of its share of the work alone; medians."""
    run, shapes = program(strategy, 'causal', length, mesh, order, jnp.bfloat16)
    to = orders.permutation(order, length, mesh.size)
    values = [jnp.ones(x.shape, x.dtype) for x in shapes[:4]] + [
        np.int32(to)[None],
        np.ones((1, length), np.int32),
    ]
    values = [jax.device_put(x, shape.sharding) for x, shape in zip(values, shapes)]
    single, share = alone(length, mesh.size)
    pairs = []
    for i in range(rounds + 1):
        seconds = []
        for call in (lambda: run(*values), single):
            start = time.perf_counter()
            jax.block_until_ready(call())
            seconds.append(time.perf_counter() - start)
        if i:  # the first one compiles
            pairs.append((seconds[0], seconds[1] / share))
    ratio = statistics.median(theirs / ours for ours, theirs in pairs)
    return {
        'what': 'time', 'strategy': strategy, 'order': order, 'length': length, 'devices': mesh.size,
        'seconds': statistics.median(ours for ours, _ in pairs), 'of_ideal': ratio, 'rounds': rounds,
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('--out', required=True, help='file that rows are appended to')
    parser.add_argument('--lengths', default=','.join(map(str, LENGTHS)))
    parser.add_argument('--strategies', default=','.join(STRATEGIES))
    parser.add_argument('--time', action='store_true', help='run instead of compile')
    parser.add_argument('--rounds', type=int, default=10, help='with --time')
    flags = parser.parse_args()
    mesh, lengths = line(), [int(x) for x in flags.lengths.split(',')]
    common = {
        'device': jax.devices()[0].device_kind, 'devices': mesh.size, 'jax': jax.__version__,
        'date': datetime.date.today().isoformat(),
    }  # fmt: skip
    with open(flags.out, 'a', encoding='utf-8') as out:

        def write(row: dict) -> None:
            out.write(json.dumps({**row, **common}) + '\n')
            out.flush()
            print(row, flush=True)

        for length in lengths:
            if not flags.time:
                for case in ('causal', 'window', 'packed'):
                    for order in orders.ORDERS:
                        write(balance(case, order, length, mesh.size))
            for strategy in flags.strategies.split(','):
                rules = ['window'] if strategy == 'halo' else ['causal', 'window']
                if not flags.time:
                    for rule in rules:
                        write(compiled(strategy, rule, length, mesh))
                    if length == MODEL_LENGTH and strategy != 'halo':
                        write(trained(strategy, length))
                elif strategy != 'halo':
                    for order in orders.ORDERS:
                        write(timed(strategy, order, length, mesh, flags.rounds))


if __name__ == '__main__':
    main()
