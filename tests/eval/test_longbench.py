"""LongBench from files in its layout: prompts, cuts, scores."""

import dataclasses
import json
import re

import numpy as np
import pytest

from lcx.data import longbench
from lcx.data.tokenizers import Bytes
from lcx.errors import ConfigError, DataError
from lcx.eval import Context, EvalConfig, LongBench, LongBenchConfig
from lcx.eval.answers import METRICS

BYTES = Bytes()
CONFIG = EvalConfig(
    run=(),
    split='validation',
    every=None,
    lengths=(256, 1024),
    windows=1,
    depths=(0.5,),
    samples=2,
    last=4,
    tokens=2048,
)
# Lines as they are published: every field there, in this order.
HOTPOTQA = [
    {
        'input': 'Which city is the tower in?',
        'context': f'Passage 1:\nThe Eiffel Tower. {"filler " * 60}',
        'answers': ['Paris', 'Paris, France'],
        'length': 64,
        'dataset': 'hotpotqa',
        'language': 'en',
        'all_classes': None,
        '_id': 'a1',
    },
    {
        'input': 'Who {context} wrote it?', 'context': 'Passage 1:\nby {input} Austen', 'answers': ['Jane Austen'],
        'length': 5, 'dataset': 'hotpotqa', 'language': 'en', 'all_classes': None, '_id': 'a2',
    },
]  # fmt: skip
TREC = [
    {
        'input': 'Question: Where is Rome?\nType:',
        'context': 'Question: Who was Caesar?\nType: Person',
        'answers': ['Place'],
        'length': 9,
        'dataset': 'trec',
        'language': 'en',
        'all_classes': ['Person', 'Place'],
        '_id': 'b1',
    }
]


@pytest.fixture
def directory(tmp_path):
    for name, records in (('hotpotqa', HOTPOTQA), ('trec', TREC), ('hotpotqa_e', HOTPOTQA[:1])):
        (tmp_path / f'{name}.jsonl').write_text(
            ''.join(json.dumps(r) + '\n' for r in records), encoding='utf-8'
        )
    return tmp_path


def longbench_of(directory, *tasks, **more):
    config = more.pop('config', CONFIG)
    own = LongBenchConfig(str(directory) if directory else None, tasks, **more)
    return LongBench(Context(dataclasses.replace(config, longbench=own), None, BYTES, seed=0))


def writer(text, seen=None):
    def generate(params, prompts, new):
        if seen is not None:
            seen.extend((BYTES.decode(ids), len(ids), new) for ids in prompts)
        return [np.array([*BYTES.encode(text), BYTES.eos, *BYTES.encode('more')], np.int32) for _ in prompts]

    return generate


def test_prompts_are_filled_in_and_cut_in_the_middle_which_rows_count(directory):
    seen = []
    rows = list(longbench_of(directory, 'hotpotqa').run(writer('Paris', seen), None))
    assert [(r['length'], r['sample'], r['record']) for r in rows] == [
        (n, i, name) for n in (256, 1024) for i, name in enumerate(('a1', 'a2'))
    ]
    whole = seen[2][0]
    assert whole.startswith('Read this') and whole.endswith('Question: Which city is the tower in?\nAnswer:')
    assert seen[0] == (whole[:112] + whole[-112:], 224, 32)
    assert [r['cut'] for r in rows] == [len(whole) - 224, 0, 0, 0]
    assert 'by {input} Austen' in seen[1][0] and 'Who {context} wrote it?' in seen[1][0]
    assert [r['points'] for r in rows] == [1.0, 0.0, 1.0, 0.0]
    assert {(r['metric'], r['prediction']) for r in rows} == {('f1', 'Paris')} and rows[0]['words'] == 64


def test_the_best_answer_counts_and_of_some_tasks_the_first_line(directory):
    rows = list(longbench_of(directory, 'trec', 'hotpotqa_e').run(writer('\nPlace\nPerson'), None))
    assert [(r['task'], r['points']) for r in rows] == [('trec', 1.0), ('hotpotqa_e', 0.0)] * 2
    rows = list(longbench_of(directory, 'hotpotqa').run(writer('In France: Paris'), None))
    assert rows[0]['points'] == pytest.approx(2 * 2 / 5)  # of 'Paris, France'


