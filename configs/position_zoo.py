"""A small decoder trained from scratch with any position method: experiments/003_position_zoo.

    lcx train --config=configs/position_zoo.py:cpu,alibi,copy --workdir=runs/zoo    # 0.1 M parameters, 64 tokens
    lcx train --config=configs/position_zoo.py:full,alibi,stdlib --workdir=runs/zoo # 25 M, 512 bytes; for a GPU

The argument is SIZE,METHOD,DATA: sizes full, cpu, demo and smoke; methods are the keys of METHODS; data are stdlib,
copy and bucket_sort. What is left out is full, rope and stdlib. Tested at 1 to 16 times the trained length.
"""

from configs import base

# Fields of the position at a trained length; methods that cannot be trained from scratch are not here.
METHODS = {
    'none': lambda length: {'name': 'none'},
    'rope': lambda length: {'name': 'rope'},
    'p_rope': lambda length: {'name': 'p_rope'},
    'xpos': lambda length: {'name': 'xpos'},
    'alibi': lambda length: {'name': 'alibi'},
    't5': lambda length: {'name': 't5'},
    'transformer_xl': lambda length: {'name': 'transformer_xl'},
    'kerple': lambda length: {'name': 'kerple'},
    'fire': lambda length: {'name': 'fire'},
    'sandwich': lambda length: {'name': 'sandwich'},
    'sinusoidal': lambda length: {'name': 'sinusoidal'},
    'learned': lambda length: {'name': 'learned'},
    'ssmax': lambda length: {'name': 'ssmax'},
    'randomized': lambda length: {'name': 'randomized', 'target_length': 16 * length},
    'random_float': lambda length: {'name': 'random_float', 'target_length': 16 * length},
    'shape': lambda length: {
        'name': 'shape',
        'max_offset': 15 * length,
        'base': {'name': 'sinusoidal'},
    },
    'cope': lambda length: {'name': 'none'},
}
MIXERS = {'cope': base.mixer('cope')}

DATA = ('stdlib', 'copy', 'bucket_sort')

# Of the model, of training, and the tokens at the end of each window that count.
SIZES = {
    'full': ({'preset': 'small', 'dtype': 'bfloat16'}, {'steps': 5000, 'length': 512, 'batch': 64}, 256),
    'cpu': ({'layers': 2, 'width': 64, 'hidden': 128}, {'steps': 800, 'length': 64, 'batch': 32}, 32),
    'demo': ({'layers': 2, 'width': 64, 'hidden': 128}, {'steps': 300, 'length': 64, 'batch': 32}, 32),
}


def get_config(arg: str = ''):
    """``arg``: SIZE,METHOD,DATA; see above."""
    words = [word for word in arg.split(',') if word]
    size = _one_of((*SIZES, 'smoke'), words, 'full')
    method = _one_of(METHODS, words, 'rope')
    data = _one_of(DATA, words, 'stdlib')
    if words:
        known = ', '.join((*SIZES, 'smoke', *METHODS, *DATA))
        raise ValueError(f'config argument {words[0]!r} is unknown or one too many; the words are: {known}.')
    model, stage, last = SIZES['full' if size == 'smoke' else size]
    config = base.get_config()
    config.label = method
    config.model.update(model)
    if size != 'full':
        config.model.update(heads=4, kv_heads=4, head_dim=16)
    config.model.position = base.position(**METHODS[method](stage['length']))
    if method in MIXERS:
        config.model.kinds.full.mixer = MIXERS[method]
    config.stages = (base.stage(**stage),)
    config.optimizer.learning_rate = 1e-3 if size == 'full' else 3e-3
    if data != 'stdlib':
        config.data.source = f'task:{data}'
    config.eval.run = ('perplexity',) if data == 'stdlib' else ('task',)
    config.eval.update(lengths=tuple(stage['length'] * 2**i for i in range(5)), windows=64, last=last)
    config.checkpoint.every = stage['steps']
    return base.smoke(config) if size == 'smoke' else config


def _one_of(choices, words: list, default: str) -> str:
    """The word among ``choices``, taken out of ``words``; ``default`` if there is none."""
    found = next((word for word in words if word in choices), None)
    if found is not None:
        words.remove(found)
    return found or default
