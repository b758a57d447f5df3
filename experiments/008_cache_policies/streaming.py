"""One book read to the end through a cache that holds a window of it, with and without the first tokens.

    python experiments/008_cache_policies/streaming.py --model=models/smollm2 --workdir=runs/streaming
    lcx report runs/streaming

Scores the first 65,536 tokens of *Pride and Prejudice* through caches of 1,024 tokens: a window alone, and 4 sinks with
a window of 1,020 at positions in the cache (StreamingLLM) or in the text. Beside them stands what the window would give
without a cache: targets drawn from all over the book are scored from the 1,024 tokens before them, read alone. Writes a
row by range of positions and policy, and one by length with the seconds and bytes, into results.jsonl.
"""

from __future__ import annotations

import argparse
import functools
import json
import time
from pathlib import Path

import jax
import numpy as np

from configs import base
from lcx import config as configuration
from lcx import convert
from lcx.data.config import DataConfig
from lcx.data.tokenizers import make_tokenizer
from lcx.data.tokens import open_tokens
from lcx.eval.api import whole_rows
from lcx.generate import reading
from lcx.generate.policies import held_bytes, make_policy
from lcx.models import score

CACHE = 1024  # tokens
SINKS = 4
POLICIES = {
    'window alone': {'name': 'streaming', 'window': CACHE, 'sinks': 0},
    '4 sinks, positions in the cache': {'name': 'streaming', 'window': CACHE - SINKS, 'sinks': SINKS},
    '4 sinks, positions in the text': {
        'name': 'streaming', 'window': CACHE - SINKS, 'sinks': SINKS, 'reposition': False
    },
}  # fmt: skip
CHUNK, LOGITS = 512, 256


def main() -> None:
    """Reads the flags and appends rows as they come."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('--model', required=True, help='directory of the converted model')
    parser.add_argument('--workdir', required=True, type=Path)
    parser.add_argument('--tokens', type=int, default=65536, help='of the book that are read; a power of two')
    parser.add_argument(
        '--targets', type=int, default=48, help='scored again without a cache, in each range of positions'
    )
    flags = parser.parse_args()
    model, params = convert.load(flags.model)
    tokenizer = make_tokenizer(flags.model)
    values = base.get_config().data.to_dict() | {'source': 'austen', 'tokenizer': flags.model}
    data = configuration.build(DataConfig, values, 'data')
    book = max((x for x in open_tokens(data, 'test')), key=len)[: flags.tokens + 1]
    size = tokenizer.token_bytes[book[1:]]
    ranges = ranges_of(flags.tokens)
    flags.workdir.mkdir(parents=True, exist_ok=True)
    with open(flags.workdir / 'results.jsonl', 'a', encoding='utf-8') as file:

        def write(label: str, **row: object) -> None:
            common = {'label': label, 'run': flags.workdir.name, 'seed': 0, 'step': 0, 'split': 'test'}
            common |= {'trained_length': model.trained_length, 'position': 'rope', 'factor': 1.0}
            row = common | row
            print(json.dumps(row), flush=True)
            file.write(json.dumps(row) + '\n')
            file.flush()

        chosen = drawn(ranges, flags.targets)
        again = recomputed(model, params, book, chosen)
        for (start, end), targets in chosen.items():
            row = numbers(again[targets], size[targets], start, end, flags.tokens)
            write(
                'recomputed', **row | {'evaluator': 'recomputed'}
            )  # of few targets: no line beside the others
        for label, options in POLICIES.items():
            for length in (8192 << i for i in range(32)):
                if length > flags.tokens:
                    break
                nll, facts = streamed(model, params, book[: length + 1], options)
                write(label, evaluator='streaming', length=length, ppl=float(np.exp(nll.mean())), **facts)
            for start, end in ranges:
                write(label, **numbers(nll[start:end], size[start:end], start, end, flags.tokens))
            for (start, end), targets in chosen.items():
                ratio = float(np.exp(nll[targets].mean() - again[targets].mean()))
                write(label, evaluator='against_recomputed', length=flags.tokens, bucket_start=start, bucket_end=end,
                      targets=len(targets), ppl_ratio=ratio)  # fmt: skip
            every = np.concatenate(list(chosen.values()))
            apart = nll[every] - again[every]
            error = float(apart.std(ddof=1) / np.sqrt(len(every)))
            write(label, evaluator='against_recomputed', length=flags.tokens, targets=len(every),
                  nats=float(apart.mean()), nats_stderr=error, ppl_ratio=float(np.exp(apart.mean())))  # fmt: skip


def ranges_of(length: int) -> list[tuple[int, int]]:
    """[0, 512), [512, 1024), [1024, 2048), ... up to ``length``."""
    ends = [512 << i for i in range(32) if 512 << i <= length]
    return list(zip([0, *ends], ends))


def drawn(ranges: list[tuple[int, int]], count: int) -> dict[tuple[int, int], np.ndarray]:
    """Targets by range, of those that have a whole window before them."""
    random = np.random.default_rng(0)
    return {
        (start, end): np.sort(random.choice(np.arange(start, end), count, replace=False))
        for start, end in ranges
        if start >= CACHE
    }


def recomputed(model, params, book: np.ndarray, chosen: dict) -> np.ndarray:
    """nll of the chosen targets, each from the tokens before it alone; NaN elsewhere."""
    program = jax.jit(functools.partial(score, model, chunk=LOGITS))
    nll = np.full(len(book) - 1, np.nan)
    for target in np.concatenate(list(chosen.values())):
        nll[target] = program(params, whole_rows(book[None, target + 1 - CACHE : target + 2])).nll[0, -1]
    return nll


def streamed(model, params, ids: np.ndarray, options: dict) -> tuple[np.ndarray, dict]:
    """nll of every target, read through a cache, and what that took."""
    policy = make_policy(options, reading.room(len(ids) - 1, CHUNK))
    caches = jax.eval_shape(lambda: policy.caches(policy.model(model), 1))
    batch = whole_rows(ids[None])
    program = jax.jit(functools.partial(reading.score, model, policy=policy, chunk=CHUNK, logits=LOGITS))
    program = program.lower(params, batch).compile()
    since = time.monotonic()
    nll = np.asarray(program(params, batch).nll[0], np.float64)
    seconds = time.monotonic() - since
    facts = {'seconds': seconds, 'ms_per_token': 1e3 * seconds / len(nll), 'cache_bytes': held_bytes(caches)}
    return nll, facts | {'temporary_bytes': program.memory_analysis().temp_size_in_bytes}


def numbers(nll: np.ndarray, size: np.ndarray, start: int, end: int, length: int) -> dict:
    """A row as the evaluator of perplexity by position writes it."""
    row = {
        'evaluator': 'perplexity_by_position',
        'length': length,
        'windows': 1,
        'bucket_start': start,
        'bucket_end': end,
    }
    row |= {'ppl': float(np.exp(nll.mean())), 'targets': len(nll)}
    return row | {'bits_per_byte': float(nll.sum() / np.log(2) / size.sum())}


if __name__ == '__main__':
    main()