def test_rows_that_are_done_are_left_out(directory):
    evaluator = longbench_of(directory, 'hotpotqa', 'trec')
    rows, seen = list(evaluator.run(writer('Paris'), None)), []
    assert list(evaluator.run(writer('Paris', seen), None, rows[:4])) == rows[4:] and len(seen) == 2


def test_prompts_and_data_sets_of_the_user(directory):
    (directory / 'own.jsonl').write_text(json.dumps(TREC[0]) + '\n')
    file = directory / 'prompts.json'
    file.write_text(
        json.dumps(
            {
                'hotpotqa': 'Q: {input} T: {context}',
                'own': {'prompt': '{context}', 'new': 7, 'metric': 'exact_match'},
            }
        )
    )
    seen = []
    rows = list(
        longbench_of(directory, 'hotpotqa', 'own', prompts=str(file)).run(writer('place.', seen), None)
    )
    assert seen[1][0] == 'Q: Who {context} wrote it? T: Passage 1:\nby {input} Austen'
    assert seen[2][1:] == (len(TREC[0]['context']), 7)
    assert [r['points'] for r in rows if r['task'] == 'own'] == [1.0, 1.0]


@pytest.mark.parametrize(
    ('line', 'message'),
    [
        ('{', 'Expecting'),
        ('[]', 'not an object'),
        (json.dumps({**TREC[0], 'length': 'long'}), "'length' is 'long'"),
        (json.dumps({k: v for k, v in TREC[0].items() if k != 'context'}), "no 'context'"),
        (json.dumps({**TREC[0], 'answers': []}), r"'answers' is \[\]"),
    ],
)
def test_lines_of_another_layout_are_named(directory, line, message):
    (directory / 'trec.jsonl').write_text(json.dumps(TREC[0]) + '\n' + line + '\n')
    with pytest.raises(
        DataError, match=f'trec.jsonl:2: .*{message}.*It should be a JSON object on each line'
    ):
        longbench_of(directory, 'trec')


def test_what_is_missing_is_said(directory):
    with pytest.raises(
        DataError, match=r'qasper\.jsonl cannot be read.*with input, context, answers, length'
    ):
        longbench_of(directory, 'qasper')
    (directory / 'trec.jsonl').write_text('\n')
    with pytest.raises(DataError, match=r'trec\.jsonl is empty'):
        longbench_of(directory, 'trec')
    with pytest.raises(ConfigError, match=r"eval\.longbench\.directory: 'longbench' needs the directory"):
        longbench_of(None)
    with pytest.raises(ConfigError, match=r"eval\.longbench\.tasks: unknown 'hotpot'.*'hotpotqa'"):
        longbench_of(directory, 'hotpot')
    short = dataclasses.replace(CONFIG, lengths=(32,))
    with pytest.raises(DataError, match='length 32 is too short for hotpotqa, whose answers take 32 tokens'):
        longbench_of(directory, 'hotpotqa', config=short)


@pytest.mark.parametrize(
    ('content', 'message'),
    [
        ('{"trec": "no place"}', 'trec: the prompt has no {context}'),
        ('{"own": {"prompt": "{context}"}}', 'missing 2 required'),
        ('[', 'Expecting value'),
    ],
)
def test_a_file_of_prompts_that_cannot_be_used_is_named(directory, content, message):
    (directory / 'p.json').write_text(content)
    with pytest.raises(DataError, match=f'eval.longbench.prompts: .*{re.escape(message)}'):
        longbench_of(directory, 'trec', prompts=str(directory / 'p.json'))


def test_a_metric_that_is_none_is_refused(directory):
    (directory / 'p.json').write_text('{"trec": {"metric": "f2"}}')
    with pytest.raises(ConfigError, match=r"metric of trec: unknown 'f2'"):
        longbench_of(directory, 'trec', prompts=str(directory / 'p.json'))


def test_all_data_sets_have_a_metric_and_ask_for_what_they_hold():
    assert len(longbench.KINDS) == 21
    for name, kind in longbench.KINDS.items():
        assert kind.metric in METRICS and '{context}' in kind.prompt, name
