"""Caches over a mesh; run by ``tests/parallel/test_on_eight_devices.py`` where JAX has eight devices."""

import jax
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from lcx.errors import ConfigError
from lcx.generate.policies import Room, make_policy
from lcx.models.cache import shardings
from tests.contracts.cache_contract import HYBRID, pieces, stepping, whole
from tests.models.tiny import T, parameters, random_batch

ROOM = Room(prompt=20, new=4, chunk=10)
POLICIES = [
    {'name': 'full'},
    {'name': 'h2o', 'budget': 24},
    {'name': 'quantised', 'group': 4, 'residual': 12, 'bits': 8},
]


@pytest.fixture(scope='module')
def mesh():
    return jax.make_mesh((4, 2), ('data', 'tensor'), axis_types=(AxisType.Auto,) * 2)


@pytest.mark.parametrize('options', POLICIES, ids=lambda options: options['name'])
def test_a_text_is_read_through_caches_that_lie_apart(mesh, options):
    policy, batch = make_policy(options, ROOM), random_batch(rows=4)
    texts = batch.tokens, batch.positions, batch.segments
    wanted = shardings(
        jax.eval_shape(lambda: policy.caches(HYBRID, batch=4)), mesh, batch='data', heads='tensor'
    )
    caches = jax.jit(lambda: policy.caches(HYBRID, batch=4), out_shardings=wanted)()
    plain = policy.caches(HYBRID, batch=4)
    params = jax.device_put(parameters(HYBRID), NamedSharding(mesh, PartitionSpec()))
    step = stepping(HYBRID)
    for piece in pieces(texts, (10, 10, 1, 1)):
        hidden, caches = step(params, caches, *piece)
        expected, plain = step(parameters(HYBRID), plain, *piece)
        np.testing.assert_allclose(hidden, expected, atol=2e-5)
    for x, sharding in zip(jax.tree.leaves(caches), jax.tree.leaves(wanted), strict=True):
        assert x.sharding.is_equivalent_to(sharding, x.ndim)
        if x.ndim > 2:  # an eighth on each device
            assert {shard.data.size for shard in x.addressable_shards} == {x.size // 8}
    if options['name'] == 'full':
        found = whole(HYBRID)(parameters(HYBRID), *texts)[:, T - 3]
        np.testing.assert_allclose(hidden[:, 0], found, atol=2e-5)


def test_what_does_not_divide_is_refused(mesh):
    caches = jax.eval_shape(lambda: make_policy({'name': 'full'}, ROOM).caches(HYBRID, batch=3))
    with pytest.raises(ConfigError, match="3 rows or key heads do not divide over 4 of 'data'"):
        shardings(caches, mesh, batch='data')
