"""Real text that comes in packages. A new corpus is one module with a ``CORPUS`` and one line here.

corpus   what a corpus is, and how it gets into the cache
austen   six novels by Jane Austen, of 430 to 880 thousand characters
kjv      the King James Bible, by books
"""

from lcx.data.corpora import austen, kjv

# From ``data.source`` to the corpus.
CORPORA = {'austen': austen.CORPUS, 'kjv': kjv.CORPUS}
