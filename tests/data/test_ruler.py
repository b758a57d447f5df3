"""RULER's samples: answerable from the prompt alone, in the published wording, and as long as the length allows."""

import collections
import dataclasses
import hashlib
import itertools
import re
from pathlib import Path

import numpy as np
import pytest
import scipy.special

from lcx.data.ruler import RULER, made, samples
from lcx.data.ruler.api import Draft, Given, fitted
from lcx.data.ruler.fwe import zeta
from lcx.data.ruler.niah import DEPTHS, LONGEST, Niah, sentence_ends
from lcx.data.ruler.vt import VariableTracking
from lcx.data.ruler.words import ADJECTIVES, NOUNS, VERBS, WORDS
from lcx.data.tokenizers import Bytes, make_tokenizer
from lcx.errors import ConfigError, DataError
from tests.data import vocabulary_files
from tests.data.ruler_solvers import NOISE, SOLVERS, capital, story, write_hotpotqa, write_squad

SMOLLM2 = Path('~/.cache/lcx/models/smollm2-135m-instruct/tokenizer.json').expanduser()
TEXT = story()
BYTES = Bytes()
# Bytes, and about the bytes of one more unit of the haystack.
UNITS = {'noise': 90, 'text': 8, 'needle': 130, 'vt': 90, 'cwe': 30, 'fwe': 60, 'qa': 140}

FROZEN = {  # digests of sample 2 at length 3000 in bytes, seed 0
    'niah_single_1': '52e30418',
    'niah_single_2': 'bf926f83',
    'niah_single_3': '912e678f',
    'niah_multikey_1': '4af29f74',
    'niah_multikey_2': 'eaaaa5fb',
    'niah_multikey_3': '41e58135',
    'niah_multivalue': '625269b4',
    'niah_multiquery': 'e4dd9097',
    'vt': 'b0e9c2e2',
    'cwe': '5ffcced6',
    'fwe': '6b03a28e',
    'qa_1': '57f1f2b7',
    'qa_2': 'f9467942',
}


@pytest.fixture(scope='module')
def files(tmp_path_factory):
    directory = tmp_path_factory.mktemp('qa')
    return {'qa_1': write_squad(directory / 'squad.json'), 'qa_2': write_hotpotqa(directory / 'hotpot.json')}


@pytest.fixture
def draw(files):
    def draw(name, tokenizer=BYTES, *, length=3000, count=3, seed=0, **more):
        more = {'text': TEXT, 'file': files.get(name)} | more
        return samples(name, tokenizer, length=length, count=count, seed=seed, **more)

    return draw


def unit(name):
    task = RULER[name]
    return UNITS[task.haystack if isinstance(task, Niah) else name.split('_')[0]]


def solved(sample):
    return SOLVERS[sample.task](sample.prompt)


def test_the_thirteen_tasks_and_their_arguments_are_rulers():
    """synthetic.yaml and the tokens_to_generate of constants.py."""
    assert set(RULER) == set(SOLVERS) and len(RULER) == 13
    niah = {
        'niah_single_1': ('noise', 'word', 'number', 1, 1, 1),
        'niah_single_2': ('text', 'word', 'number', 1, 1, 1),
        'niah_single_3': ('text', 'word', 'uuid', 1, 1, 1),
        'niah_multikey_1': ('text', 'word', 'number', 4, 1, 1),
        'niah_multikey_2': ('needle', 'word', 'number', 1, 1, 1),
        'niah_multikey_3': ('needle', 'uuid', 'uuid', 1, 1, 1),
        'niah_multivalue': ('text', 'word', 'number', 1, 4, 1),
        'niah_multiquery': ('text', 'word', 'number', 1, 1, 4),
    }
    for name, arguments in niah.items():
        t = RULER[name]
        assert (t.haystack, t.key, t.value, t.keys, t.values, t.queries) == arguments
    assert dataclasses.astuple(RULER['vt']) == (1, 4)
    assert dataclasses.astuple(RULER['cwe']) == (10,) and dataclasses.astuple(RULER['fwe']) == (2.0,)
    assert [RULER[name].layout for name in ('qa_1', 'qa_2')] == ['squad', 'hotpotqa']
    generate = {'niah': 128, 'vt': 30, 'cwe': 120, 'fwe': 50, 'qa': 32}
    for name, task in RULER.items():
        assert task.generate == generate[name.split('_')[0]]
        assert task.metric == ('string_match_part' if 'qa' in name else 'string_match_all')


