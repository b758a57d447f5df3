"""Bytes in the text of compiled programs, also of forms that CPUs do not have. What strategies send is tested there."""

from pathlib import Path

import pytest

from lcx.parallel.sequence import CANNOT, FEATURES, STRATEGIES, table
from lcx.parallel.traffic import collective_bytes

LOOP = """HloModule jit_f, is_scheduled=true, num_partitions=8

%body.1 (p: (s32[], bf16[4,8])) -> (s32[], bf16[4,8]) {
  %p = (s32[], bf16[4,8]{1,0}) parameter(0)
  %x = bf16[4,8]{1,0} get-tuple-element(%p), index=1
  %start = (bf16[4,8]{1,0}, bf16[4,8]{1,0}, u32[], u32[]) collective-permute-start(%x)
  ROOT %done = bf16[4,8]{1,0} collective-permute-done(%start)
}

%yes (a: f32[6]) -> f32[6] {
  ROOT %s = f32[6]{0} all-reduce(%a), replica_groups=[2,4]<=[8], to_apply=%add
}

%no (a: f32[6]) -> f32[6] {
  ROOT %a = f32[6]{0} parameter(0)
}

ENTRY %main (x: bf16[4,8], y: f32[6]) -> f32[6] {
  %w = (s32[], /*index=1*/bf16[4,8]{1,0}) while(%t), condition=%cond.1, body=%body.1TRIPS
  %c = f32[6]{0} conditional(%b, %y, %y), branch_computations={%no, %yes}
  %g = (f32[6]{0}, f32[12]{0}) all-gather-start(%y), replica_groups={{0,1},{2,3},{4,5},{6,7}}, dimensions={0}
  %h = f32[12]{0} all-gather-done(%g)
  ROOT %r = f32[6]{0} reduce-scatter(%h), replica_groups={{0,1},{2,3},{4,5},{6,7}}, to_apply=%add
}
"""


def test_loops_branches_and_operations_that_are_begun():
    text = LOOP.replace('TRIPS', ', backend_config={"known_trip_count":{"n":"7"}}')
    assert collective_bytes(text) == {
        'collective-permute': 7 * 2 * 4 * 8,
        'all-reduce': 2 * 24 * 3 // 4,
        'all-gather': 24,
        'reduce-scatter': 24,
    }


def test_a_loop_of_unknown_length_is_an_error():
    with pytest.raises(
        ValueError, match=r"main: \{'collective-permute': 64\} is sent in a loop of unknown length"
    ):
        collective_bytes(LOOP.replace('TRIPS', ''))


def test_the_table_has_every_strategy_and_feature():
    assert set(CANNOT) == set(STRATEGIES)
    assert all(set(reasons) <= set(FEATURES) for reasons in CANNOT.values())
    head, rule, *rows = table().splitlines()
    assert head.count('|') == rule.count('|') == len(STRATEGIES) + 2
    assert [row.split(' | ')[0].removeprefix('| ') for row in rows] == list(FEATURES)
    assert '| causal | yes | yes | yes | yes | reads further than a shard |' in rows
    assert table() in (Path(__file__).parents[2] / 'README.md').read_text()
