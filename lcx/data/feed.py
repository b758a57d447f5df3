"""What a run trains on: the text of a source, or a synthetic task."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import NamedTuple

from lcx.data.config import DataConfig
from lcx.data.lra import Arena
from lcx.data.pipeline import BatchIterator, batches, task_batches
from lcx.data.tasks import FORMS, TASKS, Task
from lcx.data.tokenizers import Tokenizer, make_tokenizer
from lcx.data.tokens import open_tokens


class Feed(NamedTuple):
    """Training batches, and what a run remembers and tells of where they come from."""

    batches: Callable[..., BatchIterator]  # (*, length, batch, seed, mine)
    fingerprint: str  # changes when the data do
    words: str  # for people


def open_task(config: DataConfig, split: str, tokenizer: Tokenizer) -> Task | None:
    """The task that is the source, in the form that is asked for; None if the source is text.

    One that has examples in files has those of ``split``.

    Raises ConfigError for a task that the tokenizer cannot spell, DataError for files that are missing or malformed.
    """
    if config.arena is not None:
        return Arena(tokenizer, config.arena, config.files[0], split)
    return None if config.task is None else FORMS[config.form](TASKS[config.task](tokenizer))


def open_feed(config: DataConfig) -> Feed:
    """The training split of ``config``, prepared on first use.

    Raises what :func:`lcx.data.tokens.open_tokens` raises, and ConfigError for a task that the tokenizer cannot spell.
    """
    task = open_task(config, 'train', make_tokenizer(config.tokenizer))
    if task is not None:
        return Feed(functools.partial(task_batches, task), task.fingerprint, f'the task {task.name!r}')
    tokens = open_tokens(config, 'train')
    words = f'{len(tokens)} documents of {tokens.label} ({tokens.bytes / 1e6:.1f} MB)'
    return Feed(functools.partial(batches, tokens, packing=config.packing), tokens.fingerprint, words)
