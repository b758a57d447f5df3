"""One base run at a short length; then every method on it, untuned and after a short tuning at 4 x the length."""

TUNING = {
    # steps, length, batch and peak learning rate of the tuning stage, per size of the base run
    '': {'steps': 1000, 'length': 2048, 'batch': 16, 'learning_rate': 3e-4},
    'demo': {'steps': 150, 'length': 512, 'batch': 4, 'learning_rate': 5e-4},
    'smoke': {'steps': 2, 'length': 128, 'batch': 2, 'learning_rate': 1e-3},
}


def sweep(arg: str = '') -> list[dict]:
    """``arg``: '' (full size), 'demo' or 'smoke'."""
    if arg not in TUNING:
        raise ValueError(f'size {arg!r} is unknown; the choices are: {", ".join(map(repr, TUNING))}.')
    config = f'configs/extend_small.py:{arg}' if arg else 'configs/extend_small.py'

    def untuned(method: str, label: str) -> dict:
        settings = {'model.position.name': method, 'label': label}
        return {'name': f'untuned_{method}', 'verb': 'eval', 'init': 'base', 'set': settings}

    def tuned(method: str, label: str) -> dict:
        stage = {f'stages[0].{field}': value for field, value in TUNING[arg].items()}
        settings = {'model.position.name': method, 'label': label, **stage}
        return {'name': f'tuned_{method}', 'verb': 'train', 'config': config, 'init': 'base', 'set': settings}

    return [
        {'name': 'base', 'verb': 'train', 'config': config},
        untuned('pi', 'PI'),
        untuned('ntk', 'NTK-aware'),
        untuned('dynamic_ntk', 'dynamic NTK'),
        untuned('yarn', 'YaRN'),
        tuned('pi', 'PI, tuned'),
        tuned('yarn', 'YaRN, tuned'),
    ]
