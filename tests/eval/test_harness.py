"""lm-eval with a model of lcx: its numbers are those of direct computation. Skipped where lm-eval is not installed."""

import functools
import json
import sys

import jax
import numpy as np
import pytest

from lcx.data.tokenizers import Bytes
from lcx.errors import ConfigError, DataError
from lcx.eval import Context, EvalConfig, Harness, HarnessConfig, Reader
from lcx.eval.harness import metrics
from lcx.models import init, score
from tests.eval.tiny import MODEL

LENGTH = 128
BYTES = Bytes()
QUESTIONS = [
    {'question': 'The sky is', 'choices': [' blue', ' green', ' salty'], 'gold': 0},
    {'question': 'Grass is', 'choices': [' red', ' green', ' old'], 'gold': 1},
    {'question': 'x' * 300 + ' and y', 'choices': [' yes', ' no', ' maybe not'], 'gold': 2},
]
CHOICE = """
task: lcx_tiny_choice
dataset_path: json
dataset_kwargs: {{data_files: {{test: {data}}}}}
test_split: test
output_type: multiple_choice
doc_to_text: "{{{{question}}}}"
doc_to_choice: "{{{{choices}}}}"
doc_to_target: gold
target_delimiter: ""
metric_list:
  - metric: acc
    aggregation: mean
    higher_is_better: true
"""
ROLLING = """
task: lcx_tiny_rolling
dataset_path: json
dataset_kwargs: {{data_files: {{test: {data}}}}}
test_split: test
output_type: loglikelihood_rolling
doc_to_text: ""
doc_to_target: "{{{{question}}}}"
metric_list:
  - metric: bits_per_byte
    aggregation: bits_per_byte
    higher_is_better: false
"""
WRITING = """
task: lcx_tiny_writing
dataset_path: json
dataset_kwargs: {{data_files: {{test: {data}}}}}
test_split: test
output_type: generate_until
doc_to_text: "{{{{question}}}}"
doc_to_target: "{{{{choices[gold]}}}}"
generation_kwargs: {{until: ["t"], max_gen_toks: 6}}
metric_list:
  - metric: exact_match
    aggregation: mean
    higher_is_better: true
"""


def config(**fields):
    own = {key: fields.pop(key) for key in ('tasks', 'include', 'shots', 'limit') if key in fields}
    defaults = {
        'run': ('harness',), 'split': 'validation', 'every': None, 'lengths': (64, LENGTH), 'windows': 1,
        'depths': (0.5,), 'samples': 1, 'last': 4, 'tokens': 4 * LENGTH,
    }  # fmt: skip
    return EvalConfig(**{**defaults, **fields}, harness=HarnessConfig(**own))


def context(**fields):
    return Context(config(**fields), None, BYTES, seed=0)


@pytest.fixture(scope='module')
def params():
    return jax.tree.map(lambda x: 2 * x, init(MODEL, jax.random.key(0)))


@pytest.fixture(scope='module')
def apply():
    return jax.jit(functools.partial(score, MODEL, chunk=512))


@pytest.fixture
def lm(apply, params):
    """The ``LM``, which writes '-t-' after anything, and notes what it was asked to go on from."""
    pytest.importorskip('lm_eval', reason='lm-eval is not installed: pip install lcx[eval]')
    from lcx.eval.harness_lm import HarnessLM

    def write(_, prompts, new):
        made.asked.append(([BYTES.decode(ids) for ids in prompts], new))
        return [BYTES.encode('-t-')[:new] for _ in prompts]

    made = HarnessLM(Reader(apply, write), params, BYTES, length=LENGTH, tokens=4 * LENGTH)
    made.asked = []
    return made


def request(kind, *arguments):
    from lm_eval.api.instance import Instance

    return Instance(kind, {}, arguments, 0)


def directly(apply, params, ids, count):
    """log p of the last ``count`` of ``ids``, alone in a row, and whether each is the most probable token."""
    from lcx.eval.api import whole_rows

    found = apply(params, whole_rows(np.array([ids], np.int32)))
    return -float(found.nll[0, -count:].sum()), bool(np.all(found.hit[0, -count:] > 0))


