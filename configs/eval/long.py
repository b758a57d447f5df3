"""Does a pretrained model use a long context? Perplexity, needles and RULER, by length.

    lcx convert --src=smollm2 --dst=models/smollm2
    lcx eval --config=configs/eval/long.py --init=models/smollm2 --workdir=runs/long

Windows of two novels that end at the same tokens at every length, a number hidden at five depths of them, and six tasks
of RULER, one of each of its kinds, whose answers the model writes. Where it is cut off, the same command goes on; it
ends with the tables and figures of lcx report.
"""

from configs import base


def get_config(arg: str = ''):
    """``arg``: '' or 'smoke'."""
    config = base.get_config()
    config.eval.run = ('window_perplexity', 'needle', 'ruler')
    config.eval.ruler.tasks = ('niah_single_2', 'niah_multikey_1', 'niah_multivalue', 'vt', 'cwe', 'fwe')
    config.eval.report = True
    config.loss.chunk = 256
    if base.check(arg) == 'smoke':
        config = base.smoke(config)
        config.eval.update(lengths=(2048,), samples=1)  # which RULER's words need
        config.eval.ruler.tasks = ('niah_single_2', 'vt')
        return config
    config.data.source = 'austen'
    config.eval.split = 'test'
    config.eval.update(lengths=(1024, 2048, 4096, 8192), windows=4, samples=3, last=512, tokens=8192)
    return config
