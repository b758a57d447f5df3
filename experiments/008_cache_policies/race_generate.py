r"""Continuing a long text with one model: lcx and transformers in turns, each in a process of its own.

    python experiments/008_cache_policies/race_generate.py --model=models/smollm2 --lengths=1024,8192 \
        --torch_python=FILE

Needs torch and transformers beside lcx, or another Python that has them: ``--torch_python=FILE``. All read the same
random tokens in fp32 and write ``--new`` tokens greedily, with no end. transformers reads the prompt at once with
PyTorch's fused attention (sdpa), into a cache that grows (DynamicCache) or one that does not (StaticCache), and writes
in a loop without anything of its ``generate`` around it; lcx reads 512 tokens at a time. The first token belongs to the
prompt. Loading and compiling are not counted; the order changes in every round.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from pathlib import Path


def peak_bytes() -> int:
    """The most memory that this process has held."""
    status = Path('/proc/self/status').read_text()
    return int(next(line for line in status.splitlines() if line.startswith('VmHWM')).split()[1]) * 1024


def with_lcx(directory: str):
    """``(write, prepare)``: ``write(ids, new)`` gives tokens and the seconds of prompt and text."""
    import jax
    import numpy as np

    from lcx import convert
    from lcx.generate.loop import Plan, begin, compiled

    model, params = convert.load(directory)
    params, programs = jax.device_put(params), {}

    def prepare(ids, new):
        if (len(ids), new) not in programs:
            plan = Plan.of(model, [ids], new=new)
            prompt = plan.prompt([ids], seed=0)
            programs[len(ids), new] = plan, compiled(plan, params, prompt, 'read', 'settle', 'decode')

    def write(ids, new):
        plan, parts = programs[len(ids), new]
        prompt = plan.prompt([ids], seed=0)
        reading = jax.block_until_ready(begin(plan, prompt))
        start = time.perf_counter()
        reading = parts.read(params, prompt, reading, prompt.first(plan.room.chunk), plan.chunks)
        state = jax.block_until_ready(parts.settle(params, prompt, *reading))
        middle = time.perf_counter()
        state = jax.block_until_ready(parts.decode(params, prompt, state))
        return np.asarray(state.tokens)[0].tolist(), middle - start, time.perf_counter() - middle

    return write, prepare


def with_torch(directory: str, *, static: bool):
    """The same by transformers."""
    import torch
    import transformers

    model = transformers.AutoModelForCausalLM.from_pretrained(
        directory, dtype=torch.float32, attn_implementation='sdpa'
    ).eval()

    def cache(size):
        if static:
            return transformers.StaticCache(config=model.config, max_cache_len=size)
        return transformers.DynamicCache(config=model.config)

    @torch.inference_mode()
    def write(ids, new):
        ids, held = torch.tensor(ids)[None], cache(len(ids) + new)
        start = time.perf_counter()
        logits = model(ids, past_key_values=held, use_cache=True, logits_to_keep=1).logits
        tokens = [int(logits[0, -1].argmax())]
        middle = time.perf_counter()
        for _ in range(new - 1):
            last = torch.tensor([tokens[-1:]])
            tokens.append(int(model(last, past_key_values=held, use_cache=True).logits[0, -1].argmax()))
        return tokens, middle - start, time.perf_counter() - middle

    return write, lambda ids, new: None


SIDES = {
    'lcx': with_lcx,
    'transformers, DynamicCache': lambda directory: with_torch(directory, static=False),
    'transformers, StaticCache': lambda directory: with_torch(directory, static=True),
}


def child(side: str, directory: str) -> None:
    """Answers every ``[ids, new]`` on stdin with a line of JSON."""
    write, prepare = SIDES[side](directory)
    print(json.dumps({'ready': True}), flush=True)
    for line in sys.stdin:
        given = json.loads(line)
        prepare(*given)
        tokens, prompt, text = write(*given)
        found = {'tokens': tokens, 'prefill': prompt, 'decode': text, 'peak': peak_bytes()}
        print(json.dumps(found), flush=True)


def main() -> None:
    """The race, a row for each side and length."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('--model', required=True)
    parser.add_argument('--lengths', default='1024,8192')
    parser.add_argument('--new', type=int, default=64)
    parser.add_argument('--rounds', type=int, default=3)
    parser.add_argument('--out', default='race.jsonl')
    parser.add_argument('--torch_python', default=sys.executable)
    parser.add_argument('--child', choices=SIDES)
    flags = parser.parse_args()
    if flags.child:
        child(flags.child, flags.model)
        return
    with open(flags.out, 'a') as out:
        for length in map(int, flags.lengths.split(',')):
            ids = [(7919 * i * i + 31 * i) % 49000 + 100 for i in range(length)]
            for side, samples in race(flags, ids).items():
                row = row_of(side, length, flags.new, samples)
                out.write(json.dumps(row) + '\n')
                out.flush()
                print(
                    f'{side}, {length} + {flags.new} tokens: {row["prefill_tokens_per_second"]:.0f} and '
                    f'{row["decode_tokens_per_second"]:.1f} tokens/s, peak {row["peak_bytes"] / 1e9:.2f} GB',
                    flush=True,
                )


def row_of(side: str, length: int, new: int, samples: list[dict]) -> dict:
    """Medians of a side, and the first of what it wrote."""
    prefill, decode = (statistics.median(s[part] for s in samples) for part in ('prefill', 'decode'))
    return {
        'label': side,
        'length': length,
        'new': new,
        'prefill_seconds': prefill,
        'decode_seconds': decode,
        'prefill_tokens_per_second': length / prefill,
        'decode_tokens_per_second': (new - 1) / decode,
        'samples': [[s['prefill'], s['decode']] for s in samples],
        'tokens': samples[-1]['tokens'][:16],
        'peak_bytes': max(s['peak'] for s in samples),
    }


def race(flags: argparse.Namespace, ids: list[int]) -> dict[str, list[dict]]:
    """Samples of each side, taken in turns; fresh processes, so that peaks are those of this length."""
    words = [__file__, f'--model={flags.model}', '--child']
    pipes = {'stdin': subprocess.PIPE, 'stdout': subprocess.PIPE, 'text': True}
    pythons = {side: sys.executable if side == 'lcx' else flags.torch_python for side in SIDES}
    sides = {side: subprocess.Popen([python, *words, side], **pipes) for side, python in pythons.items()}
    for process in sides.values():
        process.stdout.readline()
    found = {side: [] for side in sides}
    for i in range(flags.rounds):
        for side in [*sides] if i % 2 == 0 else reversed([*sides]):
            process = sides[side]
            process.stdin.write(json.dumps([ids, flags.new]) + '\n')
            process.stdin.flush()
            found[side].append(json.loads(process.stdout.readline()))
    for process in sides.values():
        process.stdin.close()
        process.wait()
    return found


if __name__ == '__main__':
    main()
