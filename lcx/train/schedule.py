"""Learning-rate schedules over one stage, as a multiple of the peak: warm-up, then one of three shapes."""

from __future__ import annotations

from collections.abc import Callable

import jax.numpy as jnp

from lcx.types import Array


def cosine(x: Array, decay: float, final: float) -> Array:
    """Half a cosine from 1 to ``final`` (SGDR, arXiv 1608.03983); x is the share of the stage after warm-up."""
    del decay
    return final + (1 - final) * 0.5 * (1 + jnp.cos(jnp.pi * x))


def constant(x: Array, decay: float, final: float) -> Array:
    """1 throughout."""
    del decay, final
    return jnp.ones_like(x)


def wsd(x: Array, decay: float, final: float) -> Array:
    """Stable at 1, then linear to ``final`` over the last share ``decay`` (MiniCPM, arXiv 2404.06395)."""
    return 1 - (1 - final) * jnp.clip((x - (1 - decay)) / max(decay, 1e-9), 0, 1)


SCHEDULES = {'cosine': cosine, 'constant': constant, 'wsd': wsd}


def schedule(
    name: str, *, peak: float, steps: int, start: int, warmup: float, decay: float, final: float
) -> Callable[[Array], Array]:
    """Learning rate by global step for a stage of ``steps`` that begins at step ``start``."""
    rising = round(warmup * steps)
    falling = max(1, steps - rising)
    share = (
        decay * steps / falling
    )  # decay is a share of the stage; the shapes see what is left after warm-up

    def rate(step: Array) -> Array:
        here = step - start
        after = jnp.clip((here - rising) / falling, 0, 1)
        return peak * jnp.where(
            here < rising, (here + 1) / max(rising, 1), SCHEDULES[name](after, share, final)
        )

    return rate
