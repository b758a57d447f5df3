"""``lcx generate``: text from a run or a converted model, written to stdout as it comes.

lcx generate --init=models/smollm2 --prompt="The capital of France is"
lcx generate --init=runs/base --prompt_file=book.txt --tokens=256 --config.cache.name=streaming
head -c 9000 book.txt | lcx generate --init=models/smollm2 --config.generate.temperature=0.8 --config.generate.top_p=0.9

The prompt is --prompt, the file of --prompt_file or else stdin, as it is: nothing is put before it or after it. The
text ends at --tokens or where the model ends it. A line on stderr says how long prompt and text took, compilation not
counted, and what the cache held. Nothing is written to disk. Overrides with --config.FIELD=VALUE change the
configuration of the run: model, cache, generate and seed; configs/base.py explains them. Extension methods without a
factor take that of the whole generation, for which the prompt counts as the next power of two, at least 64.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from absl import flags as absl_flags

from lcx.errors import ConfigError
from lcx.launch import flags as shared
from lcx.launch import origin


def define(flags: absl_flags.FlagValues, argv: Sequence[str]) -> list[str]:
    """Adds the verb's flags. The fields that can be overridden are those of the run's own configuration."""
    meaning = 'Run, by its newest checkpoint, or Hugging Face directory that writes.'
    words = origin.define(flags, argv, 'generate', {'init': meaning})
    for name, text in (
        ('prompt', 'The text that is continued.'),
        ('prompt_file', 'Instead, a file with it, UTF-8. With neither, stdin.'),
    ):
        absl_flags.DEFINE_string(name, None, text, flag_values=flags)
    absl_flags.DEFINE_integer('tokens', 128, 'The most tokens that are written.', flag_values=flags)
    absl_flags.DEFINE_bool('echo', False, 'Whether the prompt is written, too.', flag_values=flags)
    return words


def run(flags: absl_flags.FlagValues, arguments: list[str]) -> None:
    """Writes the text. Raises ConfigError before anything is loaded."""
    from lcx.data.tokenizers import make_tokenizer
    from lcx.generate.loop import Plan
    from lcx.launch.experiment import experiment_config
    from lcx.launch.start import prepare
    from lcx.launch.writing import say, too_long, write

    shared.no_arguments(arguments)
    source = Path(shared.required(flags, 'init', 'runs/base'))
    if flags.tokens < 1:
        raise ConfigError(f'--tokens: {flags.tokens} must be at least 1.')
    name, text = given(flags)
    found = origin.find(source)
    values, model = origin.applied(found.model, flags.config)
    origin.check_tokenizer(found.path, values)
    config = experiment_config(values)
    tokenizer = make_tokenizer(config.data.tokenizer)
    ids = tokenizer.encode(text)
    if not len(ids):
        raise ConfigError(f'{name}: empty; there is nothing to continue.')
    plan = Plan.of(
        model,
        [ids],
        new=flags.tokens,
        sampling=config.generate.sampling,
        cache=config.cache,
        chunk=config.generate.chunk,
        eos=tokenizer.eos,
    )
    if too_long(plan, len(ids)):
        say(
            f'lcx: warning: {len(ids)} + {flags.tokens} tokens are more than the {model.trained_length} that the model '
            'was trained at, and plain rope does not reach beyond; --config.model.position.name=yarn may.'
        )
    prepare()
    write(plan, found.params(model), tokenizer, ids, config.seed, echo=text if flags.echo else '')


def given(flags: absl_flags.FlagValues) -> tuple[str, str]:
    """Where the prompt comes from, and the prompt. Raises ConfigError if it comes from nowhere, or from two places."""
    if flags.prompt is not None and flags.prompt_file is not None:
        raise ConfigError('--prompt and --prompt_file: give one of them.')
    if flags.prompt is not None:
        return '--prompt', flags.prompt
    if flags.prompt_file is not None:
        path = Path(flags.prompt_file)
        if not path.is_file():
            near = shared.nearest_file(flags.prompt_file, '*')
            raise ConfigError(f'--prompt_file: {flags.prompt_file!r} is not a file.{near}')
        return '--prompt_file', decoded('--prompt_file', path.read_bytes())
    if sys.stdin is None or sys.stdin.isatty():
        raise ConfigError('no prompt: give --prompt=TEXT, --prompt_file=FILE, or the text on stdin.')
    return 'stdin', decoded('stdin', sys.stdin.buffer.read())


def decoded(name: str, content: bytes) -> str:
    """The text of UTF-8; raises ConfigError for other bytes."""
    try:
        return content.decode()
    except UnicodeDecodeError as error:
        raise ConfigError(f'{name}: not UTF-8: byte {content[error.start]:#04x} at {error.start}.') from None
