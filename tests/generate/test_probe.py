"""What a probe finds is attention by its definition: a whole decoder in NumPy, float64, its scores by distances."""

import functools
import itertools

import numpy as np
import pytest

from lcx.config import Options
from lcx.errors import ConfigError
from lcx.generate import probe
from lcx.models import LayerKind
from tests.models.tiny import CONFIG, T, changed, parameters, random_batch

LOCAL = LayerKind(rule=(Options(name='causal'), Options(name='window', size=6)))
HYBRID = changed(
    layers=3, pattern=('full', 'local'), kinds={'full': LayerKind(), 'local': LOCAL}, attention_softcap=2.0
)
EXTENDED = changed(kinds={'full': LayerKind(regions=Options(name='self_extend', group=3, window=7))})
BIASED = changed(position=Options(name='alibi'))
MODELS = {'rope': CONFIG, 'self_extend': EXTENDED, 'hybrid': HYBRID, 'alibi': BIASED}
LAYERS, HEADS = (1, 0), (3, 0, 2)

distances = np.arange(T)[:, None] - np.arange(T)


def norm(x, scale):
    return x / np.sqrt(np.mean(x**2, axis=-1, keepdims=True) + CONFIG.norm_eps) * scale


def turned_by(name):
    """The distances that rotations are at, for every pair of query and key."""
    if name != 'self_extend':
        return distances
    t, group, window = np.arange(T), 3, 7
    grouped = (t // group + window - window // group)[:, None] - t // group
    return np.where(distances < window, distances, grouped)


def scores(name, q, k):
    """'N T T': sums over pairs of Re(q conj(k) e^(i f distance)), each key head for two query heads."""
    half = CONFIG.head_dim // 2
    q, k = (x[..., :half] + 1j * x[..., half:] for x in (q, np.repeat(k, 2, axis=1)))
    turns = np.exp(1j * turned_by(name)[..., None] * 10000.0 ** (-np.arange(half) / half))
    if name == 'alibi':
        turns = np.ones_like(turns)
    s = np.einsum('tnp,snp,tsp->nts', q, k.conj(), turns).real * CONFIG.head_dim**-0.5
    if name == 'hybrid':
        s = 2.0 * np.tanh(s / 2.0)
    if name == 'alibi':
        s = s - distances * 2.0 ** (-8 / 4 * np.arange(1, 5))[:, None, None]
    return s


@functools.cache
def by_definition(name):
    """Probabilities 'N T T' of every layer."""
    model, tokens = MODELS[name], random_batch(rows=1).tokens[0]
    wide = lambda tree: {k: wide(v) if isinstance(v, dict) else np.float64(v) for k, v in tree.items()}  # noqa: E731
    params = wide(parameters(model))
    x, found = params['embedding'][tokens], []
    for i, kind in enumerate(model.depth):
        repeat, place = divmod(i, len(model.pattern))
        if repeat < model.repeats:
            stacked = params['layers'][f'{kind}_{place}']
            block = {k: {m: first(v, repeat) for m, v in part.items()} for k, part in stacked.items()}
        else:
            block = params['rest'][f'{kind}_{place}']
        y = norm(x, block['mixer_norm']['scale'])
        q, k, v = (
            np.einsum('td,dnh->tnh', y, block['mixer'][m]['kernel']) for m in ('query', 'key', 'value')
        )
        hidden = (distances < 0) | (distances >= 6) if kind == 'local' else distances < 0
        s = np.where(hidden, -np.inf, scores(name, q, k))
        p = np.exp(s - s.max(axis=-1, keepdims=True))
        p /= p.sum(axis=-1, keepdims=True)
        found.append(p)
        mixed = np.einsum('nts,snh->tnh', p, np.repeat(v, 2, axis=1))
        x = x + np.einsum('tnh,nhd->td', mixed, block['mixer']['out']['kernel'])
        y = norm(x, block['feed_forward_norm']['scale'])
        gate, up = (y @ block['feed_forward'][m]['kernel'] for m in ('gate', 'up'))
        x = x + gate / (1 + np.exp(-gate)) * up @ block['feed_forward']['down']['kernel']
    return found


def first(tree, i):
    return {k: first(v, i) for k, v in tree.items()} if isinstance(tree, dict) else tree[i]


def looked(name, layers, heads):
    return probe.look(
        MODELS[name],
        parameters(MODELS[name]),
        random_batch(rows=1).tokens[0],
        np.arange(T, dtype=np.int32),
        layers,
        heads,
    )


def check(name, layers, heads, cells):
    """Compares with the definition; ``cells`` is the side of the picture."""
    found, side = looked(name, layers, heads), -(-T // cells)
    assert list(found) == list(layers)
    ends = np.minimum(np.arange(1, cells + 1) * side, T)
    for layer in layers:
        p = by_definition(name)[layer][list(heads)]
        picture = [
            [p[:, a - n : a, b - m : b].mean((1, 2)) for b, m in zip(ends, np.diff(ends, prepend=0))]
            for a, n in zip(ends, np.diff(ends, prepend=0))
        ]
        np.testing.assert_allclose(found[layer].picture, np.transpose(picture, (2, 0, 1)), atol=2e-6)
        rest = np.where(np.arange(T) < probe.FIRST, 0, p)
        bounds = probe.edges(T)
        mass = [
            np.where((a <= distances) & (distances < b), rest, 0).sum((1, 2)) / T
            for a, b in itertools.pairwise(bounds)
        ]
        np.testing.assert_allclose(found[layer].mass, np.transpose(mass), atol=2e-6)
        np.testing.assert_allclose(found[layer].first, p[:, :, : probe.FIRST].sum((1, 2)) / T, atol=2e-6)
        with np.errstate(divide='ignore', invalid='ignore'):
            entropy = -np.where(p > 0, p * np.log(p), 0).sum((1, 2)) / T
        np.testing.assert_allclose(found[layer].entropy, entropy, atol=5e-6)
        np.testing.assert_allclose(found[layer].mass.sum(axis=1) + found[layer].first, 1, atol=1e-5)


@pytest.mark.parametrize('name', MODELS)
def test_probabilities_are_those_of_the_definition(name):
    check(name, LAYERS, HEADS, cells=T)


def test_a_text_longer_than_the_picture_is_averaged_in_pieces(monkeypatch):
    """24 tokens in cells of 5, of which the last has 4; pieces of two cells, the last of them padded."""
    monkeypatch.setattr(probe, 'CELLS', 5)
    monkeypatch.setattr(probe, 'PIECE', 12)
    assert probe.Probe((0,), (0,), T).piece == 10
    check('self_extend', (1,), (2, 1), cells=5)


def test_layers_that_follow_the_scan_have_their_own(monkeypatch):
    monkeypatch.setattr(probe, 'PIECE', 8)
    check('hybrid', (2, 1, 0), (0, 1, 2, 3), cells=T)


def test_edges_reach_the_greatest_distance():
    assert probe.edges(2) == [0, 1, 2] and probe.edges(5) == [0, 1, 2, 4, 8]
    assert all(probe.edges(n)[-2] <= n - 1 < probe.edges(n)[-1] for n in range(1, 100))


def test_other_mixers_are_refused():
    kind = LayerKind(mixer=Options(name='cope'), position=Options(name='none'))
    model = changed(kinds={'full': kind})
    with pytest.raises(ConfigError, match="mixer of 1 is 'cope'; only attention"):
        probe.look(model, {}, np.zeros(4, np.int32), np.arange(4), (1,), (0,))
