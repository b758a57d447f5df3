"""Text from prompts: read chunk by chunk into a cache, then a token at a time.

    texts = generate(model, params, [ids, other_ids], new=128, cache={'name': 'streaming'}, eos=tokenizer.eos)

Prompts of any length are left-padded into a bucket, the chunk times a power of two, and reading begins with the first
chunk that holds a token: one program serves all prompts of a bucket, in a time that follows the longest of them. For
prompts of less than half a chunk, that is halved.

A generation is of one length, bucket + new: extension methods whose factor follows the length in use take that one.
Dynamic NTK follows the text itself; while a prompt is read, it is as long as the whole prompt.

:func:`generate` is one program. :func:`programs` are its parts, for whoever wants each token when it is there.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from lcx.config import Options
from lcx.errors import ConfigError
from lcx.generate.policies import Policy, Room, held_bytes, make_policy
from lcx.generate.sampling import Sampling, at_step, row_keys
from lcx.models import ModelConfig
from lcx.models.cache import Caches
from lcx.models.config import DTYPES
from lcx.models.decoder import Decoder
from lcx.types import PADDING, Array, Bool, Float, Int, Tree

FULL, GREEDY = Options(name='full'), Sampling()
SHORTEST = 64  # tokens of a chunk that are not halved
DRAWN = 2**32 - 1  # in place of a step: the key by which a row's positions are drawn


def piece(longest: int, chunk: int) -> int:
    """``chunk`` tokens, halved as long as a half holds a whole prompt of ``longest`` and is no shorter than SHORTEST.

    >>> piece(5, 512), piece(100, 512), piece(300, 512)
    (64, 128, 512)
    """
    while chunk % 2 == 0 and chunk // 2 >= max(longest, SHORTEST):
        chunk //= 2
    return chunk


def bucket(longest: int, chunk: int) -> int:
    """The least power of two times ``chunk`` that holds ``longest`` tokens.

    >>> bucket(100, 512), bucket(1100, 512)
    (512, 2048)
    """
    return chunk << (-(-longest // chunk) - 1).bit_length()


@dataclasses.dataclass(frozen=True)
class Plan:
    """What a generation is compiled for; hashable.

    Raises:
      ConfigError: a size is below 1, the cache cannot hold the text, or its policy cannot serve the model.
    """

    model: ModelConfig
    room: Room
    cache: Options = FULL
    sampling: Sampling = GREEDY
    eos: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        for name in ('new', 'chunk'):
            if getattr(self.room, name) < 1:
                raise ConfigError(f'{name}: {getattr(self.room, name)} must be at least 1.')
        _ = self.policy.model(self.model)

    @classmethod
    def of(
        cls,
        model: ModelConfig,
        prompts: Sequence[Any],
        *,
        new: int,
        sampling: Sampling = GREEDY,
        cache: Mapping[str, Any] = FULL,
        chunk: int = 512,
        eos: int | Sequence[int] | None = None,
    ) -> Plan:
        """That of up to ``new`` tokens after each of ``prompts``, ids each; see :func:`generate`."""
        if not len(prompts):
            raise ConfigError('prompts: there is none.')
        for number, ids in enumerate(prompts):
            if not len(ids):
                raise ConfigError(f'prompts[{number}]: empty; there is nothing to continue.')
        if chunk < 1:
            raise ConfigError(f'chunk: {chunk} must be at least 1.')
        longest = max(map(len, prompts))
        chunk = piece(longest, chunk)
        room = Room(bucket(longest, chunk), new, chunk)
        ends = () if eos is None else tuple(np.atleast_1d(np.asarray(eos, int)).tolist())
        return cls(model, room, Options(cache), sampling, ends)

    @property
    def policy(self) -> Policy:
        return make_policy(self.cache, self.room)

    @property
    def decoder(self) -> Decoder:
        return Decoder(self.policy.model(self.model), length=self.room.tokens)

    @property
    def chunks(self) -> int:
        """Of the whole bucket."""
        return self.room.prompt // self.room.chunk

    def caches(self, batch: int) -> Caches:
        """Empty caches for ``batch`` rows."""
        return self.policy.caches(self.policy.model(self.model), batch)

    def held(self, batch: int) -> int:
        """Bytes of the caches of ``batch`` rows once the prompt has ended."""
        return held_bytes(jax.eval_shape(lambda: self.policy.compressed(self.caches(batch))))

    def prompt(self, prompts: Sequence[Any], seed: int) -> Prompt:
        """``prompts`` as arrays."""
        rows, size = len(prompts), self.room.prompt
        lengths = np.array([len(ids) for ids in prompts], np.int32)
        tokens = np.zeros((rows, size), np.int32)
        for row, ids in enumerate(prompts):
            tokens[row, size - len(ids) :] = ids
        return Prompt(tokens, lengths, self._positions(lengths, seed), row_keys(seed, jnp.arange(rows)))

    def _positions(self, lengths: np.ndarray, seed: int) -> np.ndarray:
        """Of each row's text, drawn once for all its tokens where the method draws them.

        A row's draw depends on the seed, its number and the length of its text alone, whatever the bucket.
        """
        remap, keys = self.model.remap(self.room.tokens), row_keys(seed, jnp.arange(len(lengths)))
        rows = [np.arange(length + self.room.new, dtype=np.int32) for length in lengths]
        if remap is not None:
            keys = at_step(keys, DRAWN)
            rows = [np.asarray(remap(key, jnp.asarray(row[None]), False)[0]) for key, row in zip(keys, rows)]
        return np.stack([np.pad(row, (self.room.tokens - len(row), 0)) for row in rows])


class Prompt(NamedTuple):
    """Rows that end side by side, with padding before them."""

    tokens: Int[Array, 'B P']
    lengths: Int[Array, ' B']
    positions: Int[Array, 'B P+new']  # of the new tokens, too
    keys: Array  # 'B': what each row draws by

    def first(self, chunk: int) -> int:
        """The first chunk that holds a token of any row."""
        return (self.tokens.shape[1] - int(np.max(self.lengths))) // chunk


class Reading(NamedTuple):
    """A prompt that is being read."""

    caches: Caches
    last: Float[Array, 'B D']  # the hidden state of the newest token


class State(NamedTuple):
    """A text that is being written."""

    caches: Caches
    tokens: Int[Array, 'B new']
    count: Int[Array, '']  # of them, those that are there; the last one is in no cache yet
    ended: Bool[Array, ' B']
    seen: Bool[Array, 'B V'] | None  # tokens of the prompt and the text, where a penalty asks for them


def begin(plan: Plan, prompt: Prompt) -> Reading:
    """Empty caches that know where the prompt ends."""
    newest = prompt.positions[:, plan.room.prompt - 1]
    caches = plan.caches(len(newest)).until(newest)
    return Reading(caches, jnp.zeros((len(newest), plan.model.width), DTYPES[plan.model.dtype]))


def read(
    plan: Plan, params: Tree, prompt: Prompt, reading: Reading, start: int | Array, stop: int | Array
) -> Reading:
    """Reads chunks ``start`` to ``stop`` - 1 of the bucket."""
    size, decoder = plan.room.chunk, plan.decoder
    real = jnp.arange(plan.room.prompt) >= plan.room.prompt - prompt.lengths[:, None]
    texts = prompt.tokens, prompt.positions[:, : plan.room.prompt], jnp.where(real, 1, PADDING)

    def one(i: Array, reading: Reading) -> Reading:
        part = (jax.lax.dynamic_slice_in_dim(x, i * size, size, axis=1) for x in texts)
        hidden, caches = decoder.apply({'params': params}, *part, reading.caches)
        return Reading(caches, hidden[:, -1])

    return jax.lax.fori_loop(start, stop, one, reading)


def settle(plan: Plan, params: Tree, prompt: Prompt, caches: Caches, last: Float[Array, 'B D']) -> State:
    """The prompt has been read: what is kept of it, and the first new token."""
    rows = len(prompt.lengths)
    seen = None
    if plan.sampling.repetition_penalty is not None:
        real = jnp.arange(plan.room.prompt) >= plan.room.prompt - prompt.lengths[:, None]
        seen = jnp.zeros((rows, plan.model.vocab), bool)
        seen = seen.at[jnp.arange(rows)[:, None], prompt.tokens].max(real)
    nothing = jnp.zeros((rows, plan.room.new), jnp.int32)
    caches = plan.policy.compressed(caches)
    state = State(caches, nothing, jnp.int32(0), jnp.zeros(rows, bool), seen)
    return _chosen(plan, params, prompt, state, last)


def step(plan: Plan, params: Tree, prompt: Prompt, state: State) -> State:
    """Reads the newest token and writes the next one."""
    at = state.count - 1
    token = jax.lax.dynamic_slice_in_dim(state.tokens, at, 1, axis=1)
    position = jax.lax.dynamic_slice_in_dim(prompt.positions, plan.room.prompt + at, 1, axis=1)
    over = state.ended[:, None]  # such a row reads nothing more
    segment = jnp.where(over, PADDING, 1)
    text = token, jnp.where(over, 0, position), segment
    hidden, caches = plan.decoder.apply({'params': params}, *text, state.caches)
    return _chosen(plan, params, prompt, state._replace(caches=caches), hidden[:, 0])


def _chosen(plan: Plan, params: Tree, prompt: Prompt, state: State, hidden: Float[Array, 'B D']) -> State:
    logits = plan.decoder.apply({'params': params}, hidden[:, None], method='logits')[:, 0]
    keys = None if plan.sampling.temperature == 0 else at_step(prompt.keys, state.count)
    token = plan.sampling.choose(logits, keys, state.seen)
    ended = state.ended
    if plan.eos:
        token = jnp.where(ended, plan.eos[0], token)
        ended |= jnp.any(token[:, None] == jnp.array(plan.eos), axis=1)
    tokens = jax.lax.dynamic_update_slice_in_dim(state.tokens, token[:, None], state.count, axis=1)
    seen = None if state.seen is None else state.seen.at[jnp.arange(len(token)), token].set(True)
    return State(state.caches, tokens, state.count + 1, ended, seen)


def decode(plan: Plan, params: Tree, prompt: Prompt, state: State) -> State:
    """Writes tokens until there are ``new`` or every row has ended."""

    def goes_on(state: State) -> Array:
        return (state.count < plan.room.new) & ~jnp.all(state.ended)

    return jax.lax.while_loop(goes_on, functools.partial(step, plan, params, prompt), state)


@functools.partial(jax.jit, static_argnums=0)
def written(plan: Plan, params: Tree, prompt: Prompt) -> tuple[Int[Array, 'B new'], Int[Array, '']]:
    """The tokens of a whole generation, and how many there are."""
    first = (plan.room.prompt - jnp.max(prompt.lengths)) // plan.room.chunk
    reading = read(plan, params, prompt, begin(plan, prompt), first, plan.chunks)
    state = decode(plan, params, prompt, settle(plan, params, prompt, *reading))
    return state.tokens, state.count


def generate(
    model: ModelConfig,
    params: Tree,
    prompts: Sequence[Any],
    *,
    new: int,
    sampling: Sampling = GREEDY,
    cache: Mapping[str, Any] = FULL,
    chunk: int = 512,
    seed: int = 0,
    eos: int | Sequence[int] | None = None,
) -> list[np.ndarray]:
    """What ``model`` writes after each of ``prompts`` (ids): up to ``new`` ids int32, of which an ``eos`` is the last.

    ``cache`` is a policy of :mod:`lcx.generate.policies` with its options, ``chunk`` how many tokens of the prompt are
    read at a time, at most. Row r draws by seed, r and step, whatever the other rows are. Compiled once for each number
    of rows, bucket of the longest prompt, and all else but the seed.

    Raises:
      ConfigError: an empty prompt; ``new`` or ``chunk`` below 1; a prompt that the cache cannot hold; a policy that is
        unknown or cannot serve the model.
    """
    plan = Plan.of(model, prompts, new=new, sampling=sampling, cache=cache, chunk=chunk, eos=eos)
    tokens, count = jax.device_get(written(plan, params, plan.prompt(prompts, seed)))
    return [up_to_end(row, plan.eos) for row in tokens[:, :count]]


def up_to_end(ids: Int[np.ndarray, ' T'], eos: tuple[int, ...]) -> np.ndarray:
    """``ids`` up to the first of ``eos``, that one included."""
    ends = np.flatnonzero(np.isin(ids, eos))
    return ids[: ends[0] + 1] if len(ends) else ids


class Programs(NamedTuple):
    """The parts of a generation, each compiled once. Caches are given up to whoever takes them."""

    read: Callable[[Tree, Prompt, Reading, int, int], Reading]
    settle: Callable[[Tree, Prompt, Caches, Array], State]
    step: Callable[[Tree, Prompt, State], State]
    decode: Callable[[Tree, Prompt, State], State]


READ, STEP, DECODE = (jax.jit(f, static_argnums=0, donate_argnums=3) for f in (read, step, decode))
SETTLE = jax.jit(settle, static_argnums=0, donate_argnums=3)
COMPRESS = jax.jit(settle, static_argnums=0)  # into arrays of other shapes


def programs(plan: Plan) -> Programs:
    """Those of ``plan``, each compiled when it is first called."""
    settle = SETTLE if plan.policy.compress is None else COMPRESS
    return Programs(*(functools.partial(f, plan) for f in (READ, settle, STEP, DECODE)))


def compiled(plan: Plan, params: Tree, prompt: Prompt, *names: str) -> Programs:
    """:func:`programs`, of which those that ``names`` name are compiled now."""
    parts = programs(plan)
    reading = jax.eval_shape(functools.partial(begin, plan), prompt)
    state = jax.eval_shape(functools.partial(settle, plan), params, prompt, *reading)
    needs = {'read': (reading, 0, 1), 'settle': reading, 'step': (state,), 'decode': (state,)}
    now = {}
    for name in names:
        jitted = getattr(parts, name)
        now[name] = jitted.func.lower(plan, params, prompt, *needs[name]).compile()
    return parts._replace(**now)


def stream(
    plan: Plan, params: Tree, prompt: Prompt, parts: Programs | None = None, *, told: Callable | None = None
) -> Iterator[Int[np.ndarray, ' B']]:
    """The tokens of a generation step by step, each when it is there; rows that have ended go on with ``eos``.

    ``parts`` are :func:`programs` unless given; ``told(i, n)`` is called when ``i`` of ``n`` chunks have been read.
    """
    parts = programs(plan) if parts is None else parts
    reading, first = begin(plan, prompt), prompt.first(plan.room.chunk)
    for i in range(first, plan.chunks):
        reading = parts.read(params, prompt, reading, i, i + 1)
        if told is not None:
            jax.block_until_ready(reading.last)
            told(i + 1 - first, plan.chunks - first)
    state = parts.settle(params, prompt, *reading)
    yield np.asarray(state.tokens)[:, 0]
    for at in range(1, plan.room.new):
        if np.all(state.ended):
            return
        state = parts.step(params, prompt, state)
        yield np.asarray(state.tokens)[:, at]
