"""config.json: both spellings of transformers, what is kept, what is refused, and models that have changed."""

import contextlib
import dataclasses
import functools

import jax
import numpy as np
import pytest

from configs.base import get_config
from lcx import convert
from lcx.config import build, plain
from lcx.convert.config import from_hf, to_hf
from lcx.errors import ConfigError
from lcx.launch.experiment import experiment_config, values_of
from lcx.models import LayerKind, ModelConfig, init
from tests.convert.families import NAMES, config_of, read, write_golden
from tests.models.tiny import CONFIG, changed

ROPE = {'rope_type': 'default', 'rope_theta': 1000.0}


def old(name: str, *dropped: str, **fields) -> dict:
    """A config.json in the spelling of transformers 4: without ``rope_parameters`` (and ``dropped``)."""
    values = config_of(name)
    return {key: x for key, x in values.items() if key not in ('rope_parameters', *dropped)} | fields


LLAMA3 = {
    'rope_type': 'llama3', 'factor': 4.0, 'low_freq_factor': 1.0, 'high_freq_factor': 4.0,
    'original_max_position_embeddings': 16,
}  # fmt: skip
YARN = {
    'type': 'yarn', 'factor': 4.0, 'original_max_position_embeddings': 16, 'beta_fast': 4.0, 'beta_slow': 0.5,
}  # fmt: skip
FACTORS = {'short_factor': [1.0, 1.25, 1.5], 'long_factor': [1.0, 2.0, 3.5]}
OLD = {
    'llama': old('llama', rope_theta=1000.0, rope_scaling=LLAMA3),
    'mistral': old('mistral', 'head_dim', rope_theta=1000.0, rope_scaling=None),
    'qwen2': old('qwen2', 'layer_types', rope_theta=1000.0, rope_scaling=YARN),
    'qwen2_windows': old('qwen2_windows', 'layer_types', rope_theta=1000.0),
    'gemma2': old('gemma2', 'layer_types', 'tie_word_embeddings', rope_theta=1000.0),
    'gemma3': old(
        'gemma3', 'layer_types', rope_theta=1000.0, rope_local_base_freq=100.0,
        rope_scaling={'rope_type': 'linear', 'factor': 8.0},
    ),
    'phi3_long': old(
        'phi3_long', rope_theta=1000.0, rope_scaling={'type': 'su', **FACTORS}, partial_rotary_factor=0.75,
    ),
    'gpt_neox': old('gpt_neox', rotary_pct=0.25, rotary_emb_base=1000),
}  # fmt: skip


@pytest.mark.parametrize('name', OLD)
def test_transformers_4_is_the_same_model_and_is_written_in_version_5(name):
    new, values = config_of(name), OLD[name]
    found, expected = from_hf(values), from_hf(new)
    assert dataclasses.replace(found, source={}) == dataclasses.replace(expected, source={})
    back = to_hf(found)
    assert not back.keys() & {
        'rope_scaling',
        'rope_theta',
        'rope_local_base_freq',
        'rotary_pct',
        'rotary_emb_base',
    }
    written = [
        to_hf(dataclasses.replace(config, source={}), architecture=new['architectures'][0])
        for config in (from_hf(back), expected)
    ]
    assert written[0] == written[1]


@pytest.mark.parametrize('name', NAMES)
def test_fields_survive_a_checkpoint_of_lcx(name):
    """A ModelConfig as JSON, which is what a checkpoint keeps, gives the same config.json."""
    config = from_hf(config_of(name))
    again = build(ModelConfig, plain(config), 'model')
    assert again == config and hash(again) == hash(config)
    assert to_hf(again) == config_of(name)


def test_a_field_that_lcx_does_not_know_is_kept():
    values = config_of('llama') | {'my_field': {'a': [1, 2.5, None]}}
    assert to_hf(from_hf(values)) == values