@pytest.mark.parametrize('name', RULER)
def test_samples_are_answered_by_who_reads_the_prompt_and_fill_the_length(name, draw):
    for sample in draw(name):
        assert set(solved(sample)) == set(sample.references)
        assert sample.tokens == len(BYTES.encode(sample.prompt))
        assert 0 <= 3000 - sample.generate - sample.tokens < unit(name)
        assert sample.prompt.endswith(sample.prefix)
        assert (sample.task, sample.length, sample.generate) == (name, 3000, RULER[name].generate)
    assert len({sample.prompt for sample in draw(name)}) == 3


def test_answers_come_in_the_order_of_the_question_and_of_the_chain(draw):
    for sample in draw('niah_multiquery') + draw('vt'):
        assert solved(sample) == list(sample.references)


@pytest.fixture(scope='module', params=['byte_level', 'spaced', 'metaspace', 'smollm2'])
def tokenizer(request, tmp_path_factory):
    if request.param == 'smollm2':
        if not SMOLLM2.is_file():
            pytest.skip(f'no {SMOLLM2}: lcx convert --src=smollm2 writes its like')
        return make_tokenizer(str(SMOLLM2))
    path = tmp_path_factory.mktemp('vocabulary') / 'tokenizer.json'
    return make_tokenizer(str(getattr(vocabulary_files, request.param)(path)))


@pytest.mark.parametrize('name', RULER)
def test_any_tokenizer(name, tokenizer, draw):
    small = tokenizer.vocab < 1000
    length = 2500 if small else 4096 if name == 'cwe' else 1200
    (sample,) = draw(name, tokenizer, length=length, count=1)
    assert set(solved(sample)) == set(sample.references)
    room = length - sample.generate - len(tokenizer.encode(sample.prompt))
    assert sample.tokens == length - sample.generate - room and 0 <= room <= 1.5 * unit(name)
    answer = tokenizer.encode(' ' + ' '.join(sample.references))
    assert len(answer) <= sample.generate or 'qa' in name


@pytest.mark.parametrize('name', RULER)
def test_equal_arguments_give_equal_samples_and_each_is_its_own(name, draw):
    three = draw(name)
    assert three == draw(name) and three[:1] == draw(name, count=1)
    assert three[0].index == 0 and three[0] != dataclasses.replace(three[1], index=0)
    assert draw(name, seed=1)[0].prompt != three[0].prompt


@pytest.mark.parametrize('name', [name for name in RULER if name not in ('cwe', 'fwe')])
def test_the_same_is_asked_at_every_length(name, draw):
    for short, long in zip(draw(name), draw(name, length=4000)):
        assert short.references == long.references and short.prefix == long.prefix
        assert len(short.prompt) < len(long.prompt)


@pytest.mark.parametrize('name', RULER)
def test_a_chat_template_holds_the_prompt_and_the_prefix_follows(name, draw):
    template = '<|user|>{not a field} {prompt}<|end|>\n<|assistant|>'
    (sample,) = draw(name, count=1, template=template)
    user, end = re.fullmatch(
        r'<.user.>{not a field} (.*)(<.end.>\n<.assistant.>.*)', sample.prompt, re.S
    ).groups()
    assert end == '<|end|>\n<|assistant|>' + sample.prefix
    assert set(SOLVERS[name](user + sample.prefix)) == set(sample.references)
    assert 0 <= 3000 - sample.generate - len(sample.prompt.encode()) < unit(name)


@pytest.mark.parametrize('name', RULER)
def test_too_short_names_the_least_length(name, draw):
    short = 40 if name != 'fwe' else 400  # where its vocabulary is as large as at its least length
    with pytest.raises(
        DataError, match=f'^{name}: length {short} is too short; the least for sample'
    ) as error:
        draw(name, length=short)
    least = int(re.search(r'is (\d+) tokens', str(error.value))[1])
    with pytest.raises(
        DataError, match=f'length {least - 1} is too short; the least for sample 0 is {least} tokens'
    ):
        draw(name, length=least - 1, count=1)
    (sample,) = draw(name, length=least, count=1)
    assert set(solved(sample)) == set(sample.references) and sample.tokens + sample.generate == least


