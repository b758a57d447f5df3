"""Rules by name: options make the same rules as code, and errors name the option."""

import pytest

from lcx.attention import (
    both,
    causal,
    chunked,
    dilated,
    either,
    everything,
    global_tokens,
    random_blocks,
    rules,
    shifted_groups,
    strided,
    window,
)
from lcx.errors import ConfigError


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        ({'name': 'windov', 'size': 4}, "rule.name: unknown 'windov'. Did you mean 'window'?"),
        ({'name': 'window', 'length': 4}, r"rule.length \(of 'window'\): unknown 'length'.* Choices: size"),
        ({'name': 'window', 'size': 4.0}, 'rule.size: 4.0 is a float; expected a int'),
        ({'name': 'window'}, "rule.size: 'window' needs it"),
        ({'name': 'window', 'size': 0}, 'rule.size: 0 must be at least 1'),
        ({'name': 'sinks', 'count': -1}, 'rule.count: -1 must be at least 1'),
        ({'name': 'chunked', 'size': 0}, 'rule.size: 0 must be at least 1'),
        ({'name': 'shifted_groups', 'size': 0}, 'rule.size: 0 must be at least 1'),
        ({'name': 'shifted_groups', 'size': 7}, 'rule.size: 7 must be even.* the nearest is 8'),
        ({'name': 'dilated', 'segment': 0, 'rate': 1}, 'rule.segment: 0 must be at least 1'),
        ({'name': 'dilated', 'segment': 4, 'rate': 0}, 'rule.rate: 0 must be at least 1'),
        ({'name': 'dilated', 'segment': 4, 'rate': 5}, 'rule.rate: 5 is greater than segment=4'),
        ({'name': 'strided', 'stride': -2}, 'rule.stride: -2 must be at least 1'),
        ({'name': 'global_tokens', 'count': 0}, 'rule.count: 0 must be at least 1'),
        ({'name': 'random_blocks', 'size': 0, 'one_in': 2}, 'rule.size: 0 must be at least 1'),
        ({'name': 'random_blocks', 'size': 4, 'one_in': 0}, 'rule.one_in: 0 must be at least 1'),
        ({'name': 'causal', 'size': 4}, 'it has no options'),
        ({'name': 'either', 'rules': ()}, r'rule.rules: either\(\) needs at least one'),
        (
            {'name': 'either', 'rules': ({'name': 'causal'}, {'name': 'sink'})},
            r'rule.rules\[1\].name: unknown',
        ),
        ({'name': 'both', 'rules': ({'name': 'window', 'size': 0},)}, r'rule.rules\[0\].size: 0 must be at'),
        (
            {'name': 'either', 'rules': ('causal',)},
            r"rule.rules\[0\]: 'causal' is a str; expected named fields",
        ),
    ],
)
def test_errors_name_the_option(options, message):
    with pytest.raises(ConfigError, match=message):
        rules.from_options(options)


@pytest.mark.parametrize(
    ('options', 'rule'),
    [
        ({'name': 'causal'}, causal),
        ({'name': 'chunked', 'size': 4}, chunked(4)),
        ({'name': 'shifted_groups', 'size': 4}, shifted_groups(4)),
        ({'name': 'dilated', 'segment': 8, 'rate': 2}, dilated(8, 2)),
        ({'name': 'strided', 'stride': 4}, strided(4)),
        ({'name': 'random_blocks', 'size': 4, 'one_in': 3}, random_blocks(4, 3)),
        (
            {
                'name': 'either',
                'rules': [{'name': 'window', 'size': 2}, {'name': 'global_tokens', 'count': 1}],
            },
            either(window(2), global_tokens(1)),
        ),
        (
            {
                'name': 'either',
                'rules': (
                    {'name': 'both', 'rules': ({'name': 'causal'}, {'name': 'window', 'size': 2})},
                    {'name': 'random_blocks', 'size': 4, 'one_in': 3, 'seed': 5},
                ),
            },
            either(both(causal, window(2)), random_blocks(4, 3, seed=5)),
        ),
        ({'name': 'both', 'rules': ()}, everything),
    ],
)
def test_options_make_the_same_rules(options, rule):
    assert rules.from_options(options) is rule
