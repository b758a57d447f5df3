"""Where parameters and activations lie: literal specs, and an error for whatever does not divide."""

import ast
import math
from pathlib import Path

import flax.linen as nn
import jax
import pytest

import lcx.models
from lcx.compress import leaves, lora
from lcx.config import Options
from lcx.errors import ConfigError
from lcx.models import LayerKind, boxed, init
from lcx.parallel import MeshConfig, mesh, rules
from tests.models.tiny import CONFIG, changed

P = jax.sharding.PartitionSpec


def abstract(**sizes) -> jax.sharding.AbstractMesh:
    config = MeshConfig(**sizes)
    return mesh.abstract(config, math.prod(config.given.values()))


def specs(model, **sizes) -> dict[str, P]:
    return {
        name: x.spec for name, x in leaves.named(rules.shardings(boxed(model), abstract(**sizes))).items()
    }


def test_every_name_in_the_models_has_a_rule():
    """What the modules say, as strings beside the calls that take names of axes."""
    found = set()
    for path in Path(lcx.models.__file__).parent.glob('*.py'):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Tuple) and node.elts:
                words = [getattr(x, 'value', None) for x in node.elts]
                if set(words) & {'embed', 'head_dim', 'batch'}:
                    found |= {word for word in words if isinstance(word, str)}
    assert {'vocab', 'embed', 'heads', 'head_dim', 'hidden', 'batch', 'length', 'positions'} <= found
    assert found <= set(rules.RULES)


def test_parameters_of_a_decoder():
    found = specs(changed(norm='layer', bias=('qkv', 'feed_forward')), data=2, fsdp=4, tensor=2, stage=2)
    block = 'layers/full_0'
    assert found == {
        'embedding': P('tensor', 'fsdp'),
        'output': P('tensor', 'fsdp'),
        'final_norm/scale': P('fsdp'),
        'final_norm/bias': P('fsdp'),
        f'{block}/mixer_norm/scale': P('stage', 'fsdp'),
        f'{block}/mixer_norm/bias': P('stage', 'fsdp'),
        f'{block}/feed_forward_norm/scale': P('stage', 'fsdp'),
        f'{block}/feed_forward_norm/bias': P('stage', 'fsdp'),
        f'{block}/mixer/query/kernel': P('stage', 'fsdp', 'tensor', None),
        f'{block}/mixer/query/bias': P('stage', 'tensor', None),
        f'{block}/mixer/key/kernel': P('stage', 'fsdp', 'tensor', None),
        f'{block}/mixer/key/bias': P('stage', 'tensor', None),
        f'{block}/mixer/value/kernel': P('stage', 'fsdp', 'tensor', None),
        f'{block}/mixer/value/bias': P('stage', 'tensor', None),
        f'{block}/mixer/out/kernel': P('stage', 'tensor', None, 'fsdp'),
        f'{block}/feed_forward/up/kernel': P('stage', 'fsdp', 'tensor'),
        f'{block}/feed_forward/up/bias': P('stage', 'tensor'),
        f'{block}/feed_forward/gate/kernel': P('stage', 'fsdp', 'tensor'),
        f'{block}/feed_forward/gate/bias': P('stage', 'tensor'),
        f'{block}/feed_forward/down/kernel': P('stage', 'tensor', 'fsdp'),
        f'{block}/feed_forward/down/bias': P('stage', 'fsdp'),
    }


def test_the_tree_is_that_of_the_parameters():
    cope = LayerKind(mixer=Options(name='cope', positions=4), position=Options(name='none'))
    model = changed(
        pattern=('full', 'cope'), layers=3, kinds=Options({'full': LayerKind(), 'cope': cope}),
        position=Options(name='learned'), qk_norm=True,
    )  # fmt: skip
    found, shapes = (
        rules.shardings(boxed(model), abstract(fsdp=2)),
        jax.eval_shape(lambda: init(model, jax.random.key(0))),
    )
    assert jax.tree.structure(found) == jax.tree.structure(shapes)
    assert jax.tree.map(lambda x: (x.shape, x.dtype), nn.meta.unbox(boxed(model))) == jax.tree.map(
        lambda x: (x.shape, x.dtype), shapes
    )
    named = {name: x.spec for name, x in leaves.named(found).items()}
    assert named['layers/cope_1/mixer/table'] == P('stage', None, None)
    assert named['rest/full_0/mixer/query_norm/scale'] == P(None)
    assert all(spec == P() for name, spec in named.items() if name.startswith('position_'))


