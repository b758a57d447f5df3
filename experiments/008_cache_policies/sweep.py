"""SmolLM2-135M reads texts through caches of less and less room: what is lost, by policy and by bits."""

# Fields of config.cache for each policy, given the tokens that it may keep in every layer.
BUDGETED = {
    'StreamingLLM': lambda budget: {'name': 'streaming', 'window': budget - 4, 'sinks': 4},
    'window alone': lambda budget: {'name': 'streaming', 'window': budget, 'sinks': 0},
    'H2O': lambda budget: {'name': 'h2o', 'budget': budget},
    'TOVA': lambda budget: {'name': 'tova', 'budget': budget},
    'Scissorhands': lambda budget: {'name': 'scissorhands', 'budget': budget},
    'SnapKV': lambda budget: {'name': 'snapkv', 'budget': budget},
    'PyramidKV': lambda budget: {'name': 'pyramidkv', 'budget': budget},
}
WHOLE = {
    'full': {'name': 'full'},
    'int8': {'name': 'quantised', 'bits': 8},
    'int4': {'name': 'quantised', 'bits': 4},
    'int2': {'name': 'quantised', 'bits': 2},
}
SHARES = (0.5, 0.25, 0.125)

# The length, windows, depths of needles and samples at each, and passkeys.
SIZES = {
    'small': (2048, 4, (0.0, 0.5, 1.0), 2, 4),
    'full': (8192, 8, (0.0, 0.25, 0.5, 0.75, 1.0), 4, 16),
}


def sweep(arg: str = 'full') -> list[dict]:
    """``arg``: small or full. A run of each policy and budget, whose evaluators read through its cache."""
    if arg not in SIZES:
        raise ValueError(f'size {arg!r} is unknown; the choices are: {", ".join(SIZES)}.')
    length, windows, depths, samples, passkeys = SIZES[arg]
    settings = {
        'eval.cached': True,
        'eval.lengths': (length,),
        'eval.depths': depths,
        'eval.samples': samples,
        'eval.tokens': length,
        'eval.last': length // 4,
    }

    def run(label: str, name: str, what: dict, cache: dict) -> dict:
        return {
            'name': name,
            'verb': 'eval',
            'config': 'configs/smollm2.py',
            'init': 'smollm2',
            'set': {'label': label, **settings, **what, **{f'cache.{k}': v for k, v in cache.items()}},
        }

    caches = [(label, label, options) for label, options in WHOLE.items()]
    for share in SHARES:
        for policy, options in BUDGETED.items():
            label = f'{policy}, {share:.1%}'.replace('.0%', '%')
            caches.append((label, f'{policy}_{share:g}', options(int(share * length))))
    runs = [{'name': 'smollm2', 'verb': 'convert', 'src': 'smollm2'}]
    for label, name, cache in caches:
        name = name.lower().replace(' ', '_')
        # Windows and passkeys are counted by one field; samples of needles by another.
        runs.append(
            run(
                label,
                f'{name}_text',
                {'eval.run': ('window_perplexity', 'needle'), 'eval.windows': windows},
                cache,
            )
        )
        runs.append(
            run(label, f'{name}_passkey', {'eval.run': ('passkey',), 'eval.windows': passkeys}, cache)
        )
    return runs
