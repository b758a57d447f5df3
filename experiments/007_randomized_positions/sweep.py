"""Four tasks with every method, plain and on random positions, with several seeds; and what explains differences.

On a CPU 'none' has one seed: to an encoder without positions a question is a bag of symbols.
"""

from configs.randomized_positions import METHODS, TASKS

SEEDS = {'full': range(3), 'cpu': range(3), 'smoke': range(1)}

# Runs of size cpu: task, method, label, and what differs.
DIAGNOSIS = (
    ('bucket_sort', 't5', 't5, far alike', {'model.position.max_distance': 64}),
    ('reverse_string', 'r_rope', 'r_rope, 4 x steps', {'stages[0].steps': 6000}),
    ('even_pairs', 'r_t5', 'r_t5, 4 x steps', {'stages[0].steps': 6000}),
    ('even_pairs', 'alibi', 'alibi, 4 x steps', {'stages[0].steps': 6000}),
)


def sweep(arg: str = 'full') -> list[dict]:
    """``arg``: full, cpu, smoke or diagnosis."""
    if arg == 'diagnosis':
        return [
            run(
                'cpu',
                task,
                method,
                0,
                name=label.replace(', ', '_').replace(' ', '_'),
                label=label,
                **changes,
            )
            for task, method, label, changes in DIAGNOSIS
        ]
    if arg not in SEEDS:
        raise ValueError(f'size {arg!r} is unknown; the choices are: {", ".join(SEEDS)}, diagnosis.')
    return [
        run(arg, task, method, seed)
        for seed in SEEDS[arg]
        for task in TASKS
        for method in METHODS
        if method != 'none' or seed == 0 or arg == 'full'
    ]


def run(size: str, task: str, method: str, seed: int, *, name: str | None = None, **changes) -> dict:
    """One training with its evaluation."""
    return {
        'name': f'{task}_{name or method}_{seed}',
        'verb': 'train',
        'config': f'configs/randomized_positions.py:{size},{method},{task}',
        'set': {'seed': seed, **changes},
    }
