"""Scores in chunks are those of the whole logits, which never exist."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lcx.models import ModelConfig, init, logits, score
from tests.models.tiny import CONFIG, T, changed, close, loss, parameters, random_batch, whole_logits

ROWS = 2


def from_logits(found, targets):
    """nll, log_norm and hit of logits 'B T V'."""
    log_norm = jax.nn.logsumexp(found, axis=-1)
    of_target = jnp.take_along_axis(found, targets[..., None], axis=-1)[..., 0]
    return log_norm - of_target, log_norm, jnp.argmax(found, axis=-1) == targets


@pytest.mark.parametrize('chunk', [1, ROWS * 5, ROWS * T, 10_000])
@pytest.mark.parametrize(
    'config', [CONFIG, changed(tie_embeddings=True, softcap=3.0)], ids=['untied', 'tied']
)
def test_chunks_change_nothing(config, chunk):
    params, batch = parameters(config), random_batch(ROWS)
    whole = whole_logits(config, params, batch.tokens)
    targets = np.where(np.arange(T) % 2, np.argmax(whole, axis=-1), batch.targets)  # about half are hits
    found = jax.jit(functools.partial(score, config, chunk=chunk))(params, batch._replace(targets=targets))
    close(tuple(found), from_logits(whole, targets), atol=1e-5)
    assert 0.4 < np.mean(found.hit) < 0.7


@pytest.mark.parametrize('chunk', [ROWS * 5, 10_000])
def test_gradients_are_those_of_the_whole(chunk):
    params, batch = parameters(CONFIG), random_batch(ROWS)
    weights = np.random.default_rng(1).normal(size=(ROWS, T))

    def chunked(params):
        scores = score(CONFIG, params, batch, chunk=chunk)
        return jnp.sum(weights * (scores.nll + 0.1 * scores.log_norm**2))

    def whole(params):
        nll, log_norm, _ = from_logits(logits(CONFIG, params, batch.tokens), batch.targets)
        return jnp.sum(weights * (nll + 0.1 * log_norm**2))

    close(*(jax.jit(jax.grad(f))(params) for f in (chunked, whole)), atol=5e-5)


def test_a_model_that_knows_nothing_scores_log_vocab_and_hits_nothing():
    params = {**parameters(CONFIG), 'output': jnp.zeros((CONFIG.vocab, CONFIG.width))}
    scores = jax.jit(functools.partial(score, CONFIG, chunk=7))(params, random_batch(ROWS))
    np.testing.assert_array_equal(scores.nll, np.float32(np.log(CONFIG.vocab)))
    np.testing.assert_array_equal(scores.log_norm, scores.nll)
    assert not np.any(scores.hit)  # all tokens are equally probable: a tie is no answer


def test_logits_of_all_tokens_never_exist():
    vocab, rows, length = 4096, 16, 64
    config = ModelConfig(vocab=vocab, width=16, layers=1, heads=1, kv_heads=1, head_dim=16, hidden=16)
    params = jax.eval_shape(functools.partial(init, config), jax.random.key(0))
    batch = random_batch(rows, length, vocab)
    compiled = jax.jit(jax.grad(functools.partial(loss, config, chunk=64))).lower(params, batch).compile()
    everything = rows * length * vocab * 4
    assert compiled.memory_analysis().temp_size_in_bytes < everything / 3
    assert f'[{rows},{length},{vocab}]' not in compiled.as_text()
