"""Sizes of a mesh: what they multiply to, and what is said where they do not."""

import jax
import pytest

from lcx.errors import ConfigError
from lcx.parallel import AXES, MeshConfig, mesh


def sizes(devices: int, **given) -> tuple[int, ...]:
    return tuple(MeshConfig(**given).sizes(devices).values())


def test_sizes_are_in_the_order_of_the_axes():
    assert AXES == ('data', 'fsdp', 'context', 'tensor', 'stage')
    assert sizes(240, stage=5, tensor=2, context=4, fsdp=3, data=2) == (2, 3, 4, 2, 5)
    assert sizes(1) == (1, 1, 1, 1, 1)


def test_one_axis_takes_what_the_others_leave():
    assert sizes(64, fsdp=-1, tensor=8) == (1, 8, 1, 8, 1)
    assert sizes(64, data=-1, fsdp=64) == (1, 64, 1, 1, 1)
    assert sizes(64, data=-1, fsdp=-1, tensor=8) == (1, 8, 1, 8, 1)  # fsdp takes what is left


@pytest.mark.parametrize(
    ('devices', 'given', 'message'),
    [
        (8, {}, r'mesh: data=1 multiplies to 1, but there are 8 devices\. Nearest: data=8\.$'),
        (
            8,
            {'data': 3, 'fsdp': 2},
            r'data=3 x fsdp=2 multiplies to 6, but there are 8 .* Nearest: data=4 x fsdp=2\.$',
        ),
        (12, {'tensor': 8}, r'tensor=8 multiplies to 8, .* 12 devices\. Nearest: tensor=12\.$'),
        (
            8,
            {'data': -1, 'tensor': 3},
            r'data=-1 x tensor=3 leaves 8 / 3 devices to data\. Nearest: data=4 x tensor=2\.$',
        ),
        (1, {'fsdp': -1, 'stage': 2}, r'leaves 1 / 2 devices to fsdp\. Nearest: data=1\.$'),
    ],
)
def test_sizes_that_do_not_multiply_to_the_devices(devices, given, message):
    with pytest.raises(ConfigError, match=message):
        sizes(devices, **given)


def test_the_nearest_sizes_of_many_devices_come_at_once():
    with pytest.raises(ConfigError, match=r'Nearest: data=64 x tensor=64\.'):
        sizes(4096, data=64, tensor=63)


@pytest.mark.parametrize(
    ('given', 'message'),
    [
        ({'tensor': 0}, r'^tensor: 0 must be at least 1\. Nearest: 1\.$'),
        ({'context': -1}, r'^context: -1 must be at least 1\. Nearest: 1\.$'),
        ({'data': -2}, r'^data: -2 must be at least 1, or -1 for what the other axes leave\. Nearest: 1\.$'),
    ],
)
def test_sizes_that_cannot_be(given, message):
    with pytest.raises(ConfigError, match=message):
        MeshConfig(**given)


def test_a_mesh_of_the_devices_that_are_there_and_of_those_that_are_not():
    found, planned = (
        mesh.make(MeshConfig(fsdp=-1), jax.devices()[:1]),
        mesh.abstract(MeshConfig(fsdp=-1, tensor=2), 64),
    )
    assert found.axis_names == planned.axis_names == AXES
    assert set(found.axis_types) == set(planned.axis_types) == {jax.sharding.AxisType.Auto}
    assert tuple(planned.shape.values()) == (1, 32, 1, 2, 1)
    with pytest.raises(ConfigError, match='2, but there are 1 devices'):
        mesh.make(MeshConfig(data=2), jax.devices()[:1])


def test_a_share_that_comes_out_even():
    assert mesh.share({'data': 2, 'fsdp': 4}, 'batch', 24, ('data', 'fsdp', 'absent')) == 3


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (
            (6, ('data', 'fsdp')),
            r'^x: 6 is no multiple of mesh\.data=2 x mesh\.fsdp=2\. Nearest: x 4 or 8\.$',
        ),
        (
            (30, ('tensor',)),
            r'^x: 30 is no multiple of mesh\.tensor=4\. Nearest: x 28 or 32, or mesh\.tensor 5\.$',
        ),
        ((3, ('tensor',)), r'^x: 3 is no multiple of mesh\.tensor=4\. Nearest: x 4, or mesh\.tensor 3\.$'),
        (
            (12, ('tensor',), 2, 'halves'),
            r'^x: 12 is no multiple of mesh\.tensor=4 x 2 halves\. Nearest: x 8 or 16, or mesh\.tensor 3\.$',
        ),
    ],
)
def test_a_share_that_does_not(arguments, message):
    with pytest.raises(ConfigError, match=message):
        mesh.share({'data': 2, 'fsdp': 2, 'tensor': 4}, 'x', *arguments)
