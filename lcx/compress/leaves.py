"""Leaves of nested dicts of parameters by their names, 'layers/full_0/mixer/query/kernel', and patterns for names."""

from __future__ import annotations

import fnmatch
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from flax import traverse_util

from lcx.errors import ConfigError, unknown
from lcx.types import Tree


def named(tree: Tree) -> dict[str, Any]:
    """The leaves by name. What is no dict counts as a leaf."""
    return traverse_util.flatten_dict(tree, sep='/')


def nested(leaves: Mapping[str, Any]) -> Tree:
    """The inverse."""
    return traverse_util.unflatten_dict(leaves, sep='/')


def split(tree: Tree, chosen: Callable[[str], bool]) -> tuple[Tree, Tree]:
    """``(the leaves whose names are chosen, the others)``, each without the branches that it has none of."""
    leaves = named(tree)
    first = {name: x for name, x in leaves.items() if chosen(name)}
    return nested(first), nested({name: x for name, x in leaves.items() if name not in first})


def join(*trees: Tree) -> Tree:
    """One tree of the leaves of all; undoes :func:`split`."""
    return nested({name: x for tree in trees for name, x in named(tree).items()})


def every(name: str) -> bool:
    """Chooses every leaf."""
    del name
    return True


def matches(patterns: Iterable[str], name: str) -> bool:
    """Whether a pattern covers one or more whole parts of the name, in a row; ``*`` stands for anything.

    'mixer/query' and 'layers/*/query' match 'layers/full_0/mixer/query/kernel'; 'mixer/q' does not. '*norm*' matches
    all norms, 'embedding' the embedding.
    """
    return any(fnmatch.fnmatchcase(f'/{name}/', f'*/{pattern}/*') for pattern in patterns)


def check(patterns: Iterable[str], names: Iterable[str], field: str) -> None:
    """Raises a ConfigError for the first pattern of ``field`` that matches none of ``names``."""
    names = list(names)
    for pattern in patterns:
        if not any(matches([pattern], name) for name in names):
            raise ConfigError(unknown(field, pattern, names))
