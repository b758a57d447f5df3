"""The position methods of the registry as a table, and the frequencies of those that rotate, for a figure.

What ``lcx report --positions`` shows. The figure's setting is one extension: theta 10,000, trained at 4096
tokens, used at 32,768.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import jax.numpy as jnp
import numpy as np

from lcx import attention
from lcx.about import About
from lcx.config import make
from lcx.positions import ABOUT, POSITIONS, Position, dynamic_ntk, ntk, ntk_by_parts, p_rope, pi, rope, yarn
from lcx.viz.positions import Curve

HEAD_DIMS = (64, 128)
THETA, TRAINED, LENGTH = 10000.0, 4096, 32768
FACTOR = LENGTH / TRAINED

# What the methods that have options without a default need, to be made at all.
EXAMPLES = {
    'longrope': {'short_factor': (1.0,) * 32, 'long_factor': (FACTOR,) * 32},
    'pose': {'target_length': LENGTH},
    'random_float': {'target_length': LENGTH},
    'randomized': {'target_length': LENGTH},
    'shape': {'max_offset': TRAINED},
}

TRAINING = {'none': 'no', 'tune': 'tuning', 'scratch': 'from scratch'}
HEAD = ('method', 'what it does', 'paper', 'needs training', 'static', 'cost', '`rope_type`')


def _by_turns(head_dim: int, beta_fast: float, beta_slow: float) -> rope.Frequencies:
    share = ntk_by_parts.ramp(head_dim, THETA, TRAINED, beta_fast, beta_slow)
    return yarn.frequencies(head_dim, THETA, FACTOR, share, 1.0)


def _yarn(head_dim: int) -> rope.Frequencies:
    share = yarn.ramp(head_dim, THETA, TRAINED, 32.0, 1.0, True)
    return yarn.frequencies(head_dim, THETA, FACTOR, share, yarn.attention_scale(FACTOR, None, None))


# Methods that are frequencies and no more, by head size. That of LongRoPE are lists, not a formula.
FREQUENCIES: dict[str, Callable[[int], rope.Frequencies]] = {
    'rope': lambda h: rope.frequencies(h, THETA),
    'pi': lambda h: pi.frequencies(h, THETA, FACTOR),
    'ntk': lambda h: ntk.frequencies(h, THETA, FACTOR),
    'dynamic_ntk': lambda h: dynamic_ntk.frequencies(h, THETA, 1.0, TRAINED, jnp.full((1, 1, 1), LENGTH)),
    'ntk_by_parts': lambda h: _by_turns(h, 32.0, 1.0),
    'yarn': _yarn,
    'llama3': lambda h: _by_turns(h, 4.0, 1.0),
    'p_rope': lambda h: p_rope.frequencies(h, THETA, 0.75, 1.0),
}


def table() -> str:
    """Every method of the registries as GitHub Markdown: positions, regions, and the mixer that has positions.

    'static' methods look the same at every length of the text; with the others, a token's vectors depend on
    the length of its row. '`rope_type`' is the name in Hugging Face configs.
    """
    rows = [_row(f'`{name}`', about, example(name).static) for name, about in ABOUT.items()]
    for name, about in attention.ABOUT.items():
        field = 'regions' if name in attention.REGIONS else 'mixer'
        rows.append(_row(f'`{name}` ({field})', about, static=True))
    rule = ('---',) * len(HEAD)
    return ''.join(f'| {" | ".join(row)} |\n' for row in (HEAD, rule, *rows))


def _row(name: str, about: About, static: bool) -> tuple[str, ...]:
    hf = f'`{about.hf}`' if about.hf else '-'
    words = 'yes' if static else 'no'
    return name, about.what, about.paper, TRAINING[about.trained], words, about.cost, hf


def example(name: str) -> Position:
    """The method with its own defaults, in a model of head size 64."""
    sizes = {'head_dim': HEAD_DIMS[0], 'heads': 8, 'width': 512, 'length': LENGTH, 'trained_length': TRAINED}
    return make(POSITIONS, {'name': name, **EXAMPLES.get(name, {})}, name, **sizes)


def curves(head_dim: int) -> list[Curve]:
    """The methods of :data:`FREQUENCIES` at one head size, RoPE first."""
    found = []
    for name, compute in FREQUENCIES.items():
        inv_freq, scale = compute(head_dim)
        with np.errstate(divide='ignore'):
            found.append(Curve(name, 2 * math.pi / np.float64(inv_freq).reshape(-1), scale))
    return found
