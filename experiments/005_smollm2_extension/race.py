"""Scoring a long text with one model: lcx and transformers in turns, each in a process of its own.

    python experiments/005_smollm2_extension/race.py --model=models/smollm2 --lengths=2048,8192 --out=race.jsonl

Needs torch and transformers beside lcx, or another Python that has them: ``--torch_python=PATH``. Both score the same
random window of tokens in fp32 with logits for 256 tokens at a time; transformers has PyTorch's fused attention
(sdpa). Every sample is one whole forward pass, compilation and loading not counted; the order changes in every round.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from pathlib import Path

CHUNK = 256  # tokens with logits at one time


def peak_bytes() -> int:
    """The most memory that this process has held."""
    status = Path('/proc/self/status').read_text()
    return int(next(line for line in status.splitlines() if line.startswith('VmHWM')).split()[1]) * 1024


def with_lcx(directory: str):
    """``(score, prepare)``: ``score(ids)`` is the mean nll, ``prepare(ids)`` what it costs but once."""
    import functools

    import jax
    import numpy as np

    from lcx import convert
    from lcx.eval.api import whole_rows
    from lcx.models import score

    model, params = convert.load(directory)
    programs = {}

    def prepare(ids):
        if len(ids) not in programs:
            step = jax.jit(functools.partial(score, model, chunk=CHUNK))
            programs[len(ids)] = step.lower(params, rows(ids)).compile()

    def run(ids):
        return float(np.mean(programs[len(ids)](params, rows(ids)).nll))

    def rows(ids):
        return whole_rows(np.asarray(ids, np.int32)[None])

    return run, prepare


def with_torch(directory: str):
    """The same by transformers."""
    import torch
    import transformers

    model = transformers.AutoModelForCausalLM.from_pretrained(
        directory, dtype=torch.float32, attn_implementation='sdpa'
    ).eval()

    @torch.inference_mode()
    def run(ids):
        ids = torch.tensor(ids)
        hidden = model.model(ids[None, :-1], use_cache=False).last_hidden_state[0]
        nll = [
            torch.nn.functional.cross_entropy(model.lm_head(h), t, reduction='none')
            for h, t in zip(hidden.split(CHUNK), ids[1:].split(CHUNK))
        ]
        return float(torch.cat(nll).mean())

    return run, lambda ids: None


SIDES = {'lcx': with_lcx, 'torch': with_torch}


def child(side: str, directory: str) -> None:
    """Answers every list of ids on stdin with a line of JSON."""
    run, prepare = SIDES[side](directory)
    print(json.dumps({'ready': True}), flush=True)
    for line in sys.stdin:
        ids = json.loads(line)
        prepare(ids)
        since = time.perf_counter()
        nll = run(ids)
        print(
            json.dumps({'seconds': time.perf_counter() - since, 'nll': nll, 'peak': peak_bytes()}), flush=True
        )


def main() -> None:
    """The race, a row for each side and length."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('--model', required=True)
    parser.add_argument('--lengths', default='2048,8192')
    parser.add_argument('--rounds', type=int, default=3)
    parser.add_argument('--out', default='race.jsonl')
    parser.add_argument('--torch_python', default=sys.executable)
    parser.add_argument('--child', choices=SIDES)
    flags = parser.parse_args()
    if flags.child:
        child(flags.child, flags.model)
        return
    pythons = {'lcx': sys.executable, 'torch': flags.torch_python}
    with open(flags.out, 'a') as out:
        for length in map(int, flags.lengths.split(',')):
            ids = [(7919 * i * i + 31 * i) % 49000 + 100 for i in range(length + 1)]
            found = race(pythons, flags.model, ids, flags.rounds)
            for side, samples in found.items():
                row = {
                    'label': side,
                    'length': length,
                    'seconds': statistics.median(s['seconds'] for s in samples),
                    'samples': [s['seconds'] for s in samples],
                    'nll': samples[-1]['nll'],
                    'peak_bytes': max(s['peak'] for s in samples),
                }
                out.write(json.dumps(row) + '\n')
                out.flush()
                print(
                    f'{side}, {length} tokens: {row["seconds"]:.1f} s, peak {row["peak_bytes"] / 1e9:.2f} GB',
                    flush=True,
                )


def race(pythons: dict[str, str], model: str, ids: list[int], rounds: int) -> dict[str, list[dict]]:
    """Samples of each side, taken in turns; fresh processes, so that peaks are those of this length."""
    words = [__file__, f'--model={model}', '--child']
    pipes = {'stdin': subprocess.PIPE, 'stdout': subprocess.PIPE, 'text': True}
    sides = {side: subprocess.Popen([python, *words, side], **pipes) for side, python in pythons.items()}
    for process in sides.values():
        process.stdout.readline()
    found = {side: [] for side in sides}
    for i in range(rounds):
        for side in [*sides] if i % 2 == 0 else reversed([*sides]):
            process = sides[side]
            process.stdin.write(json.dumps(ids) + '\n')
            process.stdin.flush()
            found[side].append(json.loads(process.stdout.readline()))
    for process in sides.values():
        process.stdin.close()
        process.wait()
    return found


if __name__ == '__main__':
    main()
