"""Rules by name, as configuration writes them: ``{'name': 'window', 'size': 1024}``.

    {'name': 'either', 'rules': ({'name': 'window', 'size': 1024}, {'name': 'sinks', 'count': 4})}

``both`` and ``either`` nest. The arguments of the functions in ``RULES`` are the options.
"""

from __future__ import annotations

from collections.abc import Mapping

from lcx import config
from lcx.attention import masks, patterns
from lcx.attention.masks import Rule


def _both(*, rules: tuple) -> Rule:
    return masks.both(*_each(rules))


def _either(*, rules: tuple) -> Rule:
    return masks.either(*_each(rules))


def _each(rules: tuple) -> list[Rule]:
    return [from_options(options, f'rules[{i}]') for i, options in enumerate(rules)]


RULES = {
    'causal': lambda: masks.causal,
    'window': masks.window,
    'sinks': masks.sinks,
    'prefix': masks.prefix,
    'same_segment': lambda: masks.same_segment,
    'chunked': patterns.chunked,
    'shifted_groups': patterns.shifted_groups,
    'dilated': patterns.dilated,
    'strided': patterns.strided,
    'global_tokens': patterns.global_tokens,
    'random_blocks': patterns.random_blocks,
    'both': _both,
    'either': _either,
}


def from_options(options: Mapping, path: str = 'rule') -> Rule:
    """The rule that ``{'name': ..., **numbers}`` describes.

    Raises :class:`~lcx.errors.ConfigError` naming ``path``, the option and the nearest valid choice.
    """
    return config.make(RULES, options, path)