def test_adapters_lie_as_their_kernels_do():
    config = lora.LoraConfig(2, 4.0, ('mixer/query', 'mixer/out'))

    def both() -> dict:
        params = init(CONFIG, jax.random.key(0))
        return leaves.join(params, lora.init(config, CONFIG, params, jax.random.key(1)))

    found = leaves.named(lora.boxed(boxed(CONFIG), jax.eval_shape(both)))
    names = {name: x.names for name, x in found.items() if lora.is_adapter(name)}
    assert names == {
        'layers/full_0/mixer/query/lora_a': ('layers', 'embed', 'rank'),
        'layers/full_0/mixer/query/lora_b': ('layers', 'rank', 'heads', 'head_dim'),
        'layers/full_0/mixer/out/lora_a': ('layers', 'heads', 'head_dim', 'rank'),
        'layers/full_0/mixer/out/lora_b': ('layers', 'rank', 'embed'),
    }
    assert {len(x.names) - x.value.ndim for x in found.values()} == {0}


@pytest.mark.parametrize(
    ('fields', 'sizes', 'message'),
    [
        (
            {},
            {'tensor': 4},
            r'^model\.kv_heads: 2 is no multiple of mesh\.tensor=4\. Nearest: model\.kv_heads 4, or mesh\.tensor 2\. '
            r"It is axis 'kv_heads' of layers/full_0/mixer/key/kernel\.$",
        ),
        (
            {'hidden': 41},
            {'tensor': 2},
            r'^model\.hidden: 41 is no .* Nearest: model\.hidden 40 or 42, or mesh\.tensor 1\.',
        ),
        (
            {'vocab': 257},
            {'tensor': 2},
            r"^model\.vocab: 257 is no multiple of mesh\.tensor=2\. Nearest: .* 256 or 258, .*'vocab' of embedding",
        ),
        (
            {},
            {'fsdp': 3},
            r'^model\.width: 32 is no multiple of mesh\.fsdp=3\. Nearest: model\.width 30 or 33, or mesh\.fsdp 4\.',
        ),
        (
            {'layers': 5, 'pattern': ('full', 'full')},
            {'stage': 4},
            r'^repeats of the pattern \(model\.layers\): 2 is no multiple of mesh\.stage=4\..*or mesh\.stage 2\.',
        ),
    ],
)
def test_what_does_not_divide_is_an_error(fields, sizes, message):
    with pytest.raises(ConfigError, match=message):
        specs(changed(**fields), **sizes)


def test_heads_do_not_divide_where_key_heads_do_not():
    message = r'^model\.heads: 12 is no multiple of mesh\.tensor=8\. Nearest: model\.heads 8 or 16, or mesh\.tensor 6\.'
    with pytest.raises(ConfigError, match=message):
        rules.check(abstract(tensor=8), 'heads', 12, rules.PARAMETERS, 'q')


def test_rows():
    devices = abstract(data=2, fsdp=2, context=4)
    assert rules.share_rows(devices, 'batch', 16, accumulate=2) == 4
    with pytest.raises(
        ConfigError, match=r'batch: 12 is .* x 2 gradient steps \(optimizer\.accumulate\).*8 or 16'
    ):
        rules.share_rows(devices, 'batch', 12, accumulate=2)


def test_no_mesh_axis_divides_two_axes_of_one_array():
    clash = {**rules.PARAMETERS, 'head_dim': ('tensor',)}
    with pytest.raises(
        ConfigError, match=r"query/kernel: 'heads' and 'head_dim' cannot both lie along .*'tensor'"
    ):
        rules.shardings({'query': {'kernel': boxed(CONFIG)['layers']['full_0']['mixer']['query']['kernel']}},
                        abstract(tensor=2), clash)  # fmt: skip


def test_activations():
    assert rules.spec(('batch', 'length', 'heads', 'head_dim'), rules.ACTIVATIONS) == P(
        ('data', 'fsdp'), 'context', 'tensor', None
    )
    assert rules.spec(('batch', 'length', 'embed'), rules.ACTIVATIONS) == P(('data', 'fsdp'), 'context', None)


def test_an_unknown_name_is_an_error():
    with pytest.raises(ConfigError, match=r"axes: unknown 'head'\. Did you mean 'heads'"):
        rules.spec(('embed', 'head'))


def test_parts_of_an_array():
    devices = abstract(data=2, fsdp=3, tensor=4)
    assert rules.divided(P(('data', 'fsdp'), None, 'tensor'), devices) == 24
    assert rules.divided(P(), devices) == 1