def test_unknown_names_templates_and_missing_sources_are_errors(draw, tmp_path):
    with pytest.raises(ConfigError, match=r"task: unknown 'niah_single'\. Did you mean 'niah_single_\d'"):
        draw('niah_single')
    with pytest.raises(ConfigError, match=r"template: 'hello' must hold '{prompt}' once"):
        draw('vt', template='hello')
    with pytest.raises(
        DataError, match='niah_multivalue needs a text: to hide needles in, best of the corpus'
    ):
        draw('niah_multivalue', text=None)
    with pytest.raises(DataError, match=r'qa_1 needs a file: dev-v2\.0\.json of SQuAD, by its path'):
        draw('qa_1', file=None)
    with pytest.raises(
        DataError, match=r"qa_2: no file 'nowhere\.json'\. Give hotpot_dev_distractor_v1\.json of Ho"
    ):
        draw('qa_2', file='nowhere.json')


def test_text_and_documents_that_are_too_few_are_errors(draw, files, tmp_path):
    for text in ('', 'Too short. ' * 200):
        with pytest.raises(
            DataError, match=rf'the text has about {len(text)} tokens, too few for length 3000'
        ):
            draw('niah_single_2', text=text)
    with pytest.raises(DataError, match=r'qa_1: .*squad.json ends after \d+ of the 20000 tokens of sample 0'):
        draw('qa_1', length=20000)
    with pytest.raises(DataError, match=r'qa_2: .* has 20 questions; ask for no more samples'):
        draw('qa_2', count=21)
    for content in ('{', '[]', '{"data": [{"paragraphs": [{"context": "a"}]}]}', '{"data": []}'):
        bad = tmp_path / 'bad.json'
        bad.write_text(content)
        with pytest.raises(DataError, match=r'qa_1: .*bad\.json does not read as dev-v2\.0\.json of SQuAD'):
            draw('qa_1', file=str(bad))
    with pytest.raises(DataError, match=r'does not read as hotpot_dev_distractor_v1\.json'):
        draw('qa_2', file=files['qa_1'])


class Without(Bytes):
    """Bytes of which one character becomes another."""

    def __init__(self, old, new):
        super().__init__()
        self.pair = old, new

    def encode(self, text):
        return super().encode(text.replace(*self.pair))


class Long(Bytes):
    """Bytes, each three times."""

    def encode(self, text):
        return np.repeat(super().encode(text), 3)

    def decode(self, ids):
        return super().decode(ids[::3])


def test_a_tokenizer_that_cannot_write_the_answer_is_an_error(draw):
    with pytest.raises(
        ConfigError, match=r"data\.tokenizer: it writes '.*' for '\d+', an answer of niah_single_1"
    ):
        draw('niah_single_1', Without('7', '?'), count=20)
    with pytest.raises(
        ConfigError, match=r'the answer of fwe, sample 0, takes 63 tokens, and 50 are generated'
    ):
        draw('fwe', Long(), length=9000)


def test_samples_are_kept_and_read_again(draw, tmp_path):
    for name in RULER:
        first = draw(name, cache=tmp_path)
        (path,) = tmp_path.glob(f'{name}-3000-*')
        written = (path / 'samples.jsonl').stat()
        assert draw(name, cache=tmp_path) == first == draw(name)
        assert (path / 'samples.jsonl').stat() == written
    draw('niah_single_2', cache=tmp_path, file='any')  # which the task does not read
    assert len(list(tmp_path.glob('niah_single_2-*'))) == 1


def test_what_determines_samples_determines_where_they_are_kept(draw, tmp_path):
    changes = [
        {},
        {'count': 2},
        {'seed': 1},
        {'template': ' {prompt}'},
        {'text': TEXT + ' End.'},
        {'tokenizer': make_tokenizer(str(vocabulary_files.byte_level(tmp_path / 'tokenizer.json')))},
    ]
    for change in changes:
        draw('niah_single_2', cache=tmp_path / 'cache', **change)
    assert len(list((tmp_path / 'cache').iterdir())) == len(changes)
    other = write_squad(tmp_path / 'other.json', paragraphs=30)
    for change in ({}, {'file': other}):
        draw('qa_1', cache=tmp_path / 'cache', **change)
    assert len(list((tmp_path / 'cache').glob('qa_1-*'))) == 2


