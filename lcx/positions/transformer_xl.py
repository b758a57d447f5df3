"""Transformer-XL's relative attention: queries ask for content and, by a projection of their own, for distance.

Dai et al. 2019, "Transformer-XL: Attentive Language Models Beyond a Fixed-Length Context", arXiv:1901.02860, section
3.3. With R_d the sinusoids of distance d, sin(d f_k) and cos(d f_k) for k = 0 .. C/2 - 1 (C is ``dims``),

    s_ij = (q_i + u) k_j + (q_i + w) (W R_{i-j}),    f_k = theta^(-2k/C)

The biases u and w and the matrix W, for each head from C numbers to H, are learned, by each layer for itself.

Here no score is added to another, and no array of T x S exists. W goes to the other side, and <W^T (q_i + w), R_{i-j}>
is what RoPE makes of the vector W^T (q_i + w) at position i and of R_0 at position j: rotations keep inner products.
So it is plain attention with heads of H + C elements,

    q_i' = [q_i + u ; rotate(W^T (q_i + w), i)]        k_j' = [k_j ; rotate(R_0, j)]        R_0 = (0 .. 0, 1 .. 1)

which every block, window, ring and cache can do, at any positions and distances. Scores cost (H + C) / 2H of the two
products of the paper, and no shift of rows by their number, which knows the positions 0, 1, 2 ... alone. A cache
holds k_j.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from lcx.about import About
from lcx.errors import ConfigError
from lcx.positions import rope
from lcx.positions.api import Position
from lcx.types import Array, Float, Int, Tree

ABOUT = About(
    paper='arXiv:1901.02860, Dai et al. 2019',
    what='queries project sinusoids of the distance: scores of content and of distance are added',
    trained='scratch',
    cost='heads of H + C elements in scores; per query H C multiplications and a rotation',
)

Tables = tuple[Float[Array, 'B T C/2'], Float[Array, 'B T C/2']]


def transformer_xl(
    *, head_dim: int, heads: int, width: int, dims: int | None = None, theta: float = 10000.0
) -> Position:
    """Transformer-XL's attention; ``dims`` sines and cosines C, the model's ``width`` at None, as in the paper.

    Raises:
      ConfigError: ``dims`` is not even and positive, or ``theta`` not a finite number above 1.
    """
    dims = width if dims is None else dims
    if dims < 2 or dims % 2:
        raise ConfigError(
            f'dims: {dims!r} must be even and positive: a sine and a cosine for each frequency.'
        )
    frequencies = rope.frequencies(dims, theta)

    def init(key: Array) -> Tree:
        zeros = jnp.zeros((heads, head_dim))
        # R_d has the length sqrt(C / 2): distances start with the weight of content.
        matrix = (dims / 2) ** -0.5 * jax.random.normal(key, (heads, head_dim, dims))
        return {'content_bias': zeros, 'distance_bias': zeros, 'matrix': matrix}

    def tables(params: Tree, pos: Int[Array, 'B T']) -> Tables:
        del params
        return rope.cos_sin(pos, frequencies)

    def query(
        params: Tree, x: Float[Array, 'B T N H'], pos: Int[Array, 'B T'], of: Tables | None = None
    ) -> Float[Array, 'B T N H+C']:
        wide = x.astype(jnp.float32)
        biased = (wide + params['distance_bias']).astype(x.dtype)
        asked = jnp.einsum('BTNH,NHC->BTNC', biased, params['matrix'].astype(x.dtype))
        turned = rope.rotate(asked, *(tables(params, pos) if of is None else of), interleaved=False)
        return jnp.concatenate([wide + params['content_bias'], turned], axis=-1).astype(x.dtype)

    def key(
        params: Tree, x: Float[Array, 'B S K H'], pos: Int[Array, 'B S'], of: Tables | None = None
    ) -> Float[Array, 'B S K H+C']:
        cos, sin = tables(params, pos) if of is None else of
        turned = jnp.concatenate([-sin, cos], axis=-1).astype(x.dtype)[:, :, None]  # R_0, turned
        return jnp.concatenate([x, jnp.broadcast_to(turned, (*x.shape[:3], dims))], axis=-1)

    return Position(init=init, tables=tables, query=query, key=key, own=True, widens=True)
