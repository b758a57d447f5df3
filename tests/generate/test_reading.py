"""Scoring through a cache is scoring; and a policy compresses where the prompt ends."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lcx.generate import reading
from lcx.generate.policies import Policy, Room, lossless, make_policy
from lcx.models import score
from lcx.types import PADDING
from tests.models.tiny import CONFIG, T, changed, parameters, random_batch

CHUNK = 7  # divides no length here


@functools.cache
def compiled(model, policy):
    return jax.jit(functools.partial(reading.score, model, policy=policy, chunk=CHUNK, logits=16))


@pytest.mark.parametrize(
    'model',
    [CONFIG, changed(position={'name': 'dynamic_ntk', 'original_length': 6})],
    ids=['rope', 'dynamic_ntk'],
)
def test_all_scores_are_those_without_a_cache(model):
    batch, policy = random_batch(), make_policy({'name': 'full'}, reading.room(T, CHUNK))
    found = compiled(model, policy)(parameters(model), batch)
    expected = score(model, parameters(model), batch, chunk=64)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=5e-5), found, expected)


def forgetful() -> Policy:
    """Forgets everything when the prompt ends."""

    def forget(cache):
        return dataclasses.replace(
            cache, state=cache.state._replace(seg=jnp.full_like(cache.state.seg, PADDING))
        )

    return Policy(lambda reach: lossless(reach, reading.room(T, CHUNK)), compress=forget)


FORGETFUL = forgetful()


@pytest.mark.parametrize('answer', [1, 5, T - 1])
def test_what_follows_the_prompt_reads_what_is_kept(answer):
    """The first token of the answer is predicted by the whole prompt, the others by the answer alone."""
    batch = random_batch()
    weights = np.where(np.arange(T) >= T - answer, 1, 0) * np.ones((2, 1), np.float32)
    batch = batch._replace(weights=weights)
    found = compiled(CONFIG, FORGETFUL)(parameters(CONFIG), batch).nll
    before = T - answer + 1
    expected = score(CONFIG, parameters(CONFIG), batch, chunk=64).nll
    np.testing.assert_allclose(found[:, :before], expected[:, :before], atol=2e-5)
    if answer > 1:
        segments = np.where(np.arange(T) < before, PADDING, batch.segments)
        expected = score(CONFIG, parameters(CONFIG), batch._replace(segments=segments), chunk=64).nll
        np.testing.assert_allclose(found[:, before:], expected[:, before:], atol=2e-5)
    assert compiled(CONFIG, FORGETFUL)._cache_size() == 1  # wherever the prompt ends


def test_room_holds_the_text_wherever_its_prompt_ends():
    for length in range(1, 20):
        room = reading.room(length, chunk=4)
        assert room == Room(room.prompt, 0, 4)
        assert all(-prompt % 4 + length <= room.prompt for prompt in range(1, length + 1))
