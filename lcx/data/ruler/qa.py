"""Questions on documents: those that hold the answer are among others of the same data set.

    Answer the question based on the given documents. Only give me the answer and do not output any other words.

    The following are given documents.

    Document 1:
    [...]

    Answer the question based on the given documents. Only give me the answer and do not output any other words.

    Question: In what country is Normandy located? Answer:

Wording, arguments and the order of questions are RULER's (qa.py). The data are the user's, in their
authors' layout: SQuAD, Rajpurkar et al. 2018 (dev-v2.0.json; 1.1 reads too), and HotpotQA, Yang et al. 2018
(hotpot_dev_distractor_v1.json). Documents of the same article are added first, where there are articles.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np

from lcx.data.ruler.api import Body, Draft, Given
from lcx.errors import DataError

TEMPLATE = (
    'Answer the question based on the given documents. Only give me the answer and do not output any other words.\n\n'
    'The following are given documents.\n\n{context}\n\n'
    'Answer the question based on the given documents. Only give me the answer and do not output any other words.\n\n'
    'Question: {question}'
)
PREFIX = ' Answer:'
DOCUMENT = 'Document {number}:\n{text}'
SEPARATOR = '\n\n'


class Question(NamedTuple):
    """``needed`` and ``related`` are numbers of documents."""

    text: str
    answers: tuple[str, ...]
    needed: list[int]
    related: list[int]


Questions = tuple[list[Question], list[str]]  # and documents


def squad(data: Mapping[str, Any]) -> Questions:
    """Those of SQuAD that can be answered; a document is a paragraph, related if of the same article."""
    articles = [[paragraph['context'] for paragraph in article['paragraphs']] for article in data['data']]
    documents = sorted({text for article in articles for text in article})
    number = {text: i for i, text in enumerate(documents)}
    questions = []
    for article, texts in zip(data['data'], articles):
        for paragraph in article['paragraphs']:
            here = number[paragraph['context']]
            related = list(dict.fromkeys(number[text] for text in texts if number[text] != here))
            for entry in paragraph['qas']:
                if entry['answers'] and not entry.get('is_impossible', False):
                    answers = tuple(dict.fromkeys(answer['text'] for answer in entry['answers']))
                    questions.append(Question(entry['question'], answers, [here], related))
    return questions, documents


def hotpotqa(data: list[Mapping[str, Any]]) -> Questions:
    """Those of HotpotQA; a document is a title and its sentences. Needed are all of a question's, distractors too."""
    contexts = [[f'{title}\n{"".join(sentences)}' for title, sentences in entry['context']] for entry in data]
    documents = sorted({text for texts in contexts for text in texts})
    number = {text: i for i, text in enumerate(documents)}
    questions = [
        Question(entry['question'], (entry['answer'],), list(dict.fromkeys(number[t] for t in texts)), [])
        for entry, texts in zip(data, contexts)
    ]
    return questions, documents


LAYOUTS: Mapping[str, tuple[str, Callable[[Any], Questions]]] = {  # what is published, and what reads it
    'squad': ('dev-v2.0.json of SQuAD', squad),
    'hotpotqa': ('hotpot_dev_distractor_v1.json of HotpotQA', hotpotqa),
}


@dataclasses.dataclass(frozen=True)
class QuestionAnswering:
    """See the module. Facts: ``documents``, how many there are, and ``places``, from 0, of those needed."""

    layout: str

    generate: ClassVar[int] = 32
    metric: ClassVar[str] = 'string_match_part'
    needs: ClassVar[str] = 'file'

    @property
    def asks(self) -> str:
        """See :class:`lcx.data.ruler.api.Task`."""
        return f'{LAYOUTS[self.layout][0]}, by its path; it is not part of lcx'

    def drafts(self, given: Given) -> Callable[[list[int]], Draft]:
        """See :class:`lcx.data.ruler.api.Task`."""
        questions, documents = opened(given.name, self.layout, given.file)
        frame = len(given.tokenizer.encode(SEPARATOR + DOCUMENT.format(number=100, text='')))
        known: dict[int, int] = {}

        def size_of(document: int) -> int:
            if document not in known:
                known[document] = len(given.tokenizer.encode(documents[document])) + frame
            return known[document]

        def draft(seed: list[int]) -> Draft:
            if seed[-1] >= len(questions):
                raise DataError(
                    f'{given.name}: {given.file} has {len(questions)} questions; ask for no more samples.'
                )
            question = questions[seed[-1]]
            random = np.random.default_rng(seed)
            order = ordered(question, len(documents), random)
            total = [0]
            for document in order:  # twice the room, whatever the sizes turn out to be together
                total.append(total[-1] + size_of(document))
                if total[-1] > 2 * given.room and len(total) > len(question.needed):
                    break
            keys = random.random(len(total) - 1)  # documents are sorted by them

            def build(n: int) -> Body:
                shown = np.argsort(keys[:n])
                places = np.argsort(shown)[: len(question.needed)]
                texts = [
                    DOCUMENT.format(number=i, text=documents[order[at]])
                    for i, at in enumerate(shown, start=1)
                ]
                prompt = TEMPLATE.format(context=SEPARATOR.join(texts), question=question.text)
                return Body(prompt, PREFIX, question.answers, {'documents': n, 'places': places.tolist()})

            return Draft(
                least=len(question.needed),
                most=len(total) - 1,
                size=lambda n: total[n],
                build=build,
                ends=given.file if len(total) - 1 == len(order) else None,
            )

        return draft


def ordered(question: Question, count: int, random: np.random.Generator) -> list[int]:
    """All documents: first those needed, then the related ones and the others, each in random order."""
    first = [*question.needed, *random.permutation(question.related).astype(int).tolist()]
    others = np.setdiff1d(np.arange(count), first)
    return [*first, *random.permutation(others).tolist()]


def opened(name: str, layout: str, file: str | None) -> Questions:
    """What a file in one of :data:`LAYOUTS` holds.

    Raises:
      DataError: it is unreadable or of another layout; the message says what to give.
    """
    published, read = LAYOUTS[layout]
    try:
        questions, documents = read(json.loads(Path(file).expanduser().read_text(encoding='utf-8')))
        if not questions:
            raise ValueError('no question in it has an answer')
    except OSError as error:
        raise DataError(f'{name}: {file} cannot be read: {error.strerror}. Give {published}.') from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(f'{name}: {file} does not read as {published}: {error!r}.') from error
    return questions, documents
