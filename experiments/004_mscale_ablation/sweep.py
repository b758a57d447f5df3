"""YaRN with its attention temperature and without it, untuned and after a short tuning."""

# Windows per length, and the tuning at 4 x the trained length, per size of the base run (configs/extend_small.py).
SIZES = {
    'full': (512, {'steps': 1000, 'length': 2048, 'batch': 16, 'learning_rate': 3e-4}),
    'demo': (512, {'steps': 150, 'length': 512, 'batch': 4, 'learning_rate': 5e-4}),
    'smoke': (4, {'steps': 2, 'length': 128, 'batch': 2, 'learning_rate': 1e-3}),
}
WITHOUT = {'model.position.attention_factor': 1.0}
SEEDS = range(3)  # of the tuning: its batches, and the windows evaluated


def sweep(arg: str = 'full') -> list[dict]:
    """``arg``: full, demo or smoke."""
    if arg not in SIZES:
        raise ValueError(f'size {arg!r} is unknown; the choices are: {", ".join(SIZES)}.')
    windows, tuning = SIZES[arg]
    config = f'configs/extend_small.py:{arg}' if arg != 'full' else 'configs/extend_small.py'
    evaluation = {'eval.run': ('window_perplexity',), 'eval.windows': windows}
    yarn = {**evaluation, 'model.position.name': 'yarn'}

    def untuned(name: str, label: str, extra: dict) -> dict:
        return {'name': name, 'verb': 'eval', 'init': 'base', 'set': {**yarn, 'label': label, **extra}}

    def tuned(name: str, label: str, extra: dict, seed: int) -> dict:
        stage = {f'stages[0].{field}': value for field, value in tuning.items()}
        settings = {**yarn, 'label': label, 'seed': seed, **stage, **extra}
        return {'name': f'{name}_{seed}', 'verb': 'train', 'config': config, 'init': 'base', 'set': settings}

    return [
        {'name': 'base', 'verb': 'train', 'config': config, 'set': evaluation},
        untuned('with', 'YaRN', {}),
        untuned('without', 'YaRN, no temperature', WITHOUT),
        *(tuned('tuned_with', 'YaRN, tuned', {}, seed) for seed in SEEDS),
        *(tuned('tuned_without', 'YaRN, no temperature, tuned', WITHOUT, seed) for seed in SEEDS),
    ]
