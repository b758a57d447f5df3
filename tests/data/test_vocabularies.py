"""Vocabularies in files: the ids are the library's, and every token's bytes are known."""

import doctest
import json
import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer

from lcx.data import vocabularies
from lcx.data.tokenizers import make_tokenizer
from lcx.errors import ConfigError
from tests.data import vocabulary_files as files

KINDS = {
    'byte_level': ('tokenizer.json', files.byte_level),
    'spaced': ('tokenizer.json', files.spaced),
    'metaspace': ('tokenizer.json', files.metaspace),
    'sentencepiece': ('tokenizer.model.v1', files.sentencepiece),
    'unigram': (
        'tokenizer.model',
        lambda path: files.sentencepiece(path, model_type='unigram', vocab_size=290),
    ),
}


@pytest.fixture(scope='module', params=KINDS)
def made(request, tmp_path_factory):
    """A tokenizer and its file."""
    if request.param in ('sentencepiece', 'unigram'):
        pytest.importorskip('sentencepiece', reason='needs lcx[spm]')
    name, write = KINDS[request.param]
    path = write(tmp_path_factory.mktemp(request.param) / name)
    return make_tokenizer(str(path)), path


TEXTS = (
    '',
    ' ',
    'the cat',
    ' the cat\n',
    'in 1815  on\n\n\tthe mat ',
    'naïve 漢字 😀 \x00\xad',
    'def f(x):\n\treturn',
)


@pytest.mark.parametrize('text', TEXTS)
def test_text_comes_back_and_bytes_add_up(made, text):
    check(made[0], text)


@given(text=st.text(st.characters(exclude_categories=['Cs'], exclude_characters='▁')))
def test_any_text_comes_back(made, text):
    check(made[0], text)


def check(tokenizer, text):
    ids = tokenizer.encode(text)
    assert ids.dtype == np.int32 and tokenizer.token_bytes.dtype == np.int32
    assert tokenizer.decode(ids) == text
    assert tokenizer.decode([tokenizer.bos, *ids, tokenizer.eos, tokenizer.vocab + 5]) == text
    assert tokenizer.token_bytes[ids].sum() == len(text.encode())
    assert all(tokenizer.token_bytes[special] == 0 for special in (tokenizer.bos, tokenizer.eos))
    assert tokenizer.vocab == len(tokenizer.token_bytes) and (ids < tokenizer.vocab).all()


def test_ids_are_the_librarys_but_for_the_space_before_a_text(made):
    tokenizer, path = made
    text = ' '.join(files.TEXT[:3])
    if path.suffix == '.json':
        library = Tokenizer.from_file(str(path))
        reference = library.encode(f'Q{text}', add_special_tokens=False).ids
    else:
        from sentencepiece import SentencePieceProcessor

        reference = SentencePieceProcessor(model_file=str(path)).encode(f'Q{text}')
    ours = tokenizer.encode(text).tolist()
    assert 20 < len(ours) < len(text) and ours == reference[-len(ours) :]  # no token joins Q and what follows


def test_pieces_can_be_joined(made):
    tokenizer = made[0]
    joined = np.concatenate([tokenizer.encode(part) for part in ('the key is', ' 12345', '. Remember')])
    assert tokenizer.decode(joined) == 'the key is 12345. Remember'


def test_specials_in_a_text_are_ordinary_text(made):
    tokenizer, path = made
    if '"Unigram"' in path.read_text(errors='replace'):
        return  # the library cannot
    for text in ('</s> <s>', '<|endoftext|>', '<0x41> <extra>'):
        assert not {tokenizer.bos, tokenizer.eos} & set(tokenizer.encode(text).tolist())
        check(tokenizer, text)


def test_half_a_character_is_replaced(tmp_path):
    tokenizer = make_tokenizer(str(files.byte_level(tmp_path / 'tokenizer.json')))
    assert tokenizer.decode(tokenizer.encode('漢')[:1]).startswith('\ufffd')


def test_a_book_takes_seconds(tmp_path):
    import time

    tokenizer = make_tokenizer(str(files.spaced(tmp_path / 'tokenizer.json')))
    words = [word for text in files.TEXT for word in text.split()]
    book = ' '.join(random.Random(0).choices(words, k=150_000))
    since = time.monotonic()
    assert tokenizer.token_bytes[tokenizer.encode(book)].sum() == len(book.encode())
    assert time.monotonic() - since < 20


