"""The histogram counts every document once, and the report says what the files hold."""

import doctest

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from lcx.data import describe
from lcx.data.config import DataConfig


@given(st.lists(st.integers(1, 5000), min_size=1))
def test_every_document_is_in_one_bin(lengths):
    lengths = np.array(lengths)
    bins = describe.histogram(lengths)
    assert sum(bin.documents for bin in bins) == len(lengths)
    assert bins[0].documents and bins[-1].documents
    for bin in bins:
        assert bin.documents == sum(bin.start <= n < 2 * bin.start for n in lengths)
        assert np.isclose(bin.documents_from, np.mean(lengths >= bin.start))
        assert np.isclose(bin.tokens_from, lengths[lengths >= bin.start].sum() / lengths.sum())


def test_empty_documents_and_the_docstring():
    assert describe.histogram(np.array([0, 0])) == []
    assert doctest.testmod(describe).failed == 0


def test_the_report(tmp_path):
    for i, size in enumerate((3, 100, 100, 5000)):
        (tmp_path / f'{i}.txt').write_text(chr(97 + i) * size)
    config = DataConfig('text', (f'{tmp_path}/*.txt',), 'text', f'{tmp_path}/data', 'bytes', 'concat', 5)
    console = Console(width=80)
    with console.capture() as capture:
        console.print(describe.describe(config))
    report = capture.get()
    assert 'train' in report and 'validation' in report and '…' not in report
    assert '5,000' in report or '4,096' in report
