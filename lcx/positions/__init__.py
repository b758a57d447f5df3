"""Where am I: position methods as pure functions of integer positions.

    from lcx.config import make
    from lcx.positions import POSITIONS
    position = make(POSITIONS, {'name': 'yarn', 'factor': 4.0}, 'model.position',
                    head_dim=64, length=8192, trained_length=2048)
    q = position.query({}, q, pos)

A method is one file named after it: the formula as a pure function and, beside it, the registry entry, whose
signature documents its options. A new method is a new file and one line here. ``lcx.positions.hf`` reads and
writes the Hugging Face spelling.
"""

from lcx.positions import dynamic_ntk, none, ntk, pi, rope, yarn
from lcx.positions.api import Position

POSITIONS = {
    'none': none.none,
    'rope': rope.rope,
    'pi': pi.pi,
    'ntk': ntk.ntk,
    'dynamic_ntk': dynamic_ntk.dynamic_ntk,
    'yarn': yarn.yarn,
}

__all__ = ['POSITIONS', 'Position']
