"""``lcx VERB [flags]``: finds the verb, parses its flags, and turns every error into one message and one exit code."""

from __future__ import annotations

import importlib
import sys
import traceback

from absl import flags as absl_flags

from lcx.errors import ConfigError, LcxError, unknown

# Each verb is a module of this package with define(flags, argv) and run(flags, arguments).
VERBS = {
    'train': 'train an experiment, or continue it: lcx train --config=FILE --workdir=DIR',
    'eval': 'evaluate a trained workdir, with other settings if wanted: lcx eval --workdir=DIR',
    'sweep': 'run a list of experiments, skipping finished ones: lcx sweep --sweep=FILE --workdir=DIR',
    'report': 'tables and figures of results: lcx report DIR...',
    'data': 'prepare and describe a data source: lcx data --config=FILE',
}

OUT_OF_MEMORY = """out of memory: {error}
What helps, most first: a smaller batch with optimizer.accumulate raised alike (stages[i].batch), recomputation
(model.remat=full), a shorter length, fewer tokens scored at a time (loss.chunk, eval.tokens)."""


def main(argv: list[str] | None = None) -> None:
    """The console script; ends the process with one of the exit codes of :mod:`lcx.errors`."""
    sys.exit(run(sys.argv if argv is None else argv))


def run(argv: list[str]) -> int:
    """Runs one command line and returns its exit code."""
    try:
        dispatch(argv)
    except LcxError as error:
        print(f'lcx: {error}', file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print('lcx: interrupted; the same command continues.', file=sys.stderr)
        return 130
    except Exception as error:
        if 'RESOURCE_EXHAUSTED' in str(error) or isinstance(error, MemoryError):
            print('lcx: ' + OUT_OF_MEMORY.format(error=str(error).splitlines()[0]), file=sys.stderr)
            return 3
        traceback.print_exc()
        return 1
    return 0


def dispatch(argv: list[str]) -> None:
    """Finds the verb and runs it; raises ConfigError for command lines that mean nothing."""
    if len(argv) < 2 or argv[1] in ('help', '-h', '--help', '-help'):
        print(usage())
        return
    verb = argv[1]
    if verb not in VERBS:
        raise ConfigError(unknown('verb', verb, VERBS))
    module = importlib.import_module(f'lcx.launch.{verb}')
    flags = absl_flags.FlagValues()
    absl_flags.DEFINE_bool('help', False, 'Show this help.', short_name='h', flag_values=flags)
    module.define(flags, argv[2:])
    arguments = parse(flags, [f'lcx {verb}', *argv[2:]])
    if flags.help:
        print(f'{module.__doc__}\nFlags:\n{flags.get_help()}')
        return
    module.run(flags, arguments)


def parse(flags: absl_flags.FlagValues, argv: list[str]) -> list[str]:
    """Parses ``argv`` into ``flags`` and returns what is not a flag; errors of flags become ConfigErrors."""
    before, sys.argv = sys.argv, argv  # config files' flags look for their overrides in sys.argv
    try:
        return flags(argv)[1:]
    except absl_flags.UnrecognizedFlagError as error:
        raise ConfigError(unknown('flag', f'--{error.flagname}', [f'--{n}' for n in flags])) from error
    except (AttributeError, KeyError) as error:  # an override of a field that the config does not have
        raise ConfigError(str(error).strip('"\'')) from error
    except (absl_flags.Error, ValueError, TypeError, SyntaxError, OSError, ImportError) as error:
        raise ConfigError(f'{type(error).__name__}: {error}' if not str(error) else str(error)) from error
    finally:
        sys.argv = before


def usage() -> str:
    """The verbs, a line each."""
    lines = '\n'.join(f'  {name:8}{text}' for name, text in VERBS.items())
    return f'lcx VERB [flags]: context-length extension experiments.\n\n{lines}\n\nlcx VERB --help shows its flags.'
