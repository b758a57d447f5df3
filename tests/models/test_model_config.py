"""A model's configuration: errors name the field and the way out, and extension is pinned by training."""

import dataclasses

import pytest

from lcx.config import Options, build
from lcx.errors import ConfigError
from lcx.models import LayerKind, ModelConfig
from tests.models.tiny import CONFIG, changed

SIZES = {f.name: getattr(CONFIG, f.name) for f in dataclasses.fields(CONFIG)}


@pytest.mark.parametrize(
    ('fields', 'message'),
    [
        ({'width': 0}, 'width: 0 must be greater than 0'),
        ({'softcap': -1.0}, 'softcap: -1.0 must be greater than 0'),
        ({'dtype': 'float16'}, "dtype: unknown 'float16'. .*Choices: bfloat16, float32"),
        ({'remat': 'dot'}, "remat: unknown 'dot'. Did you mean 'dots'"),
        ({'kv_heads': 3}, 'kv_heads: 3 does not divide heads=4; the nearest that does is 2'),
        ({'kv_heads': 8}, 'kv_heads: 8 does not divide heads=4; the nearest that does is 4'),
        ({'pattern': ()}, r'pattern: \(\) names no layer kind'),
        ({'pattern': ('ful',)}, "pattern: unknown 'ful'. Did you mean 'full'"),
        ({'norm': 'rmsnorm'}, "norm: unknown 'rmsnorm'. .*Choices: layer, rms, rms_plus_one"),
        ({'activation': 'gelu_new'}, "activation: unknown 'gelu_new'. Did you mean 'gelu_tanh'"),
        ({'bias': ('qkv', 'ouput')}, "bias: unknown 'ouput'. Did you mean 'out'"),
        (
            {
                'attention_softcap': 5.0,
                'kinds': {'full': {'mixer': {'name': 'cope'}, 'position': {'name': 'none'}}},
            },
            "kinds.full.mixer.name: 'cope' has no softcap of scores; attention_softcap is 5.0",
        ),
        ({'attention_scale': 0.0}, 'attention_scale: 0.0 must be greater than 0'),
        ({'attention_softcap': -1.0}, 'attention_softcap: -1.0 must be greater than 0'),
        ({'embedding_scale': 0.0}, 'embedding_scale: 0.0 must be greater than 0'),
        ({'position': {'name': 'rop'}}, "position.name: unknown 'rop'. Did you mean 'rope'"),
        ({'position': {'name': 'rope', 'factor': 2.0}}, r"position.factor \(of 'rope'\): unknown 'factor'"),
        ({'position': {'name': 'yarn', 'factor': 0.5}}, 'position.factor: 0.5 must be'),
        (
            {'kinds': {'full': {'mixer': {'name': 'attenton'}}}},
            "kinds.full.mixer.name: unknown 'attenton'. Did you mean 'attention'.* Choices: attention, cope",
        ),
        (
            {'kinds': {'full': {'mixer': {'name': 'cope'}}}},
            "kinds.full.mixer.name: 'cope' .* position 'rope'",
        ),
        (
            {'position': {'name': 'none'}, 'kinds': {'full': {'mixer': {'name': 'cope', 'positions': 0}}}},
            'kinds.full.mixer.positions: 0 must be at least 1',
        ),
        (
            {
                'position': {'name': 'none'},
                'kinds': {'full': {'mixer': {'name': 'cope'}, 'attention': {'name': 'xla'}}},
            },
            "kinds.full.mixer.name: 'cope' has no attention 'xla'; its choices are blockwise, dense",
        ),
        (
            {
                'position': {'name': 'none'},
                'kinds': {'full': {'mixer': {'name': 'cope'}, 'regions': {'name': 'rerope', 'window': 4}}},
            },
            "kinds.full.mixer.name: 'cope' has no positions for regions 'rerope'",
        ),
        (
            {'kinds': {'full': {'attention': {'name': 'blokwise'}}}},
            "kinds.full.attention.name: unknown 'blokwise'. Did you mean 'blockwise'",
        ),
        (
            {'kinds': {'full': {'attention': {'name': 'dense', 'block': 64}}}},
            r"kinds.full.attention.block \(of 'dense'\): unknown 'block'.* it has no options",
        ),
        (
            {'kinds': {'full': {'attention': {'name': 'blockwise', 'block': 0.5}}}},
            'kinds.full.attention.block: 0.5 is a float; expected a int',
        ),
        (
            {'kinds': {'full': {'rule': ({'name': 'causal'}, {'name': 'window', 'size': 0})}}},
            r'kinds.full.rule\[1\].size: 0 must be at least 1',
        ),
        (
            {'kinds': {'full': {'position': {'name': 'pi', 'factor': 0.0}}}},
            'kinds.full.position.factor: 0.0 must be',
        ),
    ],
)
def test_errors(fields, message):
    with pytest.raises(ConfigError, match=f'^model.{message}'):
        build(ModelConfig, {**SIZES, **fields}, 'model')


def test_is_hashable_however_it_was_made():
    by_hand = changed(kinds={'full': LayerKind(rule=[{'name': 'causal'}])}, position={'name': 'rope'})
    built = build(ModelConfig, {**SIZES, 'kinds': {'full': {'rule': [{'name': 'causal'}]}}})
    assert by_hand == built == CONFIG and hash(by_hand) == hash(built) == hash(CONFIG)


def test_trained_at_pins_what_follows_the_length():
    model = changed(position={'name': 'yarn'}, trained_length=64).trained_at(256)
    assert model.trained_length == 256
    assert model.position == {'name': 'yarn', 'factor': 4.0, 'original_length': 64}
    assert model.trained_at(1024).position == model.position
    assert model.trained_at(1024).trained_length == 1024


def test_trained_at_keeps_what_is_given_and_what_follows_no_length():
    given = {'name': 'yarn', 'factor': 8.0, 'original_length': 32}
    assert changed(position=given, trained_length=64).trained_at(256).position == given
    assert changed(position={'name': 'rope', 'theta': None}).trained_at(256).position == {'name': 'rope'}


def test_trained_at_pins_the_positions_of_kinds():
    kinds = {'local': LayerKind(), 'full': LayerKind(position=Options(name='pi'))}
    model = changed(kinds=kinds, pattern=('local', 'full'), trained_length=64).trained_at(128)
    assert model.kinds['full'].position == {'name': 'pi', 'factor': 2.0, 'original_length': 64}
    assert model.kinds['local'].position is None
