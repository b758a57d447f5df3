"""Four tasks with every method, plain and on random positions, with several seeds.

On a CPU 'none' has one: to an encoder without positions a question is a bag of symbols.
"""

from configs.randomized_positions import METHODS, TASKS

SEEDS = {'full': range(3), 'cpu': range(3), 'smoke': range(1)}


def sweep(arg: str = 'full') -> list[dict]:
    """``arg``: SIZE, or SIZE,TASK for one task; sizes full, cpu and smoke."""
    size, _, only = (arg or 'full').partition(',')
    if size not in SEEDS or only not in ('', *TASKS):
        raise ValueError(f'{arg!r} is unknown; sizes are {", ".join(SEEDS)}, tasks {", ".join(TASKS)}.')
    return [
        {
            'name': f'{task}_{method}_{seed}',
            'verb': 'train',
            'config': f'configs/randomized_positions.py:{size},{method},{task}',
            'set': {'seed': seed},
        }
        for seed in SEEDS[size]
        for task in ([only] if only else TASKS)
        for method in METHODS
        if method != 'none' or seed == 0 or size == 'full'
    ]