@pytest.mark.parametrize(
    ('name', 'fields', 'message'),
    [
        ('llama', {'architectures': ['LlamaForCausalM']}, "architectures: unknown.*Did you mean 'LlamaForCausalLM'"),
        ('llama', {'architectures': ['MixtralForCausalLM']}, "unknown 'MixtralForCausalLM'.*Choices: GPT2LMHeadModel"),
        ('llama', {'architectures': None}, 'architectures: None names none'),
        ('llama', {'pretraining_tp': 2}, 'pretraining_tp: 2 is not supported; only None or 1 is'),
        ('llama', {'quantization_config': {'bits': 4}}, 'quantization_config: .* is not supported; only None'),
        ('llama', {'rope_interleaved': True}, 'rope_interleaved: True is not supported'),
        ('llama', {'num_local_experts': 8}, 'num_local_experts: 8 is not supported'),
        ('llama', {'hidden_act': 'relu6'}, "hidden_act: unknown 'relu6'"),
        ('llama', {'hidden_size': '32'}, "hidden_size: '32' is a str; expected a int"),
        ('llama', {'vocab_size': 10**30}, 'vocab_size: 1000000000000000000000000000000 is more than 2147483647'),
        ('llama', {'num_hidden_layers': 10**9}, 'num_hidden_layers: 1000000000 is more than 10000'),
        ('llama', {'head_dim': 10**9}, 'head_dim: 1000000000 is more than 65536'),
        ('gpt2', {'n_embd': 10**9}, 'head_dim: 250000000 is more than 65536'),
        ('llama', {'num_attention_heads': 0}, 'num_attention_heads: 0 must be greater than 0'),
        ('llama', {'num_key_value_heads': 3}, 'kv_heads: 3 does not divide heads=4'),
        ('llama', {'rope_parameters': {**ROPE, 'rope_type': 'yarm'}}, "rope_type: unknown 'yarm'"),
        ('llama', {'rope_parameters': {**ROPE, 'partial_rotary_factor': 0.5}}, 'partial_rotary_factor: 0.5; .* whole'),
        ('llama', {'rope_parameters': {**ROPE, 'mrope_section': [2, 2]}}, 'mrope_section'),
        ('llama', {'rope_parameters': {'full_attention': ROPE}}, 'full_attention: holds parameters of its own'),
        ('llama', {'rope_parameters': {**LLAMA3, 'original_max_position_embeddings': 'x'}}, 'original_length'),
        ('llama', {'rope_parameters': {**LLAMA3, 'factor': 0}}, 'position.factor: 0'),
        ('mistral', {'layer_types': ['full_attention'] * 2}, 'layer_types: .* is not supported; only None'),
        ('qwen2', {'layer_types': ['full_attention']}, 'layer_types: names 1 layers, but num_hidden_layers is 2'),
        ('qwen2', {'layer_types': ['full_attention', 'chunked_attention']}, "layer_types: unknown 'chunked_attention'"),
        ('qwen2', {'num_hidden_layers': 0, 'layer_types': None}, 'num_hidden_layers: 0 must be greater than 0'),
        ('qwen2', {'layer_types': ['sliding_attention'] * 2}, 'sliding_window: None, but layer_types'),
        ('gemma2', {'use_bidirectional_attention': True}, 'use_bidirectional_attention: True is not supported'),
        ('gemma2', {'query_pre_attn_scalar': 0}, 'query_pre_attn_scalar: 0.0 must be greater than 0'),
        ('gemma3', {'attn_logit_softcapping': 30.0}, 'attn_logit_softcapping: 30.0 is not supported'),
        ('gemma3', {'rope_parameters': ROPE}, "rope_parameters.rope_type: Gemma 3 has those of 'full_attention'"),
        ('gemma3', {'sliding_window_pattern': 0}, 'sliding_window_pattern: 0 must be'),
        ('phi3_short', {'rope_parameters': {**ROPE, 'rope_type': 'linear', 'factor': 2.0}}, "position: 'pi'; Phi-3"),
        ('gpt_neox', {'num_attention_heads': 3}, 'num_attention_heads: 3 does not divide hidden_size 32'),
        ('gpt2', {'scale_attn_by_inverse_layer_idx': True}, 'scale_attn_by_inverse_layer_idx: True is not supported'),
        ('gpt2', {'n_head': 5}, 'n_head: 5 does not divide n_embd 32'),
    ],
)  # fmt: skip
def test_what_cannot_be_read_is_named(name, fields, message):
    with pytest.raises(ConfigError, match=f'^config.json: .*{message}'):
        from_hf({**config_of(name), **fields})


