"""All samples of a task."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path

from lcx.config import Options, freeze
from lcx.data import atomic
from lcx.data.ruler.api import Body, Given, Sample, Task, checked, fitted
from lcx.data.ruler.cwe import CommonWords
from lcx.data.ruler.fwe import FrequentWords
from lcx.data.ruler.niah import Niah
from lcx.data.ruler.qa import QuestionAnswering
from lcx.data.ruler.vt import VariableTracking
from lcx.data.ruler.words import WORDS
from lcx.data.tokenizers import Tokenizer
from lcx.errors import ConfigError, DataError, unknown

RULER: Mapping[str, Task] = {
    'niah_single_1': Niah('noise'),
    'niah_single_2': Niah('text'),
    'niah_single_3': Niah('text', value='uuid'),
    'niah_multikey_1': Niah('text', keys=4),
    'niah_multikey_2': Niah('needle'),
    'niah_multikey_3': Niah('needle', value='uuid', key='uuid'),
    'niah_multivalue': Niah('text', values=4),
    'niah_multiquery': Niah('text', queries=4),
    'vt': VariableTracking(chains=1, hops=4),
    'cwe': CommonWords(count=10),
    'fwe': FrequentWords(alpha=2.0),
    'qa_1': QuestionAnswering('squad'),
    'qa_2': QuestionAnswering('hotpotqa'),
}

PROMPT = '{prompt}'  # a base model is given the prompt as it is; a chat template has it somewhere
_LAYOUT = 1  # of the files, and of what the code here makes from equal arguments


def samples(
    name: str,
    tokenizer: Tokenizer,
    *,
    length: int,
    count: int,
    seed: int,
    text: str | None = None,
    file: str | None = None,
    template: str = PROMPT,
    cache: Path | None = None,
) -> list[Sample]:
    """The first ``count`` samples of a task of :data:`RULER`, for prompts and answers of ``length`` tokens together.

    Sample i is the same whatever ``count`` is, and asks for the same at every length where the task allows it (needles,
    chains of variables, questions). ``text`` is the real text of the tasks that hide needles in it, ``file`` the data
    set of ``qa_1`` and ``qa_2``. ``template`` holds '{prompt}' once, where a chat template has the user's words; the
    answer's prefix follows the template. What in it stands for special tokens is text to ``tokenizer.encode``, as all
    is. With a directory ``cache`` samples are kept there and read again.

    Raises:
      ConfigError: an unknown task, a template without '{prompt}', or a tokenizer that cannot write an answer.
      DataError: a text or file that the task needs is missing, malformed or too small, or ``length`` is too short.
      StorageError: the cache cannot be written.
    """
    if name not in RULER:
        raise ConfigError(unknown('task', name, RULER))
    if template.count(PROMPT) != 1:
        raise ConfigError(f'template: {template!r} must hold {PROMPT!r} once.')
    task = RULER[name]
    needed(name, task, text, file)
    given = Given(name, tokenizer, length, task.generate, text, file)
    if cache is None:
        return list(made(task, given, count, seed, template))
    path = cache / f'{name}-{length}-{identity(task, given, count, seed, template)}'
    if not path.is_dir():
        atomic.create(path, lambda directory: _write(directory, made(task, given, count, seed, template)))
    return _read(path)


def needed(name: str, task: Task, text: str | None, file: str | None) -> None:
    """Raises a DataError that says what to give, if the task needs what is not there."""
    if task.needs and {'text': text, 'file': file}[task.needs] is None:
        raise DataError(f'{name} needs a {task.needs}: {task.asks}.')
    if task.needs == 'file' and not Path(file).expanduser().is_file():
        raise DataError(f'{name}: no file {str(file)!r}. Give {task.asks}.')


def made(task: Task, given: Given, count: int, seed: int, template: str) -> Iterator[Sample]:
    """Samples one by one; see :func:`samples`."""

    def whole(body: Body) -> str:
        return template.replace(PROMPT, body.prompt) + body.prefix

    drafts = task.drafts(given)
    for index in range(count):
        draft = drafts([seed, zlib.crc32(given.name.encode()), index])
        body, prompt, tokens = fitted(given, draft, whole, index)
        checked(given, body, index, every=task.metric == 'string_match_all')
        yield Sample(
            task=given.name,
            length=given.length,
            index=index,
            prompt=prompt,
            prefix=body.prefix,
            references=body.references,
            generate=task.generate,
            tokens=tokens,
            facts=Options(body.facts),
        )


def identity(task: Task, given: Given, count: int, seed: int, template: str) -> str:
    """Sixteen hex digits of all that determines the samples."""
    facts = [_LAYOUT, given.name, repr(task), given.tokenizer.identity, given.length, count, seed, template]
    if task.needs == 'text':
        facts.append(hashlib.sha256(given.text.encode()).hexdigest())
    if task.needs == 'file':
        facts.append(hashlib.sha256(Path(given.file).expanduser().read_bytes()).hexdigest())
    facts.append(hashlib.sha256(' '.join(WORDS).encode()).hexdigest())
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:16]


def _write(directory: Path, found: Iterator[Sample]) -> None:
    content = ''.join(
        json.dumps({**dataclasses.asdict(sample), 'facts': dict(sample.facts)}, ensure_ascii=False) + '\n'
        for sample in found
    ).encode()
    (directory / 'samples.jsonl').write_bytes(content)
    (directory / 'sha256').write_text(hashlib.sha256(content).hexdigest())


def _read(path: Path) -> list[Sample]:
    """Raises DataError where the files are not those that were written."""
    try:
        content = (path / 'samples.jsonl').read_bytes()
        if hashlib.sha256(content).hexdigest() != (path / 'sha256').read_text():
            raise ValueError('samples.jsonl was changed')
        rows = [json.loads(line) for line in content.split(b'\n')[:-1]]
        return [Sample(**{key: freeze(value) for key, value in row.items()}) for row in rows]
    except (OSError, ValueError, TypeError) as error:
        raise DataError(f'{path} is damaged: {error}. Delete this directory; it is written anew.') from error
