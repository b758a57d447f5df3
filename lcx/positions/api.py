"""What a position method is: a tuple of pure functions, each of which may be absent."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from lcx.types import Array, Float, Int, Tree


class Position(NamedTuple):
    """What a position method is; every field is optional.

    ``query`` and ``key`` keep the dtype of ``x``, and its shape unless the method ``widens``. Their ``tables`` are
    what ``tables(params, pos)`` gave for the same positions; without them they compute them on the spot. Positions
    are integers of any order, sign and size that int32 holds, or, where a method draws them between the tokens,
    float32.
    """

    init: Callable = lambda key: {}  # (key) -> params: learned tables
    embed: Callable | None = None  # (params, pos 'B T') -> 'B T D', added to the token embeddings
    tables: Callable | None = None  # (params, pos 'B T') -> fp32 pytree; once per forward and kind of layer
    query: Callable | None = None  # (params, x 'B T N H', pos 'B T', tables=None) -> like x
    key: Callable | None = None  # (params, x 'B S K H', pos 'B S', tables=None) -> like x
    gain: Callable | None = (
        None  # (params, pos 'B T') -> fp32 'B T 1|N': queries at their true positions grow
    )
    bias: Callable | None = None  # (params, Where) -> '1|B N T S', added to the scores
    remap: Callable | None = None  # (key, pos, train) -> pos
    static: bool = True  # False: depends on the current length, so caches must hold keys before ``key``
    whole: bool = True  # False: ``remap`` draws float32 positions, between the tokens
    own: bool = (
        False  # True: each layer has parameters of its own, of which ``embed`` and ``tables`` know nothing
    )
    widens: bool = False  # True: ``query`` and ``key`` append elements to heads; caches hold keys before that


def sharpened(position: Position, params: Tree, x: Float[Array, 'B T N H'], pos: Int[Array, 'B T']) -> Array:
    """Queries ``x`` at the true positions ``pos`` times the method's ``gain``: fp32 then, ``x`` itself without one."""
    return x if position.gain is None else x * position.gain(params, pos)[..., None]