STRANGE = (
    [],
    {},
    -1,
    0,
    None,
    'x',
    1e30,
    True,
    [1],
    10**9,
    -0.5,
    {'a': {}},
    [None],
    float('nan'),
    2**31 - 1,
    1e-30,
)


@pytest.mark.parametrize('name', ['gemma3', 'phi3_long', 'gpt_neox', 'gpt2'])
def test_whatever_a_field_holds_there_is_a_model_or_an_error_that_names_it(name):
    """Each field in turn, and each of rope_parameters: no other exception, no time, no memory."""
    values = config_of(name)
    rope = values.get('rope_parameters', {})
    strange = [{**values, key: x} for key in values for x in STRANGE]
    strange += [{**values, 'rope_parameters': {**rope, key: x}} for key in rope for x in STRANGE]
    for fields in strange:
        with contextlib.suppress(ConfigError):
            to_hf(from_hf(fields))


def test_a_missing_size_is_named(tmp_path):
    with pytest.raises(ConfigError, match=r'config\.json: hidden_size: missing'):
        convert.read_config(write_golden(tmp_path, 'llama', hidden_size=None))


# What the published config.json says of the computation, and the parameters that the model is known to have.
SMOLLM2 = {
    'architectures': ['LlamaForCausalLM'], 'vocab_size': 49152, 'hidden_size': 576, 'intermediate_size': 1536,
    'num_hidden_layers': 30, 'num_attention_heads': 9, 'num_key_value_heads': 3, 'max_position_embeddings': 8192,
    'rms_norm_eps': 1e-5, 'rope_interleaved': False, 'rope_scaling': None, 'rope_theta': 100000,
    'tie_word_embeddings': True, 'torch_dtype': 'bfloat16', 'pretraining_tp': 1,
}  # fmt: skip
PYTHIA = {
    'architectures': ['GPTNeoXForCausalLM'], 'vocab_size': 50304, 'hidden_size': 512, 'intermediate_size': 2048,
    'num_hidden_layers': 6, 'num_attention_heads': 8, 'max_position_embeddings': 2048, 'rotary_pct': 0.25,
    'rotary_emb_base': 10000, 'use_parallel_residual': True, 'tie_word_embeddings': False, 'torch_dtype': 'float16',
}  # fmt: skip
GEMMA3 = {
    'architectures': ['Gemma3ForCausalLM'], 'vocab_size': 262144, 'hidden_size': 1152, 'intermediate_size': 6912,
    'num_hidden_layers': 26, 'num_attention_heads': 4, 'num_key_value_heads': 1, 'head_dim': 256,
    'max_position_embeddings': 32768, 'query_pre_attn_scalar': 256, 'rope_local_base_freq': 10000,
    'rope_scaling': None, 'rope_theta': 1000000, 'sliding_window': 512, 'sliding_window_pattern': 6,
}  # fmt: skip


@pytest.mark.parametrize(
    ('values', 'parameters'),
    [(SMOLLM2, 134_515_008), (PYTHIA, 70_426_624), (GEMMA3, 999_885_952)],
    ids=['SmolLM2-135M', 'pythia-70m', 'gemma-3-1b'],
)
def test_published_models_have_their_sizes(values, parameters):
    config = from_hf(values)
    shapes = jax.eval_shape(functools.partial(init, config), jax.random.key(0))
    assert sum(x.size for x in jax.tree.leaves(shapes)) == parameters


