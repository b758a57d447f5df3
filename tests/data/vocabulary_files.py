"""Small vocabularies of every kind, trained on the spot."""

import io
import json

TEXT = [
    'the cat sat on the mat in 1815, and the other cat sat there too',
    'def f(x):\n\treturn x ** 2  # a comment',
    'naïve 漢字 are here',
] * 20


def byte_level(path):
    """As GPT-2, Llama 3 or SmolLM: bytes as letters."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    specials = ['<|endoftext|>', '<|im_start|>']
    trainer = trainers.BpeTrainer(
        vocab_size=330, special_tokens=specials, initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(TEXT, trainer)
    tokenizer.add_tokens(['<extra>'])
    return saved(tokenizer, path)


def spaced(path):
    """As Llama 2 and Mistral: '▁' for a space, one before the text, and bytes for what has no token."""
    from tokenizers import Tokenizer, decoders, models, normalizers, trainers

    tokenizer = Tokenizer(models.BPE(unk_token='<unk>', byte_fallback=True, fuse_unk=True))
    prepend, replace = normalizers.Prepend('▁'), normalizers.Replace(' ', '▁')
    tokenizer.normalizer = normalizers.Sequence([prepend, replace])
    strip = [decoders.Replace('▁', ' '), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(' ', 1, 0)]
    tokenizer.decoder = decoders.Sequence(strip)
    specials = ['<unk>', '<s>', '</s>', *(f'<0x{byte:02X}>' for byte in range(256))]
    trainer = trainers.BpeTrainer(
        vocab_size=330, special_tokens=specials, show_progress=False, limit_alphabet=20, max_token_length=8
    )
    tokenizer.train_from_iterator(TEXT, trainer)
    fields = json.loads(tokenizer.to_str())
    fields['added_tokens'] = fields['added_tokens'][:3]  # in such files bytes are tokens of the model alone
    path.write_text(json.dumps(fields))
    return path


def metaspace(path):
    """As T5: Unigram with '▁'; here with every byte as a fallback."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    pieces = [
        '<unk>',
        '</s>',
        *(f'<0x{byte:02X}>' for byte in range(256)),
        '▁',
        '▁the',
        '▁cat',
        'the',
        's',
        'at',
    ]
    scores = [0.0, 0.0, *[-9.0] * 256, -3.0, -1.0, -1.0, -2.0, -4.0, -2.0]
    tokenizer = Tokenizer(models.Unigram(list(zip(pieces, scores, strict=True)), 0, byte_fallback=True))
    tokenizer.add_special_tokens(['</s>'])
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme='always')
    tokenizer.decoder = decoders.Metaspace(prepend_scheme='always')
    return saved(tokenizer, path)


def sentencepiece(path, **options):
    """As the models of Llama 2 and Mistral; the caller skips where the package is absent."""
    import sentencepiece as library

    model = io.BytesIO()
    defaults = {'vocab_size': 340, 'model_type': 'bpe', 'byte_fallback': True, 'minloglevel': 2}
    defaults |= {
        'normalization_rule_name': 'identity',
        'remove_extra_whitespaces': False,
        'character_coverage': 0.98,
    }
    library.SentencePieceTrainer.train(sentence_iterator=iter(TEXT), model_writer=model, **defaults | options)
    path.write_bytes(model.getvalue())
    return path


def saved(tokenizer, path):
    tokenizer.save(str(path))
    return path


def letters(path):
    """29 ids, for models of 64: small letters, the space and the line feed, byte-level."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    tokens = ['<|endoftext|>', 'Ġ', 'Ċ', *'abcdefghijklmnopqrstuvwxyz']
    tokenizer = Tokenizer(models.BPE({token: i for i, token in enumerate(tokens)}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(['<|endoftext|>'])
    return saved(tokenizer, path)