def test_the_code_still_makes_the_samples_that_lie_in_caches(draw):
    """If this fails on purpose, raise _LAYOUT in made.py and write the new numbers here."""
    assert made._LAYOUT == 1
    found = {name: hashlib.sha256(repr(draw(name)[2].prompt).encode()).hexdigest()[:8] for name in RULER}
    assert found == FROZEN


def test_damaged_samples_are_an_error(draw, tmp_path):
    draw('vt', cache=tmp_path)
    (path,) = tmp_path.iterdir()
    content = (path / 'samples.jsonl').read_bytes()
    (path / 'samples.jsonl').write_bytes(content[:-40])
    with pytest.raises(DataError, match=r'is damaged: samples\.jsonl was changed\. Delete this directory'):
        draw('vt', cache=tmp_path)


def test_needles_in_text_lie_between_sentences_at_rulers_depths(draw):
    needle = re.compile(r'One of the special magic numbers for [a-z-]+ is: \d+\. ?')
    sentences = {' '.join(line.split()) for line in TEXT.split('\n')}
    depths = []
    for sample in draw('niah_single_2', count=40):
        context = sample.prompt.split('\n')[1]
        before, _, after = context.partition(needle.search(context)[0])
        assert not before or before.endswith('times. ')
        assert f'{before}{after}'.strip() in ' '.join(TEXT.split())  # a piece of the text, and nothing but
        whole = [s for s in re.findall(r'Story0 .*?times\.', before + after)]
        assert set(whole) <= sentences and (before + after).startswith('Story0 ')
        share = len(before.split()) / len((before + after).split())
        assert sample.facts['depths'] == (pytest.approx(share, abs=1e-4),)
        count = len(re.findall('Story0', before + after))
        assert np.min(np.abs(len(re.findall('Story0', before)) - np.floor(DEPTHS * count))) == 0
        depths.append(share)
    assert min(depths) < 0.2 and max(depths) > 0.8 and abs(np.mean(depths) - 0.5) < 0.15


def test_depths_of_several_answers_are_those_of_their_needles(draw):
    for sample in draw('niah_multivalue') + draw('niah_multiquery') + draw('vt'):
        at = [sample.prompt.rindex(f'{"" if sample.task != "vt" else "VAR "}{r}') for r in sample.references]
        if sample.task == 'vt':
            at = [sample.prompt.rindex(f'VAR {r} = ') for r in sample.references]
        assert np.argsort(at).tolist() == np.argsort(sample.facts['depths'], kind='stable').tolist()


def test_sentences_end_at_stops_that_are_none_of_a_title_and_after_a_hundred_words():
    def ends(text):
        return sentence_ends(text.split()).tolist()

    assert ends('A cat sat. "Why?" Mr. J. Fox (Dr. No) went. And') == [3, 4, 10, 11]
    assert ends('He said “no.” I left') == [3, 5]
    assert ends('a ' * 250) == [LONGEST, 2 * LONGEST, 250] and ends('') == []


def test_common_words_appear_as_often_as_rulers(draw):
    for length, often, seldom, shown in ((3000, 6, 1, {3: 10, 1: 10}), (20000, 30, 3, {10: 10, 3: 30})):
        (sample,) = draw('cwe', length=length, count=1)
        example, last = (
            collections.Counter(re.findall(r'\d\. ([a-z]+)', part.split('Question')[0]))
            for part in sample.prompt.split('Below is')[1:]
        )
        frequencies = collections.Counter(last.values())
        assert frequencies == {often: 10, seldom: sample.facts['words'] - 10}
        assert collections.Counter(example.values()) == shown
        assert {word for word, count in last.items() if count == often} == set(sample.references)


def test_pairs_of_words_where_there_are_not_enough_words(draw):
    class Cheap(Bytes):
        """A token for a word."""

        def encode(self, text):
            return np.array([ord(word[-1]) % 256 for word in text.split()], np.int32)

        def decode(self, ids):
            raise NotImplementedError

    tokenizer = Cheap()
    task = RULER['cwe']
    given = Given('cwe', tokenizer, 16384, task.generate)
    body, _, tokens = fitted(given, task.drafts(given)([0]), lambda body: body.prompt + body.prefix, 0)
    assert body.facts['words'] > len(WORDS) and all('-' in word for word in body.references)
    assert 16384 - 120 - 6 < tokens <= 16384 - 120


