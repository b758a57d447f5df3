"""Every method of the registry keeps the contract of methods inside attention."""

from lcx.positions import POSITIONS
from tests.contracts.method_contract import LISTS, MethodContract, Row


class TestContract(MethodContract):
    rows = [
        Row('none'),
        Row('rope'),
        Row('rope', {'rotary_fraction': 0.5, 'interleaved': True}),
        Row('pi', {'factor': 4.0}),
        Row('ntk', {'factor': 4.0}),
        Row('dynamic_ntk', {'factor': 2.0, 'original_length': 4}),
        Row('ntk_by_parts', {'factor': 4.0}),
        Row('yarn', {'factor': 4.0}),
        Row('llama3', {'factor': 4.0}),
        Row('longrope', LISTS),
        Row('p_rope', {'rotary_fraction': 0.5}),
        Row('xpos', {'scale_base': 16.0}),
        Row('log_n', {'original_length': 4, 'base': {'name': 'fire', 'threshold': 4.0, 'hidden': 4}}),
        Row('ssmax', {'base': {'name': 'kerple'}}),
        Row('ssmax', {'base': {'name': 'dynamic_ntk', 'original_length': 4}}),
        Row('alibi'),
        Row('t5', {'num_buckets': 8, 'max_distance': 10}),
        Row('transformer_xl', {'dims': 12}),
        Row('kerple'),
        Row('kerple', {'kernel': 'power'}),
        Row('fire', {'threshold': 4.0, 'hidden': 4}),
        Row('sandwich', {'dims': 16}),
        Row('sinusoidal', {'scale': 1.0}),
        Row('learned', {'original_length': 4}),
        Row('randomized', {'target_length': 64, 'base': {'name': 'alibi'}}),
        *(
            Row('random_float', {'target_length': 64, 'base': {'name': base}})
            for base in ('rope', 'dynamic_ntk', 'xpos', 'alibi', 't5', 'sinusoidal', 'learned')
        ),
        Row('pose', {'target_length': 64}),
        Row('shape', {'max_offset': 50}),
    ]


def test_every_method_has_a_row():
    assert {row.name for row in TestContract.rows} == set(POSITIONS)