@pytest.mark.parametrize(
    ('before', 'after'),
    [('The sky is', ' blue'), ('The sky is ', 'blue'), ('', 'blue'), ('x' * 100, 'y'), ('x' * 62, 'yy')],
)
def test_loglikelihoods_are_those_of_direct_computation(lm, apply, params, before, after):
    """In one batch with others, of other lengths; the space goes with the continuation."""
    others = [request('loglikelihood', 'Something else', f' {i}' * 30) for i in range(3)]
    found = lm.loglikelihood([*others, request('loglikelihood', before, after)], disable_tqdm=True)
    ids = [*([] if before else [BYTES.bos]), *BYTES.encode(before + after).tolist()]
    count = len(BYTES.encode(before + after)) - len(BYTES.encode(before.rstrip()))
    expected = directly(apply, params, ids, count)
    assert found[3][0] == pytest.approx(expected[0], rel=1e-5) and found[3][1] == expected[1]
    assert lm.truncated == 0


def test_a_greedy_continuation_is_told(lm, apply, params):
    """Written a token at a time by the largest probability."""
    ids = BYTES.encode('The sky').tolist()
    for _ in range(3):
        logps = [directly(apply, params, [*ids, token], 1)[0] for token in range(257)]
        ids.append(int(np.argmax(logps)))
    assert lm.scores([(ids[:-3], ids[-3:])])[0][1] is True
    assert lm.scores([(ids[:-3], [*ids[-3:-1], (ids[-1] + 1) % 257])])[0][1] is False


def test_what_is_too_long_loses_its_beginning_and_is_counted(lm, apply, params):
    text = ''.join(chr(97 + i % 26) for i in range(300))
    (found,) = lm.loglikelihood([request('loglikelihood', text, ' end')], disable_tqdm=True)
    ids = BYTES.encode(text + ' end').tolist()[-(LENGTH + 1) :]
    assert found[0] == pytest.approx(directly(apply, params, ids, 4)[0], rel=1e-5)
    assert (lm.truncated, lm.lost) == (1, 300 + 4 - LENGTH - 1)
    with pytest.raises(DataError, match=r'a continuation of 200 tokens is longer than 128'):
        lm.scores([([1], [2] * 200)])


@pytest.mark.parametrize('size', [1, 50, LENGTH, LENGTH + 1, 3 * LENGTH - 5])
def test_whole_texts_are_scored_in_pieces_each_token_once(lm, apply, params, size):
    text = ''.join(chr(97 + i * i % 26) for i in range(size))
    (found,) = lm.loglikelihood_rolling([request('loglikelihood_rolling', text)])
    ids, total = [BYTES.bos, *BYTES.encode(text).tolist()], 0.0
    for start in range(0, size, LENGTH):
        end = min(start + LENGTH, size)
        begin = start if start == 0 or end == start + LENGTH else end - LENGTH
        total += directly(apply, params, ids[begin : end + 1], end - start)[0]
    assert found == pytest.approx(total, rel=1e-5)
    assert lm.truncated == 0


def test_texts_end_before_what_ends_them_and_prompts_are_cut_and_counted(lm, capsys):
    options = {'until': ['t'], 'max_gen_toks': 6}
    asks = [
        ('short', options),
        ('x' * 300, options),
        ('', {'until': [], 'max_gen_toks': 2, 'do_sample': True}),
    ]
    found = lm.generate_until([request('generate_until', *ask) for ask in asks])
    assert found == ['-', '-', '-t']
    prompts = {text for texts, _ in lm.asked for text in texts}
    assert prompts == {'short', 'x' * (LENGTH - 6), ''} and {new for _, new in lm.asked} == {6, 2}
    assert (lm.truncated, lm.lost) == (1, 300 - (LENGTH - 6))
    assert 'asks for sampling; texts are written as config.generate says' in capsys.readouterr().err
    with pytest.raises(DataError, match='128 new tokens leave no room for a prompt in 128'):
        lm.generate_until([request('generate_until', 'a', {'max_gen_toks': 128})])


@pytest.fixture
def tasks(tmp_path):
    """A directory with three tasks over a file."""
    data = tmp_path / 'questions.jsonl'
    data.write_text(''.join(json.dumps(question) + '\n' for question in QUESTIONS))
    for name, text in (('choice', CHOICE), ('rolling', ROLLING), ('writing', WRITING)):
        (tmp_path / f'{name}.yaml').write_text(text.format(data=data))
    return tmp_path


