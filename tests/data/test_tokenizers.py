"""Every tokenizer: text comes back, and token_bytes adds up to the text's bytes."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lcx.data.tokenizers import TOKENIZERS, Bytes


@pytest.mark.parametrize('name', TOKENIZERS)
@given(text=st.text(st.characters(exclude_categories=['Cs'])))
def test_text_comes_back_and_bytes_add_up(name, text):
    tokenizer = TOKENIZERS[name]()
    ids = tokenizer.encode(text)
    assert ids.dtype == np.int32
    assert tokenizer.decode(ids) == text
    assert tokenizer.decode([tokenizer.bos, *ids, tokenizer.eos]) == text
    assert tokenizer.token_bytes[ids].sum() == len(text.encode())


def test_bytes_are_utf8_and_256_ends_a_document():
    tokenizer = Bytes()
    assert tokenizer.vocab == len(tokenizer.token_bytes) == 257
    assert tokenizer.encode('é').tolist() == [0xC3, 0xA9]
    assert tokenizer.eos == 256 and tokenizer.token_bytes[256] == 0
    assert tokenizer.decode([0xC3, 65, 300]) == '\ufffdA'  # half a character, a letter, an unused id
