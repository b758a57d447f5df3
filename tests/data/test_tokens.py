"""The token file: what goes in comes out, content is its name, and damage is seen."""

import numpy as np
import pytest

from lcx.data import tokens
from lcx.data.config import DataConfig
from lcx.data.tokenizers import Bytes, make_tokenizer
from lcx.errors import DataError
from tests.data import vocabulary_files

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


def test_a_vocabulary_in_a_file(tmp_path, capsys):
    """Its content names the cache: a copy elsewhere reads the same tokens, another vocabulary makes new ones."""
    for i in range(2):
        (tmp_path / f'{i}.txt').write_text(f'the cat sat on the mat {i}')
    path = vocabulary_files.byte_level(tmp_path / 'tokenizer.json')
    copy = tmp_path / 'copy.json'
    copy.write_bytes(path.read_bytes())

    def opened(tokenizer):
        config = DataConfig(
            'text', (f'{tmp_path}/*.txt',), 'text', f'{tmp_path}/data', tokenizer, 'concat', 50
        )
        return tokens.open_tokens(config, 'train')

    held, tokenizer = opened(str(path)), make_tokenizer(str(path))
    assert tokenizer.decode(held[0]).startswith('the cat sat') and len(held[0]) < 12
    assert held.bytes == tokenizer.token_bytes[held[0]].sum()
    capsys.readouterr()
    assert opened(str(copy)).fingerprint == held.fingerprint
    assert capsys.readouterr().err == ''
    vocabulary_files.spaced(copy)
    assert opened(str(copy)).fingerprint != held.fingerprint
    assert 'Tokenizing' in capsys.readouterr().err


def test_a_vocabulary_that_loses_text_is_announced(tmp_path, capsys):
    tokenizer = make_tokenizer(str(vocabulary_files.spaced(tmp_path / 'tokenizer.json')))
    tokens.write(tmp_path / 'a', ['the cat'], tokenizer)
    assert capsys.readouterr().err == ''
    tokens.write(tmp_path / 'b', ['the cat', '▁'], tokenizer)
    assert 'Warning: the tokens stand for 8 bytes of text, the documents have 10' in capsys.readouterr().err
