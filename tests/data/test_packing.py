"""Packing as laws: nothing lost, nothing twice, nothing across documents."""

import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lcx.data import packing, tokens
from lcx.data.tokenizers import Bytes

EOS = Bytes.eos
corpora = st.lists(st.text('abc', max_size=12), min_size=1, max_size=8)
lengths = st.integers(1, 9)


def made(texts):
    with tempfile.TemporaryDirectory() as directory:
        tokens.write(Path(directory, 'tokens'), texts, Bytes())
        return tokens.read(Path(directory, 'tokens'), 'test')


def test_the_table_of_the_module_docstring():
    held = made(['ab', 'c'])
    a, b, c = b'abc'
    concat = packing.rows(held, packing.concat(held, 3), 3)
    assert {name: rows.tolist() for name, rows in concat.items()} == {
        'tokens': [[a, b, EOS]],
        'targets': [[b, EOS, c]],
        'weights': [[1, 1, 0]],
        'positions': [[0, 1, 2]],
        'segments': [[1, 1, 1]],
    }
    pad = packing.rows(held, packing.pieces(held, 3), 3)
    assert {name: rows.tolist() for name, rows in pad.items()} == {
        'tokens': [[a, b, 0], [c, 0, 0]],
        'targets': [[b, EOS, 0], [EOS, 0, 0]],
        'weights': [[1, 1, 0], [1, 0, 0]],
        'positions': [[0, 1, 0], [0, 0, 0]],
        'segments': [[1, 1, 0], [1, 0, 0]],
    }


@settings(max_examples=60, deadline=None)
@given(texts=corpora, length=lengths)
def test_concatenated_windows_are_the_stream(texts, length):
    held = made(texts)
    rows = packing.rows(held, packing.concat(held, length), length)
    joined = rows['tokens'].ravel()
    assert joined.tolist() == held.stream[: len(joined)].tolist()
    assert rows['targets'].ravel().tolist() == held.stream[1 : len(joined) + 1].tolist()
    assert len(held.stream) - 1 - len(joined) < length  # less than a row is left out


@settings(max_examples=60, deadline=None)
@given(texts=corpora, length=lengths)
def test_pieces_are_the_documents(texts, length):
    held = made(texts)
    rows = packing.rows(held, packing.pieces(held, length), length)
    real = rows['segments'] > 0
    assert bytes(rows['tokens'][real].astype(np.uint8)).decode() == ''.join(texts)
    targets = rows['targets'][rows['weights'] > 0]
    expected = [id for text in texts if text for id in [*text.encode()[1:], EOS]]
    assert targets.tolist() == expected  # every token but the first of its document, once


@pytest.mark.parametrize('name', ['concat', 'pad'])
@settings(max_examples=60, deadline=None)
@given(texts=corpora, length=lengths)
def test_no_token_is_a_target_twice(name, texts, length):
    held = made(texts)
    spans = packing.PACKINGS[name](held, length)
    weights = packing.rows(held, spans, length)['weights']
    places = (spans.starts[:, None] + 1 + np.arange(length))[weights > 0]
    assert len(set(places.tolist())) == len(places)


@pytest.mark.parametrize('name', ['concat', 'pad'])
@settings(max_examples=60, deadline=None)
@given(texts=corpora, length=lengths)
def test_segments_are_documents_apart(name, texts, length):
    held = made(texts)
    rows = packing.rows(held, packing.PACKINGS[name](held, length), length)
    for row in zip(*(rows[key] for key in ('tokens', 'targets', 'weights', 'positions', 'segments'))):
        check_row(*row)


def check_row(tokens_, targets, weights, positions, segments):
    """Segments number 1, 2, ... then padding; each counts from 0 and predicts its own next token only."""
    count = int(segments.max())
    real = int((segments > 0).sum())
    assert (
        (segments[:real] > 0).all() and np.isin(np.diff(segments[:real]), (0, 1)).all() and segments[0] == 1
    )
    for arrays in (tokens_, targets, weights, positions):
        assert not arrays[real:].any()
    for segment in range(1, count + 1):
        (at,) = np.nonzero(segments == segment)
        assert positions[at].tolist() == list(range(len(at)))
        assert targets[at[:-1]].tolist() == tokens_[at[1:]].tolist()
        assert weights[at].tolist() == [float(token != EOS) for token in tokens_[at]]
