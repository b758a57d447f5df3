"""How well sequence parallelism scales: seconds of a training step by arithmetic, beside what others have published.

    python experiments/006_context_parallel/model.py            # the checks, and the table of the extrapolation

Of one layer on one of n devices, t = T / n tokens of one row each, N query heads, K key heads of H numbers, width D:

    attention     4 N H operations for each pair of a causal row forward, 2.5 times as many backward. A ring takes n
                  steps and waits in each for the device with most pairs: t^2 in contiguous order but for the first
                  step, t^2 / 2 in zigzag and striped order. All others share the pairs evenly, T^2 / 2n
    merging       a ring adds up partial results: it reads one in fp32, reads and writes the sum, 12 N H t bytes a step
                  forward, and as much for the gradient of q backward
    sent          as lcx.parallel.sequence says, in bfloat16; gradients of keys and values in fp32. A ring overlaps it
                  with the step, neighbours over one link; all_gather and ulysses wait for it, over all links
    the rest      6 operations for each matrix parameter and token, perfectly divided

    full recomputation (the forward pass twice) where a row says so

One constant for all devices and rows: matrix products reach EFFICIENCY of the peak. Data sheets give the rest. Not
in the model: latency, kernels that are slower for causal or small blocks, parameters gathered over fsdp, the host.
"""

from __future__ import annotations

from typing import NamedTuple

EFFICIENCY = 0.5


class Device(NamedTuple):
    """Numbers of a data sheet: operations (bfloat16, dense) and bytes, each per second; links in one direction."""

    peak: float
    memory: float  # of its own
    link: float  # to a neighbour
    links: float  # all of them together


DEVICES = {
    'H100': Device(989e12, 3.35e12, 450e9, 450e9),
    'H100, network': Device(989e12, 3.35e12, 50e9, 50e9),  # 400 Gbit/s for each, as between nodes
    'H800': Device(989e12, 3.35e12, 200e9, 200e9),
    'A100': Device(312e12, 2.0e12, 300e9, 300e9),
    'TPU v5p': Device(459e12, 2.77e12, 100e9, 600e9),
}


class Model(NamedTuple):
    """Sizes of a decoder."""

    layers: int
    width: int
    heads: int
    key_heads: int
    head: int
    matrices: float  # parameters that every token is multiplied with, the output's table included


LLAMA_3_8B = Model(32, 4096, 32, 8, 128, 7.5e9)
LLAMA_2_7B = Model(32, 4096, 32, 32, 128, 6.6e9)


class Cost(NamedTuple):
    """Seconds of attention of one layer on the slowest device, forward and backward, and of an even share alone."""

    forward: float
    backward: float
    ideal_forward: float
    ideal_backward: float


def attention(strategy: str, model: Model, device: Device, tokens: int, devices: int) -> Cost:
    """``strategy``: ring contiguous | ring zigzag | all_gather | ulysses; a causal row of ``tokens``."""
    own = tokens / devices
    pair = 4 * model.heads * model.head / (device.peak * EFFICIENCY)  # seconds
    ideal = tokens**2 / 2 / devices * pair
    keys = 2 * own * model.key_heads * model.head * 2  # bytes of k and v
    if strategy.startswith('ring'):
        most = own**2 if strategy.endswith('contiguous') else own**2 / 2
        merge = 12 * model.heads * model.head * own / device.memory
        steps = [own**2 / 2] + [most] * (devices - 1)
        forward = sum(max(pairs * pair + merge, keys / device.link) for pairs in steps)
        # k, v and, behind them, their gradients in fp32
        backward = sum(max(2.5 * pairs * pair + merge, 3 * keys / device.link) for pairs in steps)
    elif strategy == 'all_gather':
        sent = (devices - 1) * keys / device.links
        forward, backward = ideal + sent, 2.5 * ideal + 3 * sent
    else:
        queries = 2 * own * model.heads * model.head * 2  # bytes of q and out
        repeated = max(1, devices / model.key_heads)  # key heads, until each device has one
        sent = (devices - 1) / devices * (queries + min(repeated, model.heads / model.key_heads) * keys)
        forward, backward = (work * ideal + sent / device.links for work in (1, 2.5))
    return Cost(forward, backward, ideal, 2.5 * ideal)


