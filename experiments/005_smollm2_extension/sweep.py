"""SmolLM2-135M, trained at 8192 tokens, read at up to four times that by every method that needs no training."""

TRAINED = 8192

# Fields of the configuration for each method. What self_extend and dual_chunk can reach is in lcx/attention.
METHODS = {
    'plain': {},
    'PI': {'model.position.name': 'pi'},
    'NTK': {'model.position.name': 'ntk'},
    'dynamic NTK': {'model.position.name': 'dynamic_ntk'},
    'YaRN': {'model.position.name': 'yarn'},
    'Self-Extend': {
        'model.kinds.full.regions.name': 'self_extend',
        'model.kinds.full.regions.group': 5,
        'model.kinds.full.regions.window': 1024,
    },
    'Dual Chunk': {
        'model.kinds.full.regions.name': 'dual_chunk',
        'model.kinds.full.regions.chunk': 6144,
        'model.kinds.full.regions.local': 2048,
    },
    'ReRoPE': {'model.kinds.full.regions.name': 'rerope', 'model.kinds.full.regions.window': 4096},
    'LM-Infinite': {
        'model.kinds.full.regions.name': 'lm_infinite',
        'model.kinds.full.regions.window': 4096,
        'model.kinds.full.regions.sinks': 16,
    },
}

# Methods, the longest length, windows, and evaluators, depths and samples of needles, or None. The runs of small are
# runs of medium too.
SIZES = {
    'small': (('plain', 'PI', 'NTK', 'YaRN'), 16384, 2, None),
    'medium': (tuple(METHODS), 16384, 2, (('needle',), (0.0, 0.5, 1.0), 1)),
    'full': (tuple(METHODS), 32768, 8, (('needle', 'passkey'), (0.0, 0.25, 0.5, 0.75, 1.0), 4)),
}


def sweep(arg: str = 'full') -> list[dict]:
    """``arg``: small, medium or full. Frequencies that follow the length are those of the plain model up to 8192."""
    if arg not in SIZES:
        raise ValueError(f'size {arg!r} is unknown; the choices are: {", ".join(SIZES)}.')
    methods, longest, windows, needles = SIZES[arg]
    lengths = tuple(n for n in (2048, 4096, 8192, 16384, 32768) if n <= longest)

    def run(method: str, what: str, settings: dict) -> dict:
        own = METHODS[method]
        mine = tuple(n for n in lengths if n > TRAINED) if 'model.position.name' in own else lengths
        return {
            'name': f'{method.lower().replace(" ", "_")}_{what}',
            'verb': 'eval',
            'config': 'configs/smollm2.py',
            'init': 'smollm2',
            'set': {'label': method, 'eval.lengths': mine, **settings, **own},
        }

    runs = [{'name': 'smollm2', 'verb': 'convert', 'src': 'smollm2'}]
    runs += [run(method, 'windows', {'eval.windows': windows}) for method in methods]
    if needles is not None:
        evaluators, depths, samples = needles
        settings = {'eval.run': evaluators, 'eval.depths': depths, 'eval.samples': samples, 'eval.windows': 4}
        runs += [run(method, 'needles', settings) for method in methods]
    return runs
