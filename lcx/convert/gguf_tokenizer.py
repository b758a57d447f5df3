"""The byte-level BPE inside a GGUF file as tokenizer.json and tokenizer_config.json."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from lcx.errors import DataError

if TYPE_CHECKING:
    from tokenizers.pre_tokenizers import PreTokenizer

    from lcx.convert.gguf import Metadata

_CONTROL, _USER_DEFINED = 3, 4  # of tokenizer.ggml.token_type


def gpt2() -> PreTokenizer:
    """Words with the space before them, digits together, as GPT-2."""
    from tokenizers import pre_tokenizers

    return pre_tokenizers.ByteLevel(add_prefix_space=False)


def smollm() -> PreTokenizer:
    """GPT-2's, after every digit was set apart: numbers are read digit by digit."""
    from tokenizers import pre_tokenizers

    return pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), gpt2()])


# From tokenizer.ggml.pre to how text is cut before merging.
PRE_TOKENIZERS: dict[str, Callable[[], PreTokenizer]] = {'gpt-2': gpt2, 'smollm': smollm}


def write_tokenizer(metadata: Metadata, directory: Path) -> None:
    """Writes both files into ``directory``; control tokens become special tokens.

    Raises:
      DataError: not a byte-level BPE, or cut in a way that is not known here.
    """
    from tokenizers import AddedToken, Tokenizer, decoders, models

    kind, pre = metadata['tokenizer.ggml.model'], metadata.get('tokenizer.ggml.pre', 'default')
    if kind != 'gpt2':
        raise DataError(f"{metadata.label}: tokenizer.ggml.model is {kind!r}; only 'gpt2' can be converted.")
    if pre not in PRE_TOKENIZERS:
        raise DataError(
            f'{metadata.label}: tokenizer.ggml.pre is {pre!r}; known are {", ".join(PRE_TOKENIZERS)}.'
        )
    tokens, types = metadata['tokenizer.ggml.tokens'], metadata['tokenizer.ggml.token_type']
    vocab = {token: number for number, token in enumerate(tokens)}
    merges = [tuple(merge.split(' ', 1)) for merge in metadata['tokenizer.ggml.merges']]
    if len(vocab) != len(types) or len(vocab) != len(tokens):
        raise DataError(
            f'{metadata.label}: tokens are given twice, or token_type is not one number for each.'
        )
    try:
        tokenizer = Tokenizer(models.BPE(vocab, merges))
    except Exception as error:  # the library raises nothing more special
        raise DataError(f'{metadata.label}: tokenizer.ggml.merges do not fit the tokens: {error}.') from None
    tokenizer.pre_tokenizer = PRE_TOKENIZERS[pre]()
    tokenizer.decoder = decoders.ByteLevel()
    for number, token in enumerate(tokens):
        if types[number] in (_CONTROL, _USER_DEFINED):
            special = types[number] == _CONTROL
            add = tokenizer.add_special_tokens if special else tokenizer.add_tokens
            add([AddedToken(token, special=special, normalized=False)])
    tokenizer.save(str(directory / 'tokenizer.json'))
    config = {
        'tokenizer_class': 'PreTrainedTokenizerFast',
        'model_max_length': metadata['llama.context_length'],
        'clean_up_tokenization_spaces': False,
        'add_bos_token': metadata.get('tokenizer.ggml.add_bos_token', False),
    }
    for role in ('bos', 'eos', 'unk', 'pad'):
        key = {'unk': 'unknown', 'pad': 'padding'}.get(role, role)
        number = metadata.get(f'tokenizer.ggml.{key}_token_id')
        if number is not None:
            if not 0 <= number < len(tokens):
                raise DataError(f'{metadata.label}: tokenizer.ggml.{key}_token_id is {number}, not a token.')
            config[f'{role}_token'] = tokens[number]
    if 'tokenizer.chat_template' in metadata:
        config['chat_template'] = metadata['tokenizer.chat_template']
    (directory / 'tokenizer_config.json').write_text(json.dumps(config, indent=2, ensure_ascii=False) + '\n')
