"""Every position method that trains from scratch, on text and on two tasks, with several seeds."""

from configs.position_zoo import DATA, METHODS

# (methods, seeds) of each size. The demo takes one method of every family.
SWEEPS = {
    'full': (tuple(METHODS), range(3)),
    'cpu': (tuple(METHODS), range(3)),
    'demo': (('none', 'rope', 'alibi', 't5', 'fire', 'sinusoidal', 'randomized', 'cope'), range(1)),
    'smoke': (('rope', 'alibi'), range(1)),
}


def sweep(arg: str = 'full') -> list[dict]:
    """``arg``: full, cpu, demo or smoke."""
    if arg not in SWEEPS:
        raise ValueError(f'size {arg!r} is unknown; the choices are: {", ".join(SWEEPS)}.')
    methods, seeds = SWEEPS[arg]
    return [
        {
            'name': f'{data}_{method}_{seed}',
            'verb': 'train',
            'config': f'configs/position_zoo.py:{arg},{method},{data}',
            'set': {'seed': seed},
        }
        for seed in seeds
        for data in DATA
        for method in methods
    ]