def test_coded_words_are_as_frequent_as_the_zeta_distribution_says(draw):
    assert zeta(2.0) == pytest.approx(np.pi**2 / 6, rel=1e-14)
    assert zeta(1.5) == pytest.approx(scipy.special.zeta(1.5), rel=1e-13)
    for sample in draw('fwe', length=4000):
        words = sample.prompt.split('words. ')[1].split('\nQuestion')[0].split(' ')
        counts = collections.Counter(words)
        ranked = [counts['...'], *sorted((n for word, n in counts.items() if word != '...'), reverse=True)]
        k = np.arange(1, 4000 // 50 + 1)
        fits = [
            n
            for n in range(50, 2000)
            if [c for c in (n * k**-2.0 / scipy.special.zeta(2)).astype(int) if c] == ranked
        ]
        assert fits  # some number of words gives exactly these
        assert sample.facts['counts'] == tuple(ranked[1:5])


def test_two_chains_of_which_one_is_asked_for():
    task = VariableTracking(chains=2, hops=2)
    given = Given('vt', BYTES, 3000, task.generate)
    body = task.drafts(given)([0]).build(12)
    assert set(SOLVERS['vt'](body.prompt + body.prefix)) == set(body.references) and len(body.references) == 3
    assert body.prompt.split('Memorize')[2].count('VAR') == 2 * (3 + 2)


def test_the_example_of_variable_tracking_has_500_tokens(draw):
    tokenizer = type(
        'Words', (Bytes,), {'encode': lambda self, text: np.zeros(len(text.split()), np.int32)}
    )()
    tokenizer.decode = lambda ids: ''
    task = RULER['vt']
    body = task.drafts(Given('vt', tokenizer, 3000, task.generate))([0]).build(5)
    example = body.prompt.split(', they are: ')[0] + ', they are: '
    assert 500 - len(NOISE.split()) < len(example.split()) <= 500


def test_squad_takes_documents_of_the_article_first(draw):
    for index, sample in enumerate(draw('qa_1', length=1700, count=30)):
        assert (
            sample.references == (f'Town{2 * index}',)
            and f'What is the capital of Country{2 * index}?' in sample.prompt
        )
        articles = re.findall(r'Article (\d)', sample.prompt)
        assert set(articles) == {str(index // 20)} and len(articles) < 20
        assert len(articles) == sample.facts['documents']
        documents = re.split(r'Document \d+:\n', sample.prompt)[1:]
        assert capital(2 * index) in documents[sample.facts['places'][0]]
    (long,) = draw('qa_1', length=5000, count=1)
    articles = collections.Counter(re.findall(r'Article (\d)', long.prompt))
    assert articles['0'] == 20 and len(articles) > 1


def test_hotpotqa_has_all_documents_of_the_question(draw):
    (sample,) = draw('qa_2', count=1)
    documents = re.split(r'Document \d+:\n', sample.prompt)[1:]
    assert [int(documents[place].split()[1]) for place in sample.facts['places']] == list(range(10))
    assert sample.facts['documents'] == len(documents) > 10 and documents[0].startswith('Title ')


def test_words_are_different_plain_and_many():
    assert len(set(WORDS)) == len(WORDS) == len(ADJECTIVES) + len(NOUNS) + len(VERBS) > 1500
    assert all(re.fullmatch('[a-z]{2,12}', word) for word in WORDS)


def test_wrong_sizes_cost_encodings_and_nothing_else():
    """Whatever the sizes promise, the most units that fit are found if they promise too little."""
    for factor, wanted in itertools.product((0.2, 0.5, 0.9, 1.0), (7, 100, 999)):
        calls = []

        def build(n, calls=calls):
            calls.append(n)
            return made.Body('x' * (10 * n), '', (), {})

        draft = Draft(1, 10**6, lambda n, factor=factor: 10 * factor * n, build)
        given = Given('any', BYTES, 10 * wanted + 5, 0)
        _, _, tokens = fitted(given, draft, lambda body: body.prompt, 0)
        assert tokens == 10 * wanted and len(calls) < 40
