"""Where am I: position methods as pure functions of integer positions.

    from lcx.config import make
    from lcx.positions import POSITIONS
    position = make(POSITIONS, {'name': 'yarn', 'factor': 4.0}, 'model.position',
                    head_dim=64, length=8192, trained_length=2048)
    q = position.query({}, q, pos)

A method is one file named after it: the formula as a pure function and, beside it, the registry entry, whose
signature documents its options, and an ``ABOUT`` for the table of methods. A new method is a new file and two
lines here. ``from_hf`` and ``to_hf`` read and write the Hugging Face spelling.
"""

from lcx.positions import (
    alibi,
    dynamic_ntk,
    fire,
    kerple,
    learned,
    llama3,
    log_n,
    longrope,
    none,
    ntk,
    ntk_by_parts,
    p_rope,
    pi,
    pose,
    random_float,
    randomized,
    rope,
    sandwich,
    shape,
    sinusoidal,
    ssmax,
    t5,
    transformer_xl,
    xpos,
    yarn,
)
from lcx.positions.api import Position

POSITIONS = {
    'none': none.none,
    'rope': rope.rope,
    'pi': pi.pi,
    'ntk': ntk.ntk,
    'dynamic_ntk': dynamic_ntk.dynamic_ntk,
    'ntk_by_parts': ntk_by_parts.ntk_by_parts,
    'yarn': yarn.yarn,
    'llama3': llama3.llama3,
    'longrope': longrope.longrope,
    'p_rope': p_rope.p_rope,
    'xpos': xpos.xpos,
    'log_n': log_n.log_n,
    'ssmax': ssmax.ssmax,
    'alibi': alibi.alibi,
    't5': t5.t5,
    'transformer_xl': transformer_xl.transformer_xl,
    'kerple': kerple.kerple,
    'fire': fire.fire,
    'sandwich': sandwich.sandwich,
    'sinusoidal': sinusoidal.sinusoidal,
    'learned': learned.learned,
    'randomized': randomized.randomized,
    'random_float': random_float.random_float,
    'pose': pose.pose,
    'shape': shape.shape,
}

ABOUT = {
    'none': none.ABOUT,
    'rope': rope.ABOUT,
    'pi': pi.ABOUT,
    'ntk': ntk.ABOUT,
    'dynamic_ntk': dynamic_ntk.ABOUT,
    'ntk_by_parts': ntk_by_parts.ABOUT,
    'yarn': yarn.ABOUT,
    'llama3': llama3.ABOUT,
    'longrope': longrope.ABOUT,
    'p_rope': p_rope.ABOUT,
    'xpos': xpos.ABOUT,
    'log_n': log_n.ABOUT,
    'ssmax': ssmax.ABOUT,
    'alibi': alibi.ABOUT,
    't5': t5.ABOUT,
    'transformer_xl': transformer_xl.ABOUT,
    'kerple': kerple.ABOUT,
    'fire': fire.ABOUT,
    'sandwich': sandwich.ABOUT,
    'sinusoidal': sinusoidal.ABOUT,
    'learned': learned.ABOUT,
    'randomized': randomized.ABOUT,
    'random_float': random_float.ABOUT,
    'pose': pose.ABOUT,
    'shape': shape.ABOUT,
}

from lcx.positions.hf import from_hf, options_from_hf, to_hf  # noqa: E402  (it reads POSITIONS)

__all__ = ['ABOUT', 'POSITIONS', 'Position', 'from_hf', 'options_from_hf', 'to_hf']
