"""RULER's evaluator: who reads the prompts is right in every task, and scores are RULER's."""

import dataclasses
import random
import re

import numpy as np
import pytest

from lcx.data import tokens
from lcx.data.ruler import RULER, samples
from lcx.data.tokenizers import Bytes
from lcx.errors import ConfigError, DataError
from lcx.eval import Context, EvalConfig, RulerConfig
from lcx.eval.api import digest
from lcx.eval.ruler import Ruler, make_ruler, string_match_all, string_match_part
from tests.data.ruler_solvers import SOLVERS, story, write_hotpotqa, write_squad

CONFIG = EvalConfig(
    run=(),
    split='validation',
    every=None,
    lengths=(2048, 4096),
    windows=1,
    depths=(0.5,),
    samples=3,
    last=4,
    tokens=8192,
)
BYTES = Bytes()
WITHOUT_CWE = [name for name in RULER if name != 'cwe']  # which at 4096 needs more bytes than that


@pytest.fixture(scope='module')
def context(tmp_path_factory):
    directory = tmp_path_factory.mktemp('tokens')
    tokens.write(directory / 'a', [story(0, 200), story(1, 200)], BYTES)
    return Context(CONFIG, tokens.read(directory / 'a', 'test'), BYTES, seed=0)


@pytest.fixture(scope='module')
def files(tmp_path_factory):
    directory = tmp_path_factory.mktemp('qa')
    return {'qa_1': write_squad(directory / 'squad.json'), 'qa_2': write_hotpotqa(directory / 'hotpot.json')}


def task_of(prompt):
    """The names of the tasks whose wording this is: the solvers of others do not match."""
    found = []
    for name, solve in SOLVERS.items():
        try:
            found.append((name, solve(prompt)))
        except (AssertionError, AttributeError, ValueError):
            continue
    return found


def reader(answer=' '.join, shapes=None):
    """A ``generate`` that knows the answers from the prompts, says ``answer(references)`` and ends the document."""

    def generate(params, prompts, new):
        assert params == 'params'
        if shapes is not None:
            shapes.append((len(prompts), new))
        written = []
        for ids in prompts:
            answers = task_of(BYTES.decode(ids))[0][1]
            text = BYTES.encode(' ' + answer(answers))
            written.append(np.array([*text, BYTES.eos, *BYTES.encode('and so on')], np.int32)[:new])
        return written

    return generate


def ruler(context, tasks=(), files=None):
    """The evaluator as its fields make it."""
    files = files or {}
    own = RulerConfig(tuple(tasks), files.get('qa_1'), files.get('qa_2'))
    return make_ruler(context._replace(config=dataclasses.replace(context.config, ruler=own)))


def test_tasks_without_data_are_left_out_with_a_word(context, capsys):
    config = dataclasses.replace(CONFIG, lengths=(16384,))
    evaluator = ruler(context._replace(config=config))
    assert {task for _, task in evaluator.cells} == set(RULER) - {'qa_1', 'qa_2'}
    assert 'without qa_1, qa_2, whose data are not there' in capsys.readouterr().err


def test_who_reads_the_prompts_is_always_right(context, files, tmp_path):
    evaluator = ruler(context._replace(directory=tmp_path), WITHOUT_CWE, files)
    shapes = []
    rows = list(evaluator.run(reader(shapes=shapes), 'params'))
    cells = [(row['length'], row['task'], row['sample']) for row in rows]
    assert cells == [(n, task, i) for n in CONFIG.lengths for task in WITHOUT_CWE for i in range(3)]
    for row in rows:
        names = ['evaluator', 'task', 'length', 'sample', 'text', 'depth', 'score', 'prediction']
        single = (
            row['task'] in ('niah_single_1', 'niah_single_2', 'niah_single_3') or 'multikey' in row['task']
        )
        assert list(row) == [name for name in names if single or name != 'depth']
        assert row['evaluator'] == 'ruler' and row['score'] == 1.0 and 'so on' not in row['prediction']
    assert set(shapes) == {
        *(
            (3, RULER[task].generate) for task in WITHOUT_CWE
        ),  # at 2048 four prompts go at a time, at 4096 two
        *((n, RULER[task].generate) for task in WITHOUT_CWE for n in (2, 1)),
    }


def test_common_words_too(context):
    config = dataclasses.replace(CONFIG, lengths=(16384,), samples=2)
    rows = list(ruler(context._replace(config=config), ['cwe']).run(reader(', '.join), 'params'))
    assert [row['score'] for row in rows] == [1.0, 1.0]


