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

# The length, windows (and passkeys), depths of needles, and samples at each.
SIZES = {
    'small': (2048, 4, (0.0, 0.5, 1.0), 1),
    'full': (8192, 8, (0.0, 0.25, 0.5, 0.75, 1.0), 4),
}


def sweep(arg: str = 'full') -> list[dict]:
    """``arg``: small or full. A run of each policy and budget, whose evaluators read through its cache."""
    if arg not in SIZES:
        raise ValueError(f'size {arg!r} is unknown; the choices are: {", ".join(SIZES)}.')
    length, windows, depths, samples = SIZES[arg]
    settings = {
        'eval.run': ('window_perplexity', 'needle', 'passkey'),
        'eval.cached': True,
        'eval.lengths': (length,),
        'eval.windows': windows,
        'eval.depths': depths,
        'eval.samples': samples,
        'eval.tokens': length,
        'eval.last': length // 4,
    }

    def run(label: str, cache: dict) -> dict:
        return {
            'name': label.lower().replace(' ', '_').replace(',', '').replace('%', ''),
            'verb': 'eval',
            'config': 'configs/smollm2.py',
            'init': 'smollm2',
            'set': {'label': label, **settings, **{f'cache.{k}': v for k, v in cache.items()}},
        }

    shared = [
        run(f'{policy}, {100 * share:g}%', options(int(share * length)))
        for share in SHARES
        for policy, options in BUDGETED.items()
    ]
    whole = [run(label, cache) for label, cache in WHOLE.items()]
    return [{'name': 'smollm2', 'verb': 'convert', 'src': 'smollm2'}, whole[0], *shared, *whole[1:]]
