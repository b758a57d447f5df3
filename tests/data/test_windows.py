"""Evaluation windows lie inside documents, spread evenly, the same for the same seed."""

import numpy as np
import pytest

from lcx.data import tokens
from lcx.data.tokenizers import Bytes
from lcx.data.windows import windows
from lcx.errors import DataError


def test_each_lies_in_one_long_document_evenly(tmp_path):
    texts = [letter * n for letter, n in zip('abcde', range(10, 60, 10))]
    tokens.write(tmp_path / 'a', texts, Bytes())
    held = tokens.read(tmp_path / 'a', 'test')
    found = windows(held, length=20, count=8, seed=1)
    assert all(window.shape == (21,) and window.dtype == np.int32 for window in found)
    owners = [set(window.tolist()) for window in found]
    counts = [owners.count({ord(letter)}) for letter in 'abcde']
    assert counts[:2] == [0, 0] and sorted(counts[2:]) == [2, 3, 3]


def test_ends_differ_while_there_are_places(tmp_path):
    tokens.write(tmp_path / 'a', [''.join(map(chr, range(40, 60)))], Bytes())
    held = tokens.read(tmp_path / 'a', 'test')
    found = windows(held, length=15, count=5, seed=0)
    assert sorted(window[-1] for window in found) == [55, 56, 57, 58, 59]  # all five places
    assert len(windows(held, length=15, count=7, seed=0)) == 7
    assert windows(held, length=19, count=1, seed=0)[0].tolist() == held[0].tolist()


def test_seeds(tmp_path):
    tokens.write(tmp_path / 'a', [''.join(map(chr, range(33, 120)))] * 4, Bytes())
    held = tokens.read(tmp_path / 'a', 'test')

    def drawn(seed):
        return np.array(windows(held, length=8, count=12, seed=seed)).tolist()

    assert drawn(5) == drawn(5) != drawn(6)


def test_no_document_is_long_enough(tmp_path):
    tokens.write(tmp_path / 'a', ['abc', 'abcdef'], Bytes())
    held = tokens.read(tmp_path / 'a', 'test validation')
    with pytest.raises(DataError, match=r'of 7 tokens .* length 6: the longest has 6, enough for length 5'):
        windows(held, length=6, count=1, seed=0)
