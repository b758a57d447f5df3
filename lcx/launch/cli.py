"""``lcx VERB [flags]``: finds the verb, parses its flags, and turns every error into one message and one exit code."""

from __future__ import annotations

import gc
import importlib
import os
import signal
import sys
import traceback

from absl import flags as absl_flags

from lcx.errors import ConfigError, LcxError, Preempted, unknown
from lcx.launch import distributed
from lcx.launch import flags as shared

# Each verb is a module of this package, its hyphens underscores, with define(flags, argv) and run(flags, arguments).
VERBS = {
    'train': 'train an experiment, or continue it: lcx train --config=FILE --workdir=DIR',
    'eval': 'evaluate a trained workdir, with other settings if wanted: lcx eval --workdir=DIR',
    'sweep': 'run a list of experiments, skipping finished ones: lcx sweep --sweep=FILE --workdir=DIR',
    'search-factors': 'search the factors of LongRoPE: lcx search-factors --init=RUN --workdir=DIR --length=TOKENS',
    'bench': 'race attention implementations: lcx bench attention --workdir=DIR',
    'convert': 'models in and out, in the form of transformers: lcx convert --src=smollm2 --dst=DIR',
    'generate': 'continue a text: lcx generate --init=DIR --prompt=TEXT',
    'attention': 'what heads attend to in a text: lcx attention --init=DIR --prompt=TEXT --workdir=DIR',
    'report': 'tables and figures of results: lcx report DIR...',
    'plan': 'what training takes of each device, before anything is allocated: lcx plan --config=FILE --devices=8',
    'data': 'prepare and describe a data source: lcx data --config=FILE',
}

HELP = '--help', '-help', '-h'

# New objects after which Python looks for garbage: 700 by default. Tracing makes a great many and drops few, and JAX
# looks through its own on each occasion. The smallest run is 12 % faster so, tests that compile 17 to 28 %.
YOUNG = 50_000

OUT_OF_MEMORY = """out of memory: {error}
What helps, most first: a smaller batch with optimizer.accumulate raised alike (stages[i].batch), recomputation
(model.remat=full), a shorter length, fewer tokens scored at a time (loss.chunk, eval.tokens)."""


def main(argv: list[str] | None = None) -> None:
    """The console script; ends the process with one of the exit codes of :mod:`lcx.errors`."""
    gc.set_threshold(YOUNG)
    sys.exit(run(sys.argv if argv is None else argv))


def run(argv: list[str]) -> int:
    """Runs one command line and returns its exit code."""
    before, sys.argv = sys.argv, argv  # flags of config files look for their overrides in sys.argv
    handler = signal.signal(signal.SIGTERM, stopped)
    try:
        dispatch(argv)
    except LcxError as error:
        return failed(error.exit_code, f'lcx: {error}')
    except BrokenPipeError:  # whoever read the output, head or a pager, has seen enough
        os.dup2(
            os.open(os.devnull, os.O_WRONLY), 1
        )  # what is still buffered goes nowhere, and raises nothing
        return 141
    except KeyboardInterrupt:
        return failed(130, 'lcx: interrupted; the same command continues.')
    except Exception as error:
        if 'RESOURCE_EXHAUSTED' in str(error) or isinstance(error, MemoryError):
            return failed(3, 'lcx: ' + OUT_OF_MEMORY.format(error=str(error).splitlines()[0]))
        return failed(1, traceback.format_exc())
    finally:
        sys.argv = before
        signal.signal(signal.SIGTERM, handler)
    return 0


def failed(code: int, message: str) -> int:
    """Tells the user, and the other processes of the run if there are any: then this ends the process."""
    code, message = distributed.cause(code, message)
    print(message.rstrip('\n'), file=sys.stderr)
    distributed.leave(code, message)
    return code


def stopped(*_: object) -> None:
    """SIGTERM outside the training loop, which saves first: ends the command as any error would, locks released."""
    raise Preempted('stopped before anything was lost; start the same command again.')


def dispatch(argv: list[str]) -> None:
    """Finds the verb and runs it; raises ConfigError for command lines that mean nothing."""
    if len(argv) < 2 or argv[1] in ('help', *HELP):
        print(usage())
        return
    verb = argv[1]
    if verb not in VERBS:
        raise ConfigError(unknown('verb', verb, VERBS))
    module = importlib.import_module(f'lcx.launch.{verb.replace("-", "_")}')
    flags = absl_flags.FlagValues()
    if not set(HELP).isdisjoint(argv[2:]):  # whatever else is there: nothing is looked for to show it
        module.define(flags, [])
        print(f'{module.__doc__}\nFlags:\n{shared.help_text(flags)}')
        return
    words = module.define(flags, argv[2:])
    module.run(flags, parse(flags, [f'lcx {verb}', *(argv[2:] if words is None else words)]))


def parse(flags: absl_flags.FlagValues, argv: list[str]) -> list[str]:
    """Parses ``argv`` into ``flags`` and returns what is not a flag; errors of flags become ConfigErrors."""
    try:
        shared.check_config_flags(flags, argv[1:])
        return flags(argv)[1:]
    except LcxError:
        raise
    except absl_flags.UnrecognizedFlagError as error:
        raise ConfigError(unknown('flag', f'--{error.flagname}', [f'--{n}' for n in flags])) from error
    except absl_flags.IllegalFlagValueError as error:
        own = str(error).startswith('flag --config')  # of which ml_collections repeats the whole command line
        raise ConfigError(shared.innermost(error) if own else f'{error}.') from error
    except Exception as error:  # the config file is the user's program, and may raise anything
        raise ConfigError(shared.innermost(error)) from error


def usage() -> str:
    """The verbs, a line each."""
    lines = '\n'.join(f'  {name:16}{text}' for name, text in VERBS.items())
    return f'lcx VERB [flags]: context-length extension experiments.\n\n{lines}\n\nlcx VERB --help shows its flags.'
