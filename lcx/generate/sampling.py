"""From the logits of the next token to the token: greedy, or drawn from a distribution that was bent and cut.

sampling = Sampling(temperature=0.8, top_p=0.95)
keys = row_keys(seed=0, rows=jnp.arange(8))
tokens = sampling.choose(logits, at_step(keys, step), seen)  # 'B V' and 'B' -> 'B'

What is applied, in the order of Hugging Face transformers: repetition penalty, temperature, top-k, top-p, min-p. Each
is a function of its own; what it cuts has a logit of -inf, and the most probable token is never cut. Shapes are static
and ``Sampling`` hashes, so it is a static argument of ``jit``. Logits that are NaN give tokens that mean nothing.
"""

from __future__ import annotations

import dataclasses
import math

import jax
import jax.numpy as jnp

from lcx.errors import ConfigError
from lcx.types import Array, Bool, Float, Int


def repetition_penalty(
    logits: Float[Array, 'B V'], seen: Bool[Array, 'B V'], penalty: float
) -> Float[Array, 'B V']:
    """Logits of seen tokens divided by ``penalty``, negative ones multiplied (arXiv:1909.05858, Keskar et al. 2019).

    ``seen`` says, or counts, which tokens the row's prompt and text hold; how often does not matter. 1 changes nothing.
    """
    return jnp.where(seen > 0, jnp.where(logits > 0, logits / penalty, logits * penalty), logits)


def temperature(logits: Float[Array, 'B V'], value: float) -> Float[Array, 'B V']:
    """Probabilities to the power of 1 / ``value``, above 0. The largest logit becomes 0, so that none overflows."""
    return (logits - jnp.max(logits, axis=-1, keepdims=True)) / value


def top_k(logits: Float[Array, 'B V'], k: int) -> Float[Array, 'B V']:
    """Keeps the ``k`` most probable tokens (Fan et al. 2018), and those as probable as the last of them.

    A ``k`` above V is V.
    """
    last = jax.lax.top_k(logits, min(k, logits.shape[-1]))[0][..., -1:]
    return jnp.where(logits >= last, logits, -jnp.inf)


def top_p(logits: Float[Array, 'B V'], p: float) -> Float[Array, 'B V']:
    """Keeps the nucleus, the fewest tokens that together have a share of ``p`` (arXiv:1904.09751, Holtzman 2020).

    It has one token at least; of equally probable ones the lower ids go first.
    """
    order = jnp.argsort(-logits, axis=-1, stable=True)
    shares = jax.nn.softmax(jnp.take_along_axis(logits, order, axis=-1), axis=-1)
    # Summed from the least probable on: what p near 1 cuts is small, and would drown in a sum near 1.
    rest = jax.lax.cumsum(shares, axis=shares.ndim - 1, reverse=True)
    kept = (rest > 1 - p).at[..., 0].set(True)
    ranks = jnp.argsort(order, axis=-1)
    return jnp.where(jnp.take_along_axis(kept, ranks, axis=-1), logits, -jnp.inf)


def min_p(logits: Float[Array, 'B V'], p: float) -> Float[Array, 'B V']:
    """Keeps tokens of at least ``p`` times the highest probability (arXiv:2407.01082, Nguyen et al. 2024)."""
    floor = math.log(p) if p > 0 else -math.inf
    return jnp.where(logits >= jnp.max(logits, axis=-1, keepdims=True) + floor, logits, -jnp.inf)


def greedy(logits: Float[Array, 'B V']) -> Int[Array, ' B']:
    """The most probable token of each row; of equals, the one of the lowest id."""
    return jnp.argmax(logits, axis=-1).astype(jnp.int32)


def draw(logits: Float[Array, 'B V'], keys: Array) -> Int[Array, ' B']:
    """A token of each row by its probability (the Gumbel-max trick); a row's draw depends on its own key alone.

    Noise of high resolution: with JAX's default, 13 of 32 tokens were drawn that have a probability of 2^-23 each.
    """
    noise = jax.vmap(lambda key: jax.random.gumbel(key, logits.shape[-1:], mode='high'))(keys)
    return greedy(logits + noise)


