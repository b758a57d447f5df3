"""Vocabularies in files: Hugging Face's tokenizer.json and sentencepiece's .model.

Both are brought to one form, a table of the bytes that each id stands for, so that decoding and the count of bytes are
exact. Text is encoded as it is. Specials in it are ordinary text. The space that some vocabularies put before a text
('▁Hello' for 'Hello') is left out, because pieces of text that were encoded apart are joined here: the first word's ids
may differ from the library's, all others are the same. Two things remain that no setting changes: '▁' in a text becomes
a space where '▁' stands for one, and a Unigram tokenizer.json takes specials in a text for themselves.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from lcx.errors import ConfigError

LARGEST = 100 * 2**20  # bytes of a file that are read
SPACE = '▁'  # U+2581, for a space
# Where tokenizer_config.json does not say: what ends and begins a document in the vocabularies of the field.
_ENDS = ('<|endoftext|>', '<|end_of_text|>', '<|end▁of▁sentence|>', '</s>', '<eos>', '<|eos|>', '[EOS]')
_BEGINS = ('<|begin_of_text|>', '<|begin▁of▁sentence|>', '<s>', '<bos>', '<|bos|>', '[BOS]')


class Pieces:
    """A vocabulary as the bytes of every id, specials having none, and a function that encodes."""

    def __init__(
        self,
        pieces: Sequence[bytes],
        encode: Callable[[str], Iterable[int]],
        bos: int,
        eos: int,
        identity: str,
    ):
        self.vocab, self.bos, self.eos, self.identity = len(pieces), bos, eos, identity
        self.token_bytes = np.array([len(piece) for piece in pieces], np.int32)
        self._pieces, self._encode = tuple(pieces), encode

    def encode(self, text: str) -> np.ndarray:
        """The text's ids, int32 [T]."""
        return np.asarray(self._encode(text), np.int32)

    def raw(self, ids: Iterable[int]) -> bytes:
        """The bytes of the ids; those beyond the vocabulary, of a model that padded it, vanish."""
        return b''.join(self._pieces[i] for i in map(int, ids) if i < self.vocab)

    def decode(self, ids: Iterable[int]) -> str:
        """Their text."""
        return self.raw(ids).decode(errors='replace')


def tokenizer_json(path: Path) -> Pieces:
    """The vocabulary of a tokenizer.json; ``tokenizer_config.json`` beside it may name bos_token and eos_token.

    Byte-level BPE (GPT-2, Llama 3, Qwen, SmolLM) and BPE or Unigram with '▁' for spaces (Llama 2, Mistral, Gemma).

    Raises:
      ConfigError: unreadable, malformed, of another kind, or without a token that ends a document. Messages begin with
        'tokenizer: '.
    """
    from tokenizers import Tokenizer

    content = _read(path)
    try:
        fields = json.loads(content)
        if not isinstance(fields, dict) or not isinstance(fields.get('model'), dict):
            raise ValueError('it has no field "model"')
        bytes_of = _bytes_of(fields, path)
        backend = Tokenizer.from_str(json.dumps(_as_it_is(fields)))
    except ConfigError:
        raise
    except Exception as error:  # the library raises nothing more special
        raise ConfigError(f'tokenizer: {str(path)!r} is not a tokenizer.json: {error}.') from None
    backend.encode_special_tokens = True
    vocab, added = backend.get_vocab(with_added_tokens=True), backend.get_added_tokens_decoder()
    pieces = [b''] * (1 + max(vocab.values(), default=-1))
    for token, number in vocab.items():
        pieces[number] = bytes_of(token)
    for number, token in added.items():
        pieces[number] = b'' if token.special else token.content.encode()
    unknown = fields['model'].get('unk_id')
    if isinstance(unknown, int) and unknown < len(pieces):
        pieces[unknown] = b''
    bos, eos = _ends(path, vocab)
    identity = f'tokenizer.json {hashlib.sha256(content).hexdigest()} {bos} {eos}'
    return Pieces(pieces, lambda text: backend.encode(text, add_special_tokens=False).ids, bos, eos, identity)


def sentencepiece_model(path: Path) -> Pieces:
    """The vocabulary of a sentencepiece model.

    Raises:
      ConfigError: the package is not installed, or the file is unreadable, malformed or names no token that ends a
        document. Messages begin with 'tokenizer: '.
    """
    try:
        from sentencepiece import SentencePieceProcessor, sentencepiece_model_pb2
    except ImportError:
        raise ConfigError(
            f"tokenizer: {str(path)!r} needs the package sentencepiece: pip install 'lcx[spm]'."
        ) from None
    content = _read(path)
    try:
        model = sentencepiece_model_pb2.ModelProto.FromString(content)
        model.normalizer_spec.add_dummy_prefix = False
        model.normalizer_spec.remove_extra_whitespaces = False
        backend = SentencePieceProcessor(model_proto=model.SerializeToString())
    except Exception as error:  # of protobuf and of sentencepiece
        raise ConfigError(f'tokenizer: {str(path)!r} is not a sentencepiece model: {error}.') from None

    def piece(number: int) -> bytes:
        if backend.is_control(number) or backend.is_unknown(number) or backend.is_unused(number):
            return b''
        text = backend.id_to_piece(number)
        return bytes([int(text[3:5], 16)]) if backend.is_byte(number) else text.replace(SPACE, ' ').encode()

    eos, bos = backend.eos_id(), backend.bos_id()
    if eos < 0:
        raise ConfigError(f'tokenizer: {str(path)!r} has no token that ends a document (eos).')
    identity = f'sentencepiece {hashlib.sha256(content).hexdigest()}'
    pieces = [piece(number) for number in range(backend.vocab_size())]
    return Pieces(pieces, backend.encode, bos if bos >= 0 else eos, eos, identity)


