"""From documents to batches.

config      DataConfig: the checked form of ``config.data``
announce    one line to the person who waits
packages    files out of the package registries
corpora/    real books, from packages
files       where the documents of 'stdlib' and 'text' lie on disk
builder     those documents as a prepared TFDS data set (array_record)
catalogue   'tfds:NAME': any other TFDS data set
sources     one door to all of them: open_documents
tokenizers  text to ids and back: make_tokenizer
vocabularies  those in files
tokens      a data set's token ids, memory-mapped: open_tokens
packing     documents to rows of one length
pipeline    rows to shuffled, resumable batches
windows     the ends of long documents, for evaluation
ruler/      RULER's thirteen tasks: prompts to be continued
lra         the Long Range Arena's files, as tasks
longbench   LongBench's files: prompts, and what is asked of answers
describe    what a data set holds: sizes and a length histogram
"""