def test_tasks_of_files_give_rows_that_direct_computation_gives(lm, tasks, apply, params, monkeypatch):
    monkeypatch.setenv('HF_DATASETS_CACHE', str(tasks / 'cache'))
    names = ('lcx_tiny_choice', 'lcx_tiny_rolling', 'lcx_tiny_writing')
    made = context(tasks=names, include=str(tasks))
    rows = list(Harness(made).run(lm.reader, params))
    choice, rolling, writing = rows
    right = []
    for question in QUESTIONS:
        before = BYTES.encode(question['question']).tolist()
        logps = []
        for after in question['choices']:
            ids = [*before, *BYTES.encode(after).tolist()][-(LENGTH + 1) :]
            logps.append(directly(apply, params, ids, len(after))[0])
        right.append(float(np.argmax(logps) == question['gold']))
    assert choice['evaluator'] == 'harness_lcx_tiny_choice_acc'
    assert choice['value'] == pytest.approx(np.mean(right))
    assert choice['value_stderr'] == pytest.approx(np.std(right, ddof=1) / 3**0.5)
    assert (choice['samples'], choice['length'], choice['truncated']) == (3, LENGTH, 3)
    assert choice['lost_tokens'] == sum(306 + len(c) - LENGTH - 1 for c in QUESTIONS[2]['choices'])

    texts = [question['question'] for question in QUESTIONS]
    nats = -sum(lm.loglikelihood_rolling([request('loglikelihood_rolling', text) for text in texts]))
    assert rolling['cost'] == pytest.approx(nats / np.log(2) / sum(map(len, texts)), rel=1e-5)
    assert rolling['truncated'] == 0 and 'value' not in rolling
    assert (writing['metric'], writing['value'], writing['truncated']) == ('exact_match', 0.0, 1)
    assert list(Harness(made).run(lm.reader, params, rows[:2])) == [writing]


def test_unknown_tasks_are_refused_with_the_nearest(tasks):
    pytest.importorskip('lm_eval', reason='lm-eval is not installed: pip install lcx[eval]')
    with pytest.raises(
        ConfigError, match=r"eval\.harness\.tasks: no task 'lcx_tiny_choise'.*'lcx_tiny_choice'"
    ):
        Harness(context(tasks=('lcx_tiny_choise',), include=str(tasks)))


def test_settings_that_cannot_be_are_refused(monkeypatch):
    with pytest.raises(ConfigError, match=r'eval\.harness\.tasks: \(\) evaluates nothing'):
        Harness(context())
    with pytest.raises(ConfigError, match=r"eval\.cached: 'harness' scores texts whole"):
        Harness(context(tasks=('a',), cached=True))
    with pytest.raises(ConfigError, match='limit: 0 must be greater than 0'):
        HarnessConfig(limit=0)
    monkeypatch.setitem(sys.modules, 'lm_eval.tasks', None)
    with pytest.raises(ConfigError, match=r"'harness' needs lm-eval .*pip install 'lcx\[eval\]'"):
        Harness(context(tasks=('a',)))


def test_numbers_of_lm_eval_become_rows():
    found = {
        'results': {
            'a/b': {
                'alias': 'a/b', 'acc,none': 0.5, 'acc_stderr,none': 0.25, 'word_perplexity,none': 12.0,
                'word_perplexity_stderr,none': 'N/A', 'exact_match,strict': 1, 'broken,none': 'N/A',
            },
        },
        'higher_is_better': {'a/b': {'acc': True, 'word_perplexity': False, 'exact_match': True}},
        'n-samples': {'a/b': {'original': 9, 'effective': 4}},
    }  # fmt: skip
    task = {'task': 'a/b', 'samples': 4, 'filter': 'none'}
    assert list(metrics(found)) == [
        {**task, 'evaluator': 'harness_a_b_acc', 'metric': 'acc', 'value': 0.5, 'value_stderr': 0.25},
        {**task, 'evaluator': 'harness_a_b_word_perplexity', 'metric': 'word_perplexity', 'cost': 12.0},
        {
            **task, 'evaluator': 'harness_a_b_exact_match_strict', 'metric': 'exact_match', 'filter': 'strict',
            'value': 1.0,
        },
    ]  # fmt: skip
