"""The arithmetic of experiments/006_context_parallel: closed forms, and the bytes that compiled programs send."""

import importlib.util
import json
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parents[1] / 'experiments' / '006_context_parallel'


@pytest.fixture(scope='module')
def model():
    spec = importlib.util.spec_from_file_location('context_parallel_model', HERE / 'model.py')
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def test_a_ring_that_sends_for_nothing_waits_for_the_last_device(model):
    free = model.Device(1e15, float('inf'), float('inf'), float('inf'))
    for devices in (2, 8, 64):
        for strategy, share in (
            ('ring contiguous', devices / 2 / (devices - 0.5)),
            ('ring zigzag', 1),
            ('ulysses', 1),
        ):
            cost = model.attention(strategy, model.LLAMA_3_8B, free, 2**20, devices)
            assert cost.ideal_forward / cost.forward == pytest.approx(share)
            assert cost.ideal_backward / cost.backward == pytest.approx(share)
        step = model.step('ring zigzag', model.LLAMA_3_8B, free, 2**20, devices, recompute=False)
        assert step.of_ideal == pytest.approx(1)


def test_operations_are_those_of_the_model_config(model):
    """6 for each matrix parameter and 7 N H T for causal attention, of which 3.5 forwards are the backward's share."""
    free = model.Device(1e15, float('inf'), float('inf'), float('inf'))
    tokens = 2**16
    step = model.step('ulysses', model.LLAMA_3_8B, free, tokens, 8, recompute=False)
    assert step.mfu == pytest.approx(model.EFFICIENCY)
    work = 6 * 7.5e9 + 32 * 7 * 4096 * tokens
    assert step.seconds == pytest.approx(work * tokens / 8 / (1e15 * model.EFFICIENCY))


@pytest.mark.parametrize('strategy', ['ring', 'all_gather', 'ulysses'])
def test_bytes_are_those_of_compiled_programs(strategy):
    """fp32; ring and all_gather send keys n - 1 times forward; positions and segments, 8 bytes a token, go along."""
    rows = [json.loads(line) for line in (HERE / 'results.jsonl').read_text().splitlines()]
    found = {
        r['length']: r['sent']
        for r in rows
        if (r['what'], r.get('strategy'), r['rule' if 'rule' in r else 'what'])
        == ('attention', strategy, 'causal')
    }
    assert len(found) == 5
    for length, sent in found.items():
        own, n = length // 8, 8
        keys, queries, numbers = 2 * own * 2 * 64 * 4, 2 * own * 8 * 64 * 4, 8 * own
        expected = {
            'ring': (n - 1) * (keys + numbers) + n * (2 * keys + numbers),
            'all_gather': (n - 1)
            * (2 * keys + numbers),  # one gather, which the backward pass finds; then a scatter
            'ulysses': (n - 1) / n * 2 * (queries + 4 * keys)
            + (n - 1) * numbers,  # key heads repeated to eight
        }[strategy]
        assert sent == pytest.approx(expected, rel=0.01)