class TestExtended:
    """What has changed is written, and nothing else."""

    @staticmethod
    def difference(before: dict, after: dict) -> dict:
        assert before.keys() == after.keys()
        return {key: x for key, x in after.items() if before[key] != x}

    def llama(self, **fields) -> ModelConfig:
        return dataclasses.replace(from_hf(config_of('llama_bias')), **fields)

    def test_yarn_after_training_at_four_times_the_length(self):
        config = self.llama(position={'name': 'yarn', 'theta': 1000.0}).trained_at(256)
        rope = {
            'rope_type': 'yarn', 'rope_theta': 1000.0, 'factor': 4.0, 'original_max_position_embeddings': 64,
            'beta_fast': 32.0, 'beta_slow': 1.0, 'truncate': True,
        }  # fmt: skip
        expected = {'rope_parameters': rope, 'max_position_embeddings': 256}
        assert self.difference(config_of('llama_bias'), to_hf(config)) == expected

    def test_yarn_without_training_is_for_the_length_asked_for(self):
        config = self.llama(position={'name': 'yarn', 'theta': 1000.0})
        found = to_hf(config, length=512)
        assert found['max_position_embeddings'] == 512 and found['rope_parameters']['factor'] == 8.0
        assert to_hf(config)['max_position_embeddings'] == 64

    def test_a_factor_of_its_own_reaches_further_than_training(self):
        config = self.llama(position={'name': 'yarn', 'theta': 1000.0, 'factor': 8.0})
        assert to_hf(config)['max_position_embeddings'] == 512

    def test_pose_is_its_base_at_the_target_length(self):
        options = {'name': 'pose', 'target_length': 1024, 'base': {'name': 'yarn', 'theta': 1000.0}}
        for config in (self.llama(position=options), self.llama(position=options).trained_at(64)):
            found = to_hf(config)
            assert found['max_position_embeddings'] == 1024 and found['rope_parameters']['factor'] == 16.0

    def test_dynamic_keeps_the_length_that_it_extends(self):
        config = self.llama(position={'name': 'dynamic_ntk', 'theta': 1000.0, 'factor': 2.0}).trained_at(256)
        assert to_hf(config, length=512)['max_position_embeddings'] == 64

    def test_a_length_alone(self):
        assert self.difference(config_of('gpt_neox'), to_hf(from_hf(config_of('gpt_neox')), length=96)) == {
            'max_position_embeddings': 96
        }

    def test_gemma_3_extends_its_full_layers(self):
        config = from_hf(config_of('gemma3'))
        config = dataclasses.replace(config, position={'name': 'yarn', 'theta': 1000.0}).trained_at(128)
        changes = self.difference(config_of('gemma3'), to_hf(config))
        assert changes.keys() == {'rope_parameters', 'max_position_embeddings'}
        assert changes['rope_parameters']['full_attention']['factor'] == 2.0
        assert changes['rope_parameters']['sliding_attention'] == {
            'rope_type': 'default',
            'rope_theta': 100.0,
        }

    def test_a_window_makes_llama_mistral(self):
        local = LayerKind(rule=({'name': 'causal'}, {'name': 'window', 'size': 9}))
        config = self.llama(kinds={'full': local}, bias=())
        with pytest.raises(ConfigError, match=r'LlamaForCausalLM cannot be written: kinds.full.rule'):
            to_hf(config)
        found = to_hf(config, architecture='MistralForCausalLM')
        assert found['sliding_window'] == 9 and found['model_type'] == 'mistral' and 'mlp_bias' not in found


def test_what_the_base_config_describes_is_a_llama():
    """With all the options that it leaves at None."""
    model = experiment_config(values_of(get_config('smoke'))).model
    found = to_hf(model)
    assert found['architectures'] == ['LlamaForCausalLM'] and found['max_position_embeddings'] == 64


@pytest.mark.parametrize(
    ('config', 'architecture'),
    [
        (CONFIG, 'LlamaForCausalLM'),
        (changed(bias=('qkv',)), 'Qwen2ForCausalLM'),
        (changed(qk_norm=True), 'Qwen3ForCausalLM'),
        (changed(position={'name': 'longrope', 'short_factor': (1.0,) * 4, 'long_factor': (2.0,) * 4}), None),
        (changed(position={'name': 'rope', 'rotary_fraction': 0.5}), 'Phi3ForCausalLM'),
        (
            changed(kv_heads=4, norm='layer', gated=False, activation='gelu', bias=('feed_forward',)),
            'GPTNeoXForCausalLM',
        ),
    ],
)
def test_a_model_of_lcx_is_written_as_what_has_a_place_for_it(config, architecture, tmp_path):
    params = jax.tree.map(np.asarray, jax.jit(init, static_argnums=0)(config, jax.random.key(0)))
    convert.save(config, params, tmp_path / 'out')
    values, _ = read(tmp_path / 'out')
    assert values['architectures'] == [architecture or 'LlamaForCausalLM'] and values['dtype'] == 'float32'
    back, found = convert.load(tmp_path / 'out')
    jax.tree.map(np.testing.assert_array_equal, found, params)
    assert to_hf(back) == values


