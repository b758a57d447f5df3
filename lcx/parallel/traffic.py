"""What a compiled program sends between devices, read out of its text.

    collective_bytes(jax.jit(f).lower(*x).compile().as_text())  ->  {'collective-permute': 917504}

The bytes that the busiest device sends in one run, for R bytes of result on each of g devices of a group, by the ring
algorithms that bandwidth allows at best:

    all-gather  R (g - 1)/g      all-reduce  2 R (g - 1)/g      reduce-scatter  R (g - 1)      all-to-all  R (g - 1)/g
    collective-permute  R
"""

from __future__ import annotations

import functools
import re
from collections import Counter
from typing import NamedTuple

SENT = {
    'all-gather': lambda size, group: size * (group - 1) // group,
    'all-reduce': lambda size, group: 2 * size * (group - 1) // group,
    'reduce-scatter': lambda size, group: size * (group - 1),
    'all-to-all': lambda size, group: size * (group - 1) // group,
    'collective-permute': lambda size, group: size,
}
# The type of an operation that is only begun holds what goes in, too.
STARTED = {
    'all-gather': lambda size, group: size * group // (group + 1),
    'collective-permute': lambda size, group: size // 2,
}

_COMPUTATION = re.compile(r'^(ENTRY )?%?([\w.-]+) \(.*\{$')
_OPERATION = re.compile(r'^\s+(?:ROOT )?%?[\w.-]+ = (.*?) ([a-z][a-z-]*)\((.*)$')
_ARRAY = re.compile(r'([a-z]+)(\d*)\w*\[([\d,]*)\]')
_CALLED = re.compile(r'(?:calls|to_apply|body)=%?([\w.-]+)')
_BRANCHES = re.compile(r'branch_computations=\{([^}]*)\}|(?:true|false)_computation=%?([\w.-]+)')
_TRIPS = re.compile(r'"known_trip_count":\{"n":"(\d+)"\}')
_GROUPS = re.compile(r'replica_groups=(?:\{\{([\d,]*)\}|\[\d+,(\d+)\])')
_DEVICES = re.compile(r'num_partitions=(\d+)')


class Operation(NamedTuple):
    """One line of a computation: the type of its result, its name, and the rest of the line."""

    shape: str
    name: str
    rest: str


def collective_bytes(text: str) -> Counter[str]:
    """Bytes sent by kind of collective in one run of a compiled program, loops counted as often as they turn.

    Raises ValueError if something is sent in a loop of unknown length. Of branches the one that sends most counts.
    """
    entry, computations = _parse(text)
    found = _DEVICES.search(text)
    devices = int(found[1]) if found else 1

    @functools.cache
    def total(name: str) -> Counter[str]:
        sent = Counter()
        for operation in computations.get(name, ()):
            sent += _sent(operation, devices)
            inside = sum((total(called) for called in _CALLED.findall(operation.rest)), Counter())
            trips = _TRIPS.search(operation.rest)
            if operation.name == 'while' and inside and not trips:
                raise ValueError(f'{name}: {dict(inside)} is sent in a loop of unknown length.')
            turns = int(trips[1]) if trips else 1
            sent += Counter({kind: turns * size for kind, size in inside.items()})
            sent += max(
                (total(branch) for branch in _branches(operation.rest)), key=Counter.total, default=Counter()
            )
        return sent

    return total(entry)


def _parse(text: str) -> tuple[str, dict[str, list[Operation]]]:
    """The name of the entry computation, and the operations of all computations."""
    entry, here, computations = '', [], {}
    for line in text.splitlines():
        if header := _COMPUTATION.match(line):
            here = computations[header[2]] = []
            entry = header[2] if header[1] else entry
        elif operation := _OPERATION.match(line):
            here.append(Operation(*operation.groups()))
    return entry, computations


def _branches(rest: str) -> list[str]:
    return [
        name.strip().lstrip('%')
        for several, one in _BRANCHES.findall(rest)
        for name in (several.split(',') if several else [one])
    ]


def _sent(operation: Operation, devices: int) -> Counter[str]:
    kind = operation.name.removesuffix('-start')
    if kind not in SENT:
        return Counter()
    found = _GROUPS.search(operation.rest)
    group = devices if not found else int(found[2]) if found[2] else found[1].count(',') + 1
    size = sum(map(_bytes, _ARRAY.findall(operation.shape)))
    if kind != operation.name and kind in STARTED:
        size = STARTED[kind](size, group)
    return Counter({kind: SENT[kind](size, group)})


def _bytes(array: tuple[str, str, str]) -> int:
    """Of ('f', '32', '2,3'); numbers without axes are what operations are kept apart by."""
    _, bits, axes = array
    if not axes:
        return 0
    count = functools.reduce(lambda a, b: a * int(b), axes.split(','), 1)
    return -(-count * int(bits or 8) // 8)
