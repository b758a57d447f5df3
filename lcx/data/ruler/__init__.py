"""RULER, Hsieh et al. 2024, arXiv:2404.06654: thirteen tasks at any length, made on the spot for any tokenizer.

api     what a sample is, and how it is fitted into a length
niah    needles: eight tasks
vt      variable tracking
cwe     common words
fwe     frequent words
qa      questions on documents, from files of the user's
words   the words that keys and lists are made of
made    samples(): all of a task, kept on disk if asked

Wording, arguments and rules are those of scripts/data/synthetic and synthetic.yaml in NVIDIA/RULER; each module says
what differs. RULER's essays by Paul Graham are not here: real text is what the caller hands in, best of the corpus that
is evaluated, so scores of the tasks with text are comparable where the text is the same.
"""

from lcx.data.ruler.api import Sample
from lcx.data.ruler.made import RULER, samples

__all__ = ['RULER', 'Sample', 'samples']
