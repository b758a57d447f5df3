"""Train short, to be extended: the base run of experiments/001_extend_small.

    lcx train --config=configs/extend_small.py --workdir=runs/base          # 25 M parameters, 512 bytes; for a GPU
    lcx train --config=configs/extend_small.py:demo --workdir=runs/base     # 1.8 M, 128 bytes; minutes on two cores

At the demo size expect about 2.0 bits per byte on held-out standard-library sources at the trained length.
"""

from configs import base


def get_config(arg: str = ''):
    """``arg``: '' for the full size, 'demo' for the size of ``make demo``, 'smoke' for seconds."""
    config = base.get_config()
    config.label = 'RoPE'
    config.eval.run = ('perplexity',)
    if arg == 'demo':
        config.stages = (base.stage(steps=800, length=128, batch=16),)
        config.eval.update(lengths=(128, 256, 512, 1024, 2048), windows=64, last=64)
        config.checkpoint.every = 200
        config.log.every = 25
        return config
    base.check(arg)
    config.model.preset = 'small'
    config.model.dtype = 'bfloat16'
    config.optimizer.learning_rate = 1e-3
    config.stages = (base.stage(steps=20000, length=512, batch=64),)
    config.eval.update(lengths=(512, 1024, 2048, 4096, 8192), windows=64, last=256)
    config.checkpoint.every = 1000
    return base.smoke(config) if arg == 'smoke' else config
