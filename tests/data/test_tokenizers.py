"""Every tokenizer: text comes back, and token_bytes adds up to the text's bytes."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lcx.data.tokenizers import TOKENIZERS, Bytes, make_tokenizer
from lcx.errors import ConfigError
from tests.data import vocabulary_files


@pytest.mark.parametrize('name', TOKENIZERS)
@given(text=st.text(st.characters(exclude_categories=['Cs'])))
def test_text_comes_back_and_bytes_add_up(name, text):
    tokenizer = TOKENIZERS[name]()
    ids = tokenizer.encode(text)
    assert ids.dtype == np.int32
    assert tokenizer.decode(ids) == text and tokenizer.raw(ids) == text.encode()
    assert tokenizer.decode([tokenizer.bos, *ids, tokenizer.eos]) == text
    assert tokenizer.token_bytes[ids].sum() == len(text.encode())


def test_bytes_are_utf8_and_256_ends_a_document():
    tokenizer = Bytes()
    assert tokenizer.vocab == len(tokenizer.token_bytes) == 257
    assert tokenizer.encode('é').tolist() == [0xC3, 0xA9]
    assert tokenizer.eos == 256 and tokenizer.token_bytes[256] == 0
    assert tokenizer.decode([0xC3, 65, 300]) == '\ufffdA'  # half a character, a letter, an unused id
    assert tokenizer.raw([0xC3, 65, 300]) == b'\xc3A'


def test_a_path_or_its_directory_is_a_tokenizer(tmp_path, monkeypatch):
    assert isinstance(make_tokenizer('bytes'), Bytes)
    path = vocabulary_files.byte_level(tmp_path / 'tokenizer.json')
    monkeypatch.setenv('HOME', str(tmp_path))
    identities = {make_tokenizer(spec).identity for spec in (str(path), str(tmp_path), '~/tokenizer.json')}
    copy = tmp_path / 'copy.json'
    copy.write_bytes(path.read_bytes())
    assert identities == {make_tokenizer(str(copy)).identity}  # of the content, not of the place
    copy.write_text(path.read_text().replace('"<extra>"', '"<other>"'))
    assert make_tokenizer(str(copy)).identity not in identities


@pytest.mark.parametrize(
    ('spec', 'message'),
    [
        ('byte', "unknown 'byte'. Did you mean 'bytes'.*a path to a .json file"),
        ('vocab.bpe', "unknown 'vocab.bpe'"),
        ('no/tokenizer.json', "'no/tokenizer.json' is not a file; relative paths start at /"),
        ('.', r"the directory '\.' holds no tokenizer\.json or tokenizer\.model"),
        ('', "'' is neither a name nor a path"),
        (None, 'None is neither a name nor a path'),
    ],
)
def test_what_is_no_tokenizer(spec, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match=rf'^data\.tokenizer: {message}'):
        make_tokenizer(spec)