class Step(NamedTuple):
    """A training step of one row."""

    seconds: float
    of_ideal: float  # that of even work, of which nothing is sent or merged
    mfu: float  # operations, recomputed ones not counted, of the peak


def step(strategy: str, model: Model, device: Device, tokens: int, devices: int, recompute: bool) -> Step:
    """A training step of one row of ``tokens`` over that many devices."""
    cost = attention(strategy, model, device, tokens, devices)
    linear = 2 * model.matrices * tokens / devices / (device.peak * EFFICIENCY)
    passes = 2 if recompute else 1
    seconds = (passes + 2) * linear + model.layers * (passes * cost.forward + cost.backward)
    ideal = (passes + 2) * linear + model.layers * (passes * cost.ideal_forward + cost.ideal_backward)
    useful = 6 * model.matrices * tokens + model.layers * 3.5 * 2 * model.heads * model.head * tokens**2
    return Step(seconds, ideal / seconds, useful / (devices * device.peak * seconds))


def checks() -> list[tuple[str, float, float]]:
    """``(what, published, modelled)``."""
    found = []
    for strategy, forward, both in (
        ('ring contiguous', 52.1, 53.9),
        ('ring zigzag', 85.2, 90.2),
        ('ring striped', 74.4, 82.9),
    ):
        cost = attention(strategy, LLAMA_3_8B, DEVICES['H800'], 8 * 8192, 8)
        name = f'ring-flash-attention, 8 x H800, 8k tokens each, {strategy}, % of ideal'
        found.append((f'{name}, forward', forward, 100 * cost.ideal_forward / cost.forward))
        ideal = cost.ideal_forward + cost.ideal_backward
        found.append((f'{name}, forward and backward', both, 100 * ideal / (cost.forward + cost.backward)))
    for tokens, published in ((65536, 7816), (131072, 4266), (524288, 2133), (716800, 1603)):
        speed = tokens / step('ring zigzag', LLAMA_2_7B, DEVICES['A100'], tokens, 8, recompute=True).seconds
        found.append((f'EasyContext, Llama-2-7B, 8 x A100, {tokens // 1024}k, tokens/s', published, speed))
    for strategy, published in (('ulysses', 52.2), ('all_gather', 52.9), ('ring contiguous', 28.5)):
        share = step(strategy, LLAMA_2_7B, DEVICES['TPU v5p'], 32768, 16, recompute=False).mfu
        found.append((f'MaxText, Llama-2-7B, 16 of v5p-128, 32k, {strategy}, MFU %', published, 100 * share))
    return found


STRATEGIES = (
    'ring contiguous',
    'ring zigzag',
    'all_gather',
)  # ulysses has no more devices than query heads, 32
COUNTS = 64, 128, 256, 512, 1024
TOKENS = 2**20, 2**21, 2**22, 10 * 2**20


def extrapolation(device: str) -> list[dict]:
    """Llama 3.1 8B with full recomputation, one row over all devices."""
    rows = []
    for tokens in TOKENS:
        for devices in COUNTS:
            for strategy in STRATEGIES:
                found = step(strategy, LLAMA_3_8B, DEVICES[device], tokens, devices, recompute=True)
                where = {'device': device, 'tokens': tokens, 'devices': devices, 'strategy': strategy}
                rows.append({**where, **found._asdict()})
    return rows


def main() -> None:
    print('| what | published | modelled | error |\n| :--- | ---: | ---: | ---: |')
    for what, published, modelled in checks():
        print(f'| {what} | {published:g} | {modelled:.4g} | {100 * (modelled / published - 1):+.0f} % |')
    for device in ('H100', 'H100, network'):
        print(f'\n| {device}: tokens | strategy | ' + ' | '.join(f'{n} devices' for n in COUNTS) + ' |')
        print('| ---: | :--- |' + ' ---: |' * len(COUNTS))
        found = {(row['tokens'], row['strategy'], row['devices']): row for row in extrapolation(device)}
        for tokens in TOKENS:
            for strategy in STRATEGIES:
                cells = [found.get((tokens, strategy, n)) for n in COUNTS]
                if any(cells):
                    words = [
                        f'{x["seconds"]:.3g} s, {100 * x["of_ideal"]:.0f} %' if x else '-' for x in cells
                    ]
                    print(f'| {tokens / 2**20:g} M | {strategy} | {" | ".join(words)} |')


if __name__ == '__main__':
    main()