def byte_alphabet() -> dict[str, int]:
    """GPT-2's letter for every byte: printable Latin-1 for itself, and U+0100, U+0101, ... for the others in order.

    >>> byte_alphabet()['Ġ'], byte_alphabet()['a']
    (32, 97)
    """
    printable = [
        *range(ord('!'), ord('~') + 1),
        *range(ord('¡'), ord('¬') + 1),
        *range(ord('®'), ord('ÿ') + 1),
    ]
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {chr(256 + i): byte for i, byte in enumerate(others)}


def _bytes_of(fields: Mapping[str, Any], path: Path) -> Callable[[str], bytes]:
    """The function from a token's string to its bytes."""
    model = fields['model']
    parts = [part for name in ('normalizer', 'pre_tokenizer', 'decoder') for part in _parts(fields.get(name))]
    kinds = {part.get('type') for part in parts}
    affixes = [model.get('continuing_subword_prefix'), model.get('end_of_word_suffix')]
    if model.get('type', 'BPE') not in ('BPE', 'Unigram') or any(affixes):
        raise ConfigError(
            f'tokenizer: {str(path)!r} is a {model.get("type")} model; BPE and Unigram without prefixes and '
            'suffixes of word pieces can be used.'
        )
    if 'ByteLevel' in kinds:
        alphabet = byte_alphabet()
        return lambda token: bytes(alphabet[letter] for letter in token if letter in alphabet)
    if 'Metaspace' not in kinds and SPACE not in {part.get('content') for part in parts}:
        raise ConfigError(
            f'tokenizer: {str(path)!r} is neither byte-level nor writes {SPACE!r} for a space, so the bytes of '
            'its tokens are not known.'
        )
    fallback = {f'<0x{byte:02X}>': bytes([byte]) for byte in range(256)} if model.get('byte_fallback') else {}
    return lambda token: fallback.get(token) or token.replace(SPACE, ' ').encode()


def _as_it_is(fields: Mapping[str, Any]) -> dict[str, Any]:
    """The same tokenizer without truncation, padding and the space before a text."""
    fields = {**fields, 'truncation': None, 'padding': None}
    fields['normalizer'] = _without_prepend(fields.get('normalizer'))
    for part in _parts(fields.get('pre_tokenizer')):
        if part.get('type') in ('Metaspace', 'ByteLevel') and 'add_prefix_space' in part:
            part['add_prefix_space'] = False
        if part.get('type') == 'Metaspace':
            part['prepend_scheme'] = 'never'
    return fields


def _without_prepend(part: Any) -> Any:
    if not isinstance(part, dict) or part.get('type') == 'Prepend':
        return None
    if part.get('type') == 'Sequence':
        kept = [_without_prepend(inner) for inner in part['normalizers']]
        return {**part, 'normalizers': [inner for inner in kept if inner is not None]}
    return part


def _parts(part: Any) -> Iterator[dict[str, Any]]:
    """A normalizer, pre-tokenizer or decoder and all inside it."""
    if isinstance(part, dict):
        yield part
        for inner in part.values():
            for each in inner if isinstance(inner, list) else ():
                yield from _parts(each)


def _ends(path: Path, vocab: Mapping[str, int]) -> tuple[int, int]:
    """The ids that begin and end a document."""
    beside = path.with_name('tokenizer_config.json')
    named: dict[str, Any] = {}
    if beside.is_file():
        try:
            named = json.loads(_read(beside))
            named = {role: named.get(f'{role}_token') for role in ('bos', 'eos')}
        except (ValueError, AttributeError) as error:
            raise ConfigError(f'tokenizer: {str(beside)!r} is not JSON with named fields: {error}.') from None
        named = {
            role: token.get('content') if isinstance(token, dict) else token for role, token in named.items()
        }
    found = {}
    for role, usual in (('eos', _ENDS), ('bos', _BEGINS)):
        if named.get(role) is not None and named[role] not in vocab:
            raise ConfigError(f'tokenizer: {str(beside)!r}: {role}_token {named[role]!r} is no token.')
        tokens = (named[role],) if named.get(role) is not None else usual
        found[role] = next((vocab[token] for token in tokens if token in vocab), None)
    if found['eos'] is None:
        raise ConfigError(
            f'tokenizer: {str(path)!r} has no token that ends a document; name it as "eos_token" in '
            f'{beside.name} beside it.'
        )
    return found['eos'] if found['bos'] is None else found['bos'], found['eos']


def _read(path: Path) -> bytes:
    try:
        size = path.stat().st_size
        if size > LARGEST:
            raise ConfigError(f'tokenizer: {str(path)!r} has {size} bytes; at most {LARGEST} are read.')
        return path.read_bytes()
    except OSError as error:
        raise ConfigError(f'tokenizer: {str(path)!r} cannot be read: {error.strerror}.') from None
