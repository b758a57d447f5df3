"""Flags that several verbs share."""

from __future__ import annotations

import difflib
import importlib.util
import re
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from absl import flags as absl_flags

from lcx.errors import ConfigError, LcxError, unknown

if TYPE_CHECKING:
    from ml_collections import ConfigDict


def define_config(flags: absl_flags.FlagValues) -> None:
    """``--config=FILE[:arg]`` with ``--config.FIELD=VALUE`` overrides."""
    from ml_collections import config_flags

    config_flags.DEFINE_config_file(
        'config',
        None,
        'Experiment configuration: FILE.py or FILE.py:smoke. Override any field with --config.FIELD=VALUE.',
        flag_values=flags,
    )


def define_overrides(
    flags: absl_flags.FlagValues, config: ConfigDict, words: Sequence[str], meaning: str
) -> None:
    """``--config.FIELD=VALUE`` for the fields of ``config``; raises ConfigError for an override that fits none."""
    from ml_collections import config_flags

    check_overrides(config, words)
    config_flags.DEFINE_config_dict(
        'config', config, f'{meaning} with --config.FIELD=VALUE.', flag_values=flags, sys_argv=list(words)
    )


def peek(words: Sequence[str], *names: str) -> tuple[dict[str, str | None], list[str]]:
    """The values of string flags that decide which others there are (None: not given), and the words without them."""
    flags = absl_flags.FlagValues()
    flags.set_gnu_getopt(True)
    for name in names:
        absl_flags.DEFINE_string(name, None, '', flag_values=flags)
    try:
        rest = flags(['lcx', *words], known_only=True)[1:]
    except absl_flags.Error as error:
        raise ConfigError(f'{error}.') from None
    return {name: flags[name].value for name in names}, rest


def overrides(words: Sequence[str]) -> list[str]:
    """The words of the form ``--config.FIELD=VALUE``."""
    return [word for word in words if word.lstrip('-').startswith('config.')]


def define_workdir(flags: absl_flags.FlagValues, meaning: str) -> None:
    """``--workdir=DIR``."""
    absl_flags.DEFINE_string('workdir', None, meaning, flag_values=flags)


def required(flags: absl_flags.FlagValues, name: str, example: str) -> str:
    """The flag's value, or a ConfigError that shows how to give it."""
    if not flags[name].value:
        raise ConfigError(f'--{name} is required, for example --{name}={example}')
    return flags[name].value


def no_arguments(arguments: list[str]) -> None:
    """Raises ConfigError for words that are not flags."""
    if arguments:
        raise ConfigError(f'{arguments[0]!r} is not a flag; flags are written --name=value.')


def check_config_flags(flags: absl_flags.FlagValues, words: Sequence[str]) -> None:
    """Raises ConfigError for a config file that is not there or fails, or for an override that fits no field.

    ml_collections finds the same errors later, but tells neither the whole path nor the value.
    """
    file = next((w.partition('=')[2] for w in words if w.lstrip('-').startswith('config=')), '')
    if file and 'config' in flags:
        check_overrides(load_config(file), words)


def check_overrides(config: ConfigDict, words: Sequence[str]) -> None:
    """Raises ConfigError for a word ``--config.FIELD=VALUE`` whose field or value does not fit ``config``."""
    for word in overrides(words):
        name, _, value = word.lstrip('-').partition('=')
        check_override(config, name.removeprefix('config.'), value)


def load_config(file: str) -> ConfigDict:
    """The configuration of ``FILE.py[:arg]``; raises ConfigError, whatever the file raises."""
    path, colon, argument = file.partition(':')
    try:
        module = load_module('config', path)
        return module.get_config(argument) if colon else module.get_config()
    except LcxError:
        raise
    except Exception as error:  # the file is the user's program
        raise ConfigError(innermost(error)) from error


def innermost(error: BaseException) -> str:
    """The words of the first cause: what absl and ml_collections wrap around it repeats the command line."""
    while error.__cause__ is not None or error.__context__ is not None:
        error = error.__cause__ or error.__context__
    return str(error) or type(error).__name__


def load_module(flag: str, path: str) -> ModuleType:
    """The Python file that ``--flag`` names, executed; raises ConfigError if it is not there."""
    if not Path(path).is_file():
        raise ConfigError(f'{flag}: {path!r} is not a file.{nearest_file(path)}')
    spec = importlib.util.spec_from_file_location(f'{flag}_file', path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def check_override(config: Any, path: str, value: str) -> None:
    """Raises ConfigError unless ``path`` (a.b[0].c) names a field of ``config`` that ``value`` can be."""
    at, kind = config, None
    for name, index in re.findall(r'(\w+)|\[(\d+)\]', path):
        if index:
            if not isinstance(at, (tuple, list)) or int(index) >= len(at):
                size = len(at) if isinstance(at, (tuple, list)) else 'no'
                raise ConfigError(f'{path}={value}: there are {size} entries, counted from 0.')
            at = at[int(index)]
            kind = type(at)
        else:
            fields = list(at.keys()) if hasattr(at, 'keys') else []
            if name not in fields:
                raise ConfigError(unknown(f'{path}={value}', name, fields or ['none: it is a value']))
            kind, at = at.get_type(name), at[name]
    parsers = {
        bool: absl_flags.BooleanParser(),
        int: absl_flags.IntegerParser(),
        float: absl_flags.FloatParser(),
    }
    if kind is type(None):
        raise ConfigError(f'{path}={value}: it is None here, and what it could be is not known.')
    if kind in parsers:
        try:
            parsers[kind].parse(value)
        except ValueError:
            raise ConfigError(
                f'{path}: {value!r} is not of type {kind.__name__}; it is {at!r} now.'
            ) from None


def help_text(flags: absl_flags.FlagValues) -> str:
    """One paragraph per flag of the verb, without absl's own."""
    lines = []
    for name in flags:
        flag = flags[name]
        if name == flag.name and name not in ('flagfile', 'undefok', 'help'):
            default = '' if flag.default is None or name == 'config' else f' Default: {flag.default_as_str}.'
            lines.append(f'  --{name}: {flag.help}{default}')
    return '\n'.join(lines)


def nearest_file(path: str, pattern: str = '*.py') -> str:
    """' Did you mean ...?' for a file of a similar name in the same directory."""
    directory = Path(path).parent
    names = [p.name for p in directory.glob(pattern)] if directory.is_dir() else []
    near = difflib.get_close_matches(Path(path).name, names, n=1)
    return f' Did you mean {str(directory / near[0])!r}?' if near else ''
