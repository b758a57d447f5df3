"""LongLoRA (arXiv 2309.12307): a run is extended to 4 x its length by adapters, norms and embedding alone.

    lcx train --config=configs/longlora.py --config.init_from=runs/base --workdir=runs/longlora

Positions are interpolated (PI), and while it trains each head reads groups of a quarter of the length, half of the
heads shifted by a half; evaluation reads everything. Without init_from the frozen matrices would be random ones.
"""

from configs import base


def get_config(arg: str = ''):
    """``arg``: '' or 'smoke'."""
    config = base.get_config()
    config.label = 'LongLoRA'
    config.model.position = base.position('pi')
    attention = ('mixer/query', 'mixer/key', 'mixer/value', 'mixer/out')
    config.tune = base.tune('lora', rank=8, alpha=16.0, targets=attention, train=('embedding', '*norm*'))
    config.optimizer.update(learning_rate=1e-3, weight_decay=0.0)
    config.stages = (base.stage(steps=200, length=512, batch=8),)
    config = base.smoke(config) if base.check(arg) == 'smoke' else config
    for stage in config.stages:
        stage.rules = {'full': ({'name': 'shifted_groups', 'size': stage.length // 4},)}
    return config
