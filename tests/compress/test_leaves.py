"""Names of leaves, and the patterns that choose among them."""

import jax
import numpy as np
import pytest

from lcx.compress import leaves
from lcx.errors import ConfigError
from tests.models.tiny import CONFIG, parameters

KERNEL = 'layers/full_0/mixer/query/kernel'


def test_splitting_and_joining_gives_the_tree_back():
    params = parameters(CONFIG)
    norms, others = leaves.split(params, lambda name: 'norm' in name)
    assert {*leaves.named(norms)} == {name for name in leaves.named(params) if 'norm' in name}
    assert not {*leaves.named(norms)} & {*leaves.named(others)}
    whole = leaves.join(norms, others)
    assert jax.tree.structure(whole) == jax.tree.structure(params)
    jax.tree.map(np.testing.assert_array_equal, whole, params)
    assert leaves.split(params, leaves.every)[1] == {}


@pytest.mark.parametrize(
    ('pattern', 'name', 'expected'),
    [
        ('mixer/query', KERNEL, True),
        ('query', KERNEL, True),
        (KERNEL, KERNEL, True),
        ('layers/*/query', KERNEL, True),
        ('mixer/*', KERNEL, True),
        ('*', KERNEL, True),
        ('mixer/que', KERNEL, False),
        ('query', 'layers/full_0/mixer/query_norm/scale', False),
        ('*norm*', 'layers/full_0/mixer/query_norm/scale', True),
        ('*norm*', 'final_norm/scale', True),
        ('final_norm', 'final_norm/scale', True),
        ('*norm*', KERNEL, False),
        ('embedding', 'embedding', True),
        ('Embedding', 'embedding', False),
    ],
)
def test_patterns_match_whole_parts_of_names(pattern, name, expected):
    assert leaves.matches([pattern], name) == expected


def test_a_pattern_of_nothing_is_an_error_with_the_nearest_name():
    leaves.check(('mixer/*', 'embedding'), [KERNEL, 'embedding'], 'tune.train')
    with pytest.raises(ConfigError, match=r"tune.train: unknown 'embeding'. Did you mean 'embedding'"):
        leaves.check(('mixer/*', 'embeding'), [KERNEL, 'embedding'], 'tune.train')