def test_half_an_answer_is_half_right_where_all_count(context, files):
    tasks = ['niah_multivalue', 'niah_multiquery', 'fwe', 'qa_1']
    evaluator = ruler(context, tasks, files)
    half = {r['task']: r['score'] for r in evaluator.run(reader(lambda found: ' '.join(found[:2])), 'params')}
    assert half == {'niah_multivalue': 0.5, 'niah_multiquery': 0.5, 'fwe': pytest.approx(2 / 3), 'qa_1': 1.0}
    shouted = list(evaluator.run(reader(lambda found: '\n\t'.join(found).upper()), 'params'))
    assert {row['score'] for row in shouted} == {1.0} and '\n\n' in shouted[0]['prediction']
    wrong = evaluator.run(reader(lambda found: ' '.join(word[:-1] for word in found)), 'params')
    assert {row['score'] for row in wrong} == {0.0}


def test_finished_samples_are_left_out(context):
    tasks = ['niah_single_2', 'vt']
    evaluator = ruler(context, tasks)
    rows = list(evaluator.run(reader(), 'params'))
    done = [*rows[:2], *rows[4:7], {**rows[8], 'text': 'another'}, {**rows[9], 'evaluator': 'needle'}]
    shapes = []
    rest = list(evaluator.run(reader(shapes=shapes), 'params', done))
    assert rest == [row for row in rows if row not in done] and len(rest) == 7
    assert sum(count for count, _ in shapes) == 7
    drawn = samples('vt', BYTES, length=2048, count=3, seed=0)
    assert rows[3]['text'] == digest(BYTES.encode(drawn[0].prompt))


def test_what_cannot_be_drawn_shows_before_a_model_runs(context):
    with pytest.raises(DataError, match='qa_1 needs a file'):
        ruler(context, ['vt', 'qa_1'])
    with pytest.raises(DataError, match='niah_single_2 needs a text'):
        ruler(context._replace(tokens=None), ['niah_single_2'])
    with pytest.raises(DataError, match='cwe: length 4096 is too short'):
        ruler(context, ['cwe'])
    with pytest.raises(ConfigError, match=r"eval\.ruler\.tasks: unknown 'niah'\. "):
        Ruler(BYTES, None, tasks=['niah'], lengths=(1,), count=1, tokens=1)


# What RULER's own definitions (scripts/eval/synthetic/constants.py) give, divided by 100.
GOLDEN = (
    # predictions, references, string_match_all, string_match_part
    (['The answer is 1234567.'], [['1234567']], 1.0, 1.0),
    (['ABCDE fghij'], [['abcde', 'FGHIJ', 'KLMNO', 'PQRST']], 0.5, 1.0),
    (['no'], [['yes', 'perhaps']], 0.0, 0.0),
    (['Denver Broncos', 'in 1815'], [['broncos', 'Denver'], ['1815', 'the year 1815']], 0.75, 1.0),
    (['', 'x'], [['a'], ['x']], 0.5, 0.5),
    (['12345678'], [['234567']], 1.0, 1.0),  # parts of words count
)


@pytest.mark.parametrize(('predictions', 'references', 'every', 'part'), GOLDEN)
def test_scores_are_rulers(predictions, references, every, part):
    assert string_match_all(predictions, references) == pytest.approx(every)
    assert string_match_part(predictions, references) == pytest.approx(part)


def test_scores_of_many_are_those_of_the_definition_written_apart():
    draw = random.Random(0)
    for _ in range(50):
        count = draw.randint(1, 4)
        predictions = [''.join(draw.choices('abAB ', k=8)) for _ in range(count)]
        references = [
            [''.join(draw.choices('abAB', k=2)) for _ in range(draw.randint(1, 5))] for _ in range(count)
        ]
        every, part = 0.0, 0.0
        for prediction, known in zip(predictions, references):
            right = [re.search(re.escape(r), prediction, re.IGNORECASE) is not None for r in known]
            every += sum(right) / len(right) / count
            part += float(any(right)) / count
        assert string_match_all(predictions, references) == pytest.approx(every)
        assert string_match_part(predictions, references) == pytest.approx(part)


def test_predictions_and_references_go_together():
    with pytest.raises(ValueError):
        string_match_all(['a'], [['a'], ['b']])