def test_ends_are_named_beside_the_file(tmp_path):
    path = files.byte_level(tmp_path / 'tokenizer.json')
    assert (make_tokenizer(str(path)).bos, make_tokenizer(str(path)).eos) == (0, 0)
    before = make_tokenizer(str(path)).identity
    beside = tmp_path / 'tokenizer_config.json'
    beside.write_text(json.dumps({'bos_token': {'content': '<|im_start|>'}, 'eos_token': '<|endoftext|>'}))
    named = make_tokenizer(str(tmp_path))
    assert (named.bos, named.eos) == (1, 0) and named.identity != before
    for content, message in (
        ('[]', 'is not JSON with named fields'),
        ('{', 'is not JSON with named fields'),
        ('{"eos_token": "<eos>"}', "eos_token '<eos>' is no token"),
        ('{"eos_token": 5}', 'eos_token 5 is no token'),
    ):
        beside.write_text(content)
        with pytest.raises(ConfigError, match=rf'data\.tokenizer: .*tokenizer_config\.json.*{message}'):
            make_tokenizer(str(tmp_path))


def changed(path, **fields):
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))
    return path


def test_what_cannot_be_used_is_told(tmp_path, monkeypatch):
    def refused(path, message):
        with pytest.raises(ConfigError, match=rf'data\.tokenizer: .*{message}'):
            make_tokenizer(str(path))

    path = tmp_path / 'tokenizer.json'
    for content in ('', '{', '[]', '{}', '{"model": {}}', '{"model": {"type": "BPE"}}', '\xff'):
        path.write_text(content)
        refused(path, r"tokenizer\.json' is ")
    refused(
        changed(files.byte_level(path), pre_tokenizer=None, decoder=None), "neither byte-level nor writes '▁'"
    )
    model = json.loads(files.byte_level(path).read_text())['model']
    refused(changed(path, model=model | {'end_of_word_suffix': '</w>'}), 'is a BPE model')
    refused(changed(path, model=model | {'type': 'WordPiece'}), 'is a WordPiece model')
    specials = json.loads(files.byte_level(path).read_text())
    ids = {
        ('<none>' if token == '<|endoftext|>' else token): i
        for token, i in specials['model']['vocab'].items()
    }
    added = [token for token in specials['added_tokens'] if token['content'] != '<|endoftext|>']
    refused(
        changed(path, model=specials['model'] | {'vocab': ids}, added_tokens=added),
        'has no token that ends a document; name it as "eos_token" in tokenizer_config.json',
    )
    monkeypatch.setattr(vocabularies, 'LARGEST', 100)
    refused(files.byte_level(path), r'has \d+ bytes; at most 100 are read')


@pytest.mark.parametrize('kind', ['byte_level', 'spaced'])
def test_damaged_files_are_configuration_errors(tmp_path, kind):
    path = tmp_path / 'tokenizer.json'
    content = KINDS[kind][1](path).read_text()
    chance = random.Random(0)
    for _ in range(60):
        at = chance.randrange(len(content))
        path.write_text(
            chance.choice([content[:at], content[:at] + chance.choice('{}[]",x0') + content[at + 1 :]])
        )
        try:
            make_tokenizer(str(path)).encode('the cat')
        except ConfigError as error:
            assert 'data.tokenizer: ' in str(error)


def test_sentencepiece_errors(tmp_path, monkeypatch):
    path = tmp_path / 'tokenizer.model'
    path.write_bytes(b'no model')
    monkeypatch.setitem(__import__('sys').modules, 'sentencepiece', None)
    with pytest.raises(ConfigError, match=r"needs the package sentencepiece: pip install 'lcx\[spm\]'"):
        make_tokenizer(str(path))
    monkeypatch.undo()
    pytest.importorskip('sentencepiece', reason='needs lcx[spm]')
    for content in (b'', b'no model', files.sentencepiece(path).read_bytes()[:-500]):
        path.write_bytes(content)
        with pytest.raises(
            ConfigError, match=r"data\.tokenizer: .*tokenizer\.model' is not a sentencepiece model"
        ):
            make_tokenizer(str(path))
    files.sentencepiece(path, eos_id=-1)
    with pytest.raises(ConfigError, match='has no token that ends a document'):
        make_tokenizer(str(tmp_path))


def test_the_byte_alphabet_is_the_librarys():
    from tokenizers import pre_tokenizers

    assert set(vocabularies.byte_alphabet()) == set(pre_tokenizers.ByteLevel.alphabet())
    assert sorted(vocabularies.byte_alphabet().values()) == list(range(256))
    assert doctest.testmod(vocabularies).failed == 0