@pytest.mark.parametrize(
    ('fields', 'architecture', 'message'),
    [
        ({'norm': 'layer'}, 'LlamaForCausalLM', "norm: 'layer', which would be read back as 'rms'"),
        ({'qk_norm': True}, 'Qwen2ForCausalLM', 'qk_norm: True, which would be read back as False'),
        ({'bias': ('out',)}, 'LlamaForCausalLM', r"bias: \('out',\), which would be read back as \(\)"),
        ({'attention_scale': 0.1}, 'MistralForCausalLM', 'attention_scale: 0.1, which'),
        ({'attention_softcap': 5.0}, 'MistralForCausalLM', 'attention_softcap: 5.0, which'),
        ({'embedding_scale': 2.0}, 'LlamaForCausalLM', 'embedding_scale: 2.0, which'),
        ({'position': {'name': 'xpos'}}, 'LlamaForCausalLM', "name: unknown 'xpos'"),
        ({'position': {'name': 'shape', 'max_offset': 8}}, 'LlamaForCausalLM', "name: unknown 'sinusoidal'"),
        ({'position': {'name': 'rope', 'interleaved': True}}, 'LlamaForCausalLM', 'interleaved: True has no spelling'),
        ({'position': {'name': 'rope', 'rotary_fraction': 0.5}}, 'LlamaForCausalLM', 'rotary_fraction: 0.5'),
        ({'position': {'name': 'rope'}}, 'GPT2LMHeadModel', "position.name: 'rope'; GPT-2 has learned positions"),
        (
            {'position': {'name': 'learned', 'factor': 2.0}}, 'GPT2LMHeadModel',
            'position.factor: 2.0; a table that is read between its rows',
        ),
        ({'position': {'name': 'yarn'}}, 'Phi3ForCausalLM', "position: 'yarn'; Phi-3 knows rope and longrope"),
        ({'kinds': {'full': {'regions': {'name': 'rerope', 'window': 8}}}}, 'LlamaForCausalLM', "regions: 'rerope'"),
        (
            {'kinds': {'full': {'mixer': {'name': 'cope'}, 'position': {'name': 'none'}}}}, 'LlamaForCausalLM',
            "mixer: 'cope' has no place",
        ),
        ({'kinds': {'full': {'rule': [{'name': 'causal'}, {'name': 'sinks', 'count': 2}]}}}, 'MistralForCausalLM',
         'rule: only causal, and causal with a window'),
        (
            {
                'kinds': {'full': {}, 'other': {'position': {'name': 'rope', 'theta': 5.0}}},
                'pattern': ('full', 'other'),
            },
            'LlamaForCausalLM',
            'kinds.other.position: the architecture has one method',
        ),
        (
            {
                'kinds': {
                    name: {'rule': [{'name': 'causal'}, {'name': 'window', 'size': size}]}
                    for name, size in (('full', 4), ('other', 5))
                },
                'pattern': ('full', 'other'),
            },
            'Qwen2ForCausalLM',
            r'windows of \[4, 5\] tokens',
        ),
        (
            {
                'kinds': {'full': {}, 'other': {'rule': [{'name': 'causal'}, {'name': 'window', 'size': 4}]}},
                'pattern': ('full', 'other'),
            },
            'MistralForCausalLM',
            'only some layers have a window',
        ),
        ({}, 'BertForCausalLM', "architecture: unknown 'BertForCausalLM'"),
    ],
)  # fmt: skip
def test_what_has_no_place_is_named(fields, architecture, message):
    config = build(ModelConfig, {**plain(CONFIG), **fields}, 'model')
    with pytest.raises(ConfigError, match=message):
        to_hf(config, architecture=architecture)


def test_a_model_that_fits_nowhere_is_told_why_by_each():
    with pytest.raises(
        ConfigError, match=r'(?s)no architecture.*LlamaForCausalLM cannot.*GPT2LMHeadModel cannot'
    ):
        to_hf(changed(position={'name': 'alibi'}))
