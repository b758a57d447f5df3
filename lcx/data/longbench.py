"""LongBench's data from a directory of the user's: Bai et al. 2024, arXiv:2308.14508.

``DIR/hotpotqa.jsonl`` and so on have a JSON object on each line, as its authors publish them (LongBench-E as
``hotpotqa_e.jsonl``):

    {"input": "Who ...?", "context": "Passage 1: ...", "answers": ["..."], "length": 9151, "dataset": "hotpotqa",
     "language": "en", "all_classes": null, "_id": "..."}

Metrics and numbers of new tokens are LongBench's. Its prompts are not here: the ones below ask for the same in other
words, so scores that are to stand beside published ones need the user's copy of ``dataset2prompt.json``.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from lcx.errors import DataError

LAYOUT = (
    'a JSON object on each line with input, context, answers, length, dataset, language, all_classes and _id, '
    'as LongBench publishes it'
)


class Kind(NamedTuple):
    """What is asked of a data set's records, and how answers are scored."""

    prompt: str  # with {context} and {input}
    new: int  # tokens of an answer, at most
    metric: str
    first_line: bool = False  # whether only the first line that is written counts


class Record(NamedTuple):
    """A line of a file."""

    input: str
    context: str
    answers: tuple[str, ...]
    length: int  # words, or characters of Chinese
    classes: tuple[str, ...]
    id: str


ASK = 'Read this and answer the question after it in few words.\n\n{context}\n\nQuestion: {input}\nAnswer:'
ASK_ZH = '阅读下文，用尽可能少的字回答最后的问题。\n\n{context}\n\n问题：{input}\n回答：'
SUM_UP = 'Summarise the following text on one page.\n\n{context}\n\nSummary:'
GO_ON = 'These examples are followed by one that is to be completed likewise.\n\n{context}\n{input}'
CODE = 'What is the next line of this code?\n\n{context}{input}Next line of code:\n'

KINDS: Mapping[str, Kind] = {
    'narrativeqa': Kind(ASK, 128, 'f1'),
    'qasper': Kind(ASK, 128, 'f1'),
    'multifieldqa_en': Kind(ASK, 64, 'f1'),
    'multifieldqa_zh': Kind(ASK_ZH, 64, 'f1_zh'),
    'hotpotqa': Kind(ASK, 32, 'f1'),
    '2wikimqa': Kind(ASK, 32, 'f1'),
    'musique': Kind(ASK, 32, 'f1'),
    'dureader': Kind(ASK_ZH, 128, 'rouge_l_zh'),
    'gov_report': Kind(SUM_UP, 512, 'rouge_l'),
    'qmsum': Kind(
        'Read what was said in a meeting and answer the question after it in some sentences.\n\n{context}\n\n'
        'Question: {input}\nAnswer:',
        512,
        'rouge_l',
    ),
    'multi_news': Kind(SUM_UP, 512, 'rouge_l'),
    'vcsum': Kind('总结下面的会议记录。\n\n{context}\n\n总结：', 512, 'rouge_l_zh'),
    'trec': Kind(GO_ON, 64, 'classification', True),
    'triviaqa': Kind(GO_ON, 32, 'f1', True),
    'samsum': Kind(GO_ON, 128, 'rouge_l', True),
    'lsht': Kind('按照下面的例子，给最后一段文字分类。\n\n{context}\n{input}', 64, 'classification', True),
    'passage_count': Kind(
        'Some of these paragraphs are there more than once. How many different ones are there? Give the number '
        'alone.\n\n{context}\n\nNumber:',
        32,
        'count',
    ),
    'passage_retrieval_en': Kind(
        "Which of these paragraphs is the summary at the end about? Answer like 'Paragraph 1'.\n\n{context}\n\n"
        'Summary: {input}\nAnswer:',
        32,
        'retrieval',
    ),
    'passage_retrieval_zh': Kind(
        '最后的摘要说的是下面哪一段？回答格式如“段落1”。\n\n{context}\n\n摘要：{input}\n回答：',
        32,
        'retrieval',
    ),
    'lcc': Kind(CODE, 64, 'code_similarity'),
    'repobench-p': Kind(CODE, 64, 'code_similarity'),
}


def kind_of(name: str) -> Kind | None:
    """That of a data set, or of LongBench-E's part of it; None for an unknown one."""
    return KINDS.get(name.removesuffix('_e'))


def filled(prompt: str, record: Record) -> str:
    """The prompt with the record's ``{context}`` and ``{input}``, and nothing else replaced."""
    return re.sub(r'\{(context|input)\}', lambda match: getattr(record, match[1]), prompt)


def read(directory: str, name: str) -> list[Record]:
    """The records of ``name``.

    Raises:
      DataError: there is no such file, or a line of it is no record.
    """
    path = Path(directory).expanduser() / f'{name}.jsonl'
    try:
        lines = path.read_text(encoding='utf-8').split('\n')
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f'longbench: {path} cannot be read: {error}. It should be {LAYOUT}.') from None
    records = []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            records.append(_record(json.loads(line)))
        except (ValueError, TypeError) as error:
            raise DataError(f'longbench: {path}:{number}: {error}. It should be {LAYOUT}.') from None
    if not records:
        raise DataError(f'longbench: {path} is empty. It should be {LAYOUT}.')
    return records


def _record(values: object) -> Record:
    """Raises ValueError or TypeError that says what is wrong."""
    if not isinstance(values, dict):
        raise ValueError('not an object')
    for name, kinds in (
        ('input', str),
        ('context', str),
        ('answers', list),
        ('length', int),
        ('all_classes', (list, type(None))),
        ('_id', str),
    ):
        if name not in values:
            raise ValueError(f'no {name!r}')
        if not isinstance(values[name], kinds):
            raise ValueError(f'{name!r} is {values[name]!r}')
    answers, classes = values['answers'], values['all_classes'] or []
    if not answers or not all(isinstance(x, str) for x in [*answers, *classes]):
        raise ValueError(f"'answers' is {answers!r} and 'all_classes' {classes!r}, which must be texts")
    return Record(
        values['input'], values['context'], tuple(answers), values['length'], tuple(classes), values['_id']
    )


def prompts(file: str) -> dict[str, Kind]:
    """What the user's file says of data sets: JSON as LongBench's ``dataset2prompt.json``, a text by the name of each.

    Instead of the text may stand ``{"prompt": ..., "new": ..., "metric": ...}``, all three for data sets that are not
    LongBench's.

    Raises:
      DataError: the file does not read as that.
    """
    layout = 'JSON with a prompt by the name of each data set, or an object with prompt, new and metric'
    try:
        values = json.loads(Path(file).expanduser().read_text(encoding='utf-8'))
        return {name: _kind(name, value) for name, value in values.items()}
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise DataError(
            f'eval.longbench.prompts: {file} cannot be used: {error}. It should be {layout}.'
        ) from None


def _kind(name: str, value: object) -> Kind:
    known = kind_of(name)
    own = {'prompt': value} if isinstance(value, str) else dict(value)
    kind = Kind(**own) if known is None else known._replace(**own)
    if not isinstance(kind.prompt, str) or '{context}' not in kind.prompt:
        raise ValueError(f'{name}: the prompt has no {{context}}')
    return kind
