"""An encoder on strings of up to 40 symbols, read at up to 500: experiments/007_randomized_positions.

    lcx train --config=configs/randomized_positions.py:cpu,alibi,bucket_sort --workdir=runs/sorted
    lcx train --config=configs/randomized_positions.py:full,r_rope,reverse_string --workdir=runs/reversed    # for a GPU

The argument is SIZE,METHOD,TASK: sizes full, cpu and smoke; methods are the keys of METHODS, each of which but none is
there once more with r_ before it, on random positions below 2048; tasks are those of TASKS. What is left out is full,
r_rope and bucket_sort. The protocol is that of Ruoss et al. 2023, arXiv:2305.16843.
"""

from typing import NamedTuple

from configs import base

TRAINED, TARGET = 40, 2048  # symbols of the longest question in training; positions

# 'relative' is the paper's, Transformer-XL's; 't5' has buckets for both sides, which reach as far as positions.
BASES = {
    'rope': {'name': 'rope'},
    'relative': {'name': 'transformer_xl'},
    't5': {'name': 't5', 'bidirectional': True, 'num_buckets': 64, 'max_distance': TARGET},
    'alibi': {'name': 'alibi', 'shift': 0.5},
    'sinusoidal': {'name': 'sinusoidal'},
}
METHODS = {
    'none': {'name': 'none'},
    **BASES,
    **{
        f'r_{name}': {'name': 'randomized', 'target_length': TARGET, 'base': options}
        for name, options in BASES.items()
    },
}

# Tokens of the longest row in training: what makes every size from 1 (or 2) to 40 equally probable.
TASKS = {
    'bucket_sort': 2 * TRAINED + 1,
    'reverse_string': 2 * TRAINED + 1,
    'even_pairs': TRAINED + 1,
    'missing_duplicate': TRAINED + 1,
}


class Size(NamedTuple):
    layers: int
    heads: int
    stages: dict  # steps, rows of a batch and learning rate, by task
    tested: tuple  # symbols of a question
    samples: dict  # strings of each of them, by task


SIZES = {
    'full': Size(
        *(5, 8),
        dict.fromkeys(TASKS, (100_000, 128, 1e-3)),
        (*range(5, 41, 5), *range(41, 101), *range(110, 501, 10)),
        dict.fromkeys(TASKS, 512),
    ),
    'cpu': Size(
        *(2, 4),
        {
            'bucket_sort': (800, 16, 3e-3),
            'reverse_string': (1500, 16, 3e-3),
            'even_pairs': (1500, 32, 1e-3),
            'missing_duplicate': (2500, 32, 1e-3),
        },
        (10, 20, 30, 40, *range(43, 101, 3), 150, 200, 500),
        {'bucket_sort': 24, 'reverse_string': 24, 'even_pairs': 512, 'missing_duplicate': 512},
    ),
    'smoke': Size(*(1, 2), dict.fromkeys(TASKS, (4, 2, 1e-3)), (3, 50), dict.fromkeys(TASKS, 2)),
}


def get_config(arg: str = ''):
    """``arg``: SIZE,METHOD,TASK; see above."""
    words = [word for word in arg.split(',') if word]
    size = one_of(SIZES, words, 'full')
    method = one_of(METHODS, words, 'r_rope')
    task = one_of(TASKS, words, 'bucket_sort')
    if words:
        known = ', '.join((*SIZES, *METHODS, *TASKS))
        raise ValueError(f'config argument {words[0]!r} is unknown or one too many; the words are: {known}.')
    chosen = SIZES[size]
    steps, batch, rate = chosen.stages[task]
    config = base.get_config()
    config.label = method
    config.data.update(source=f'task:{task}', form='encoder')
    heads = {'heads': chosen.heads, 'kv_heads': chosen.heads, 'head_dim': 64 // chosen.heads}
    config.model.update(
        layers=chosen.layers, width=64, hidden=256, norm='layer', gated=False, activation='gelu', **heads
    )
    config.model.kinds.full.rule = ()
    config.model.position = base.position(**METHODS[method])
    config.stages = (base.stage(steps=steps, length=TASKS[task], batch=batch),)
    config.optimizer.update(learning_rate=rate, beta2=0.999, weight_decay=0.0)
    config.eval.update(run=('task_sizes',), sizes=chosen.tested, windows=chosen.samples[task])
    config.checkpoint.every = steps
    config.log.every = max(1, steps // 20)
    return config


def one_of(choices, words: list, default: str) -> str:
    """The word among ``choices``, taken out of ``words``; ``default`` if there is none."""
    found = next((word for word in words if word in choices), None)
    if found is not None:
        words.remove(found)
    return found or default
