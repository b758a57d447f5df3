"""Four tasks with every method, plain and on random positions, with several seeds; and what explains differences."""

from configs.randomized_positions import METHODS, TASKS

SEEDS = {'full': range(3), 'cpu': range(3), 'smoke': range(1)}

# Runs of size cpu: task, method, label, and what differs.
DIAGNOSIS = (
    ('bucket_sort', 't5', 't5, far alike', {'model.position.max_distance': 64}),
    ('bucket_sort', 'relative', 'relative, 4 x steps', {'stages[0].steps': 3200}),
    ('bucket_sort', 'relative', 'relative, 16 x steps', {'stages[0].steps': 12_800}),
    *(
        (task, method, f'{method}, 4 x steps', {'stages[0].steps': steps})
        for task, steps, methods in (
            ('reverse_string', 6000, ('relative', 'r_rope', 'r_relative')),
            ('even_pairs', 6000, ('alibi',)),
            ('missing_duplicate', 10_000, ('rope', 'relative', 'r_rope', 'r_relative')),
        )
        for method in methods
    ),
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
    return [run(arg, task, method, seed) for seed in SEEDS[arg] for task in TASKS for method in METHODS]


def run(size: str, task: str, method: str, seed: int, *, name: str | None = None, **changes) -> dict:
    """One training with its evaluation."""
    return {
        'name': f'{task}_{name or method}_{seed}',
        'verb': 'train',
        'config': f'configs/randomized_positions.py:{size},{method},{task}',
        'set': {'seed': seed, **changes},
    }