def row_keys(seed: int, rows: Int[Array, ' B']) -> Array:
    """A key per row number, 'B': row 7 has the same one in any batch, at any place in it."""
    # By name: another generator that JAX may be set to does not keep rows apart under vmap.
    return jax.vmap(jax.random.fold_in, (None, 0))(jax.random.key(seed, impl='threefry2x32'), rows)


def at_step(keys: Array, step: int | Int[Array, '']) -> Array:
    """The rows' keys of one step: ``step`` counts the tokens that each row has been given, from 0."""
    return jax.vmap(jax.random.fold_in, (0, None))(keys, step)


@dataclasses.dataclass(frozen=True)
class Sampling:
    """How the next token is chosen. None leaves a step out; temperature 0 is greedy.

    The limit of temperature 0 is the most probable token, which none of top_k, top_p and min_p cuts: they change
    nothing then. The repetition penalty does.

    Raises:
      ConfigError: a number out of its range.
    """

    temperature: float = 0.0
    top_k: int | None = None
    top_p: float | None = None
    min_p: float | None = None
    repetition_penalty: float | None = None

    def __post_init__(self) -> None:
        # Below 1e-6 it is greedy in all but name, and 1 / value leaves the range of fp32 at 1e-38.
        _check(
            self,
            'temperature',
            lambda value: value == 0 or 1e-6 <= value < math.inf,
            '0 (greedy) or from 1e-6 on',
        )
        _check(
            self, 'top_k', lambda value: value >= 1 and value == int(value), 'a whole number of at least 1'
        )
        _check(self, 'top_p', lambda value: 0 < value <= 1, 'above 0 and at most 1')
        _check(self, 'min_p', lambda value: 0 <= value <= 1, 'from 0 to 1')
        _check(self, 'repetition_penalty', lambda value: 0 < value < math.inf, 'above 0 and finite')

    def warped(
        self, logits: Float[Array, 'B V'], seen: Bool[Array, 'B V'] | None = None
    ) -> Float[Array, 'B V']:
        """Logits of the distribution that tokens are drawn from, fp32; for temperature 0 only penalised.

        Raises:
          ConfigError: a repetition penalty without ``seen``.
        """
        logits = logits.astype(jnp.float32)
        if self.repetition_penalty is not None:
            if seen is None:
                raise ConfigError(
                    f'repetition_penalty: {self.repetition_penalty} needs the tokens seen so far.'
                )
            logits = repetition_penalty(logits, seen, self.repetition_penalty)
        if self.temperature == 0:
            return logits
        logits = temperature(logits, self.temperature)
        if self.top_k is not None:
            logits = top_k(logits, self.top_k)
        if self.top_p is not None:
            logits = top_p(logits, self.top_p)
        if self.min_p is not None:
            logits = min_p(logits, self.min_p)
        return logits

    def choose(
        self, logits: Float[Array, 'B V'], keys: Array | None = None, seen: Bool[Array, 'B V'] | None = None
    ) -> Int[Array, ' B']:
        """A token per row. ``keys`` 'B' are those of this step (:func:`at_step`); greedy needs none.

        Raises:
          ConfigError: a temperature without keys, or a repetition penalty without ``seen``.
        """
        logits = self.warped(logits, seen)
        if self.temperature == 0:
            return greedy(logits)
        if keys is None:
            raise ConfigError(f'temperature: {self.temperature} draws tokens, which needs a key per row.')
        return draw(logits, keys)


def _check(owner: Sampling, name: str, valid, words: str) -> None:
    """Raises a ConfigError for a field that is neither None nor a valid number; NaN never is."""
    value = getattr(owner, name)
    if value is None and name != 'temperature':
        return
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not valid(value):
        raise ConfigError(f'{name}: {value!r} must be {words}.')
