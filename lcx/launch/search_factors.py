"""``lcx search-factors``: search the rescale factors of LongRoPE for a trained run, without training anything.

lcx search-factors --init=runs/base --workdir=runs/factors --length=512
lcx search-factors --init=runs/base --workdir=runs/factors --length=512 --population=64 --iterations=40    # the paper's

The evolutionary search of arXiv:2402.13753 (lcx/positions/search.py says how) for the lowest perplexity of texts of
--length tokens, windows of the training split scored as ``lcx eval`` does: ``eval.windows`` of them, so that
evaluations on the validation split stay honest. The run must have been trained with RoPE, or with LongRoPE, whose long
list is then searched anew. One compiled program tries all lists.

    WORKDIR/results.jsonl   a row for each generation: best and mean perplexity
    WORKDIR/search.json     the newest generation, from which the same command goes on; --iterations may grow
    WORKDIR/factors.json    the best lists as fields of the configuration, and as flags for lcx eval and lcx train
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from absl import flags as absl_flags

from lcx.errors import ConfigError
from lcx.launch import flags as shared
from lcx.launch import origin

SMALLEST = 4  # lists in a generation: two parents and a child of each sort


def define(flags: absl_flags.FlagValues, argv: Sequence[str]) -> list[str]:
    """Adds the verb's flags."""
    shared.define_workdir(flags, 'Directory of the search: created, or continued if it holds this search.')
    meaning = 'Run, by its newest checkpoint, or Hugging Face directory whose factors are searched.'
    words = origin.define(flags, argv, 'search-factors', {'init': meaning})
    for name, default, meaning in (
        ('length', None, 'Tokens to extend to: a power of two beyond the original length.'),
        ('population', 16, 'Lists in a generation; 64 in the paper.'),
        ('iterations', 10, 'Generations after the first; 40 in the paper.'),
    ):
        absl_flags.DEFINE_integer(name, default, meaning, flag_values=flags)
    absl_flags.DEFINE_float(
        'attention_factor',
        None,
        'Scale of queries and keys with every list. Default: sqrt(1 + ln(factor) / ln(original length)).',
        flag_values=flags,
    )
    return words


def run(flags: absl_flags.FlagValues, arguments: list[str]) -> None:
    """Searches what is missing and writes factors.json. Raises ConfigError before anything starts."""
    from lcx.data.sources import validate
    from lcx.data.tokens import open_tokens
    from lcx.launch.experiment import experiment_config
    from lcx.launch.factors import Search, objective_of, searched_model
    from lcx.launch.start import start
    from lcx.launch.workdir import Workdir

    shared.no_arguments(arguments)
    target = origin.workdir(flags, 'runs/factors')
    source = Path(shared.required(flags, 'init', 'runs/base'))
    check(flags)
    found = origin.find(source)
    values, trained = origin.applied(found.model, flags.config)
    origin.check_tokenizer(found.path, values)
    config = experiment_config(values)
    validate(config.data)
    if config.data.draws:
        raise ConfigError(f'data.source: {config.data.source!r} is a task, and the search scores text.')
    model = searched_model(trained, flags.length, flags.attention_factor)
    with Workdir(target) as workdir:
        tokens = open_tokens(config.data, 'train')
        identity = {
            'init': str(source.absolute()),
            'step': found.step,
            'text': tokens.fingerprint,
            'windows': config.eval.windows,
            'length': flags.length,
            'population': flags.population,
            'seed': config.seed,
        }
        search = Search(workdir.path, identity, model, config.label)
        objective = objective_of(config, model, tokens, flags.length)
        start(workdir, config.seed)
        params = found.params(trained)
        search.run(lambda factors: objective(params, factors), flags.iterations)


def check(flags: absl_flags.FlagValues) -> None:
    """Raises ConfigError for a flag that means nothing, naming it, its value and what would do."""
    if flags.length is None:
        raise ConfigError('--length is required, for example --length=512')
    if flags.length < 1 or flags.length & (flags.length - 1):
        near = 1 << max(0, flags.length).bit_length()
        raise ConfigError(f'--length: {flags.length} is not a power of two; the next is {near}.')
    for name, least in (('population', SMALLEST), ('iterations', 1)):
        if flags[name].value < least:
            raise ConfigError(f'--{name}: {flags[name].value} must be at least {least}.')
    if flags.attention_factor is not None and not flags.attention_factor > 0:
        raise ConfigError(f'--attention_factor: {flags.attention_factor} must be greater than 0.')
