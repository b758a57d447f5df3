"""The attention that every device computes by itself, and the refusals that the strategies share."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple, NoReturn

from lcx.attention import ATTENTION, GRADIENTS, PARTIAL
from lcx.attention.api import bound
from lcx.errors import ConfigError, UnsupportedError


class Kernel(NamedTuple):
    """An implementation of :data:`lcx.attention.ATTENTION` with its options bound; see :mod:`lcx.attention.api`."""

    name: str
    lse: bool  # whether (out, lse) is asked for, or out alone
    whole: Callable  # gives what is asked for
    partial: Callable | None  # (out, lse); None: the implementation does not know the log-sum-exp
    gradients: Callable | None

    @classmethod
    def of(cls, options: Mapping, lse: bool) -> Kernel:
        """Raises :class:`~lcx.errors.ConfigError` for an unknown name or option, or where ``lse`` cannot be had."""
        attend, name = bound(ATTENTION, options), options['name']
        if name not in PARTIAL:
            if lse:
                raise ConfigError(
                    f'attention.name: {name!r} gives no log-sum-exp. Choices: {", ".join(sorted(PARTIAL))}.'
                )
            return cls(name, lse, attend, None, None)
        beyond = ('lse', 'delta', 'd_out')
        partial, gradients = bound(PARTIAL, options), bound(GRADIENTS, options, beyond=beyond)
        return cls(name, lse, partial if lse else attend, partial, gradients)


def refuse(strategy: str, what: str, why: str, choices: Iterable[str]) -> NoReturn:
    """Raises UnsupportedError, a ConfigError: what ``strategy`` is asked for, why it cannot, and who can."""
    raise UnsupportedError(
        f'sequence {strategy!r} cannot do {what}: {why}. Choose sequence: {", ".join(choices)}.'
    )
