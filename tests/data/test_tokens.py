"""The token file: what goes in comes out, content is its name, and damage is seen."""

import numpy as np
import pytest

from lcx.data import tokens
from lcx.data.tokenizers import Bytes
from lcx.errors import DataError

TEXTS = ['first', '', 'zweites Stück', 'x' * 3000]


def made(path, texts=TEXTS):
    tokens.write(path, texts, Bytes())
    return tokens.read(path, 'test')


def test_documents_come_back(tmp_path):
    held = made(tmp_path / 'a')
    assert [Bytes().decode(ids) for ids in held] == TEXTS
    assert held[0].dtype == np.int32
    assert held.lengths.tolist() == [len(text.encode()) for text in TEXTS]
    assert held.bytes == sum(held.lengths)
    assert held.stream.tolist() == [id for text in TEXTS for id in [*text.encode(), 256]]
    with pytest.raises(IndexError):
        held[len(TEXTS)]


def test_the_fingerprint_is_of_the_content_alone(tmp_path):
    first = made(tmp_path / 'a').fingerprint
    assert made(tmp_path / 'b').fingerprint == first
    assert made(tmp_path / 'c', [*TEXTS[:-1], 'y' * 3000]).fingerprint != first
    assert made(tmp_path / 'd', ['ab', 'c']).fingerprint != made(tmp_path / 'e', ['a', 'bc']).fingerprint


def test_an_interrupted_write_leaves_nothing(tmp_path):
    def texts():
        yield 'one'
        raise DataError('two is broken')

    with pytest.raises(DataError, match='two is broken'):
        tokens.write(tmp_path / 'a', texts(), Bytes())
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize('name', ['stream.bin', 'offsets.npy', 'facts.json'])
@pytest.mark.parametrize('how', ['truncated', 'missing'])
def test_damage_is_a_data_error(tmp_path, name, how):
    made(tmp_path / 'a')
    path = tmp_path / 'a' / name
    content = path.read_bytes()
    path.unlink()
    if how == 'truncated':
        path.write_bytes(content[: len(content) // 2])
    with pytest.raises(DataError, match=r'is damaged: .* Delete this directory'):
        tokens.read(tmp_path / 'a', 'test')
