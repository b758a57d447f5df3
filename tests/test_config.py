"""Configuration enters strictly: what does not fit is an error that names the whole path of the field."""

import dataclasses
import json
from collections.abc import Mapping
from typing import Any

import pytest

from lcx import config
from lcx.config import Options, build, make
from lcx.errors import ConfigError


@dataclasses.dataclass(frozen=True)
class Leaf:
    size: int = 1
    rate: float | None = None

    def __post_init__(self) -> None:
        config.positive(self, 'size', 'rate')


@dataclasses.dataclass(frozen=True)
class Tree:
    name: str
    leaf: Leaf = Leaf()
    leaves: tuple[Leaf, ...] = ()
    named: Mapping[str, Leaf] = dataclasses.field(default_factory=Options)
    options: Options = dataclasses.field(default_factory=Options)
    length: int | str = 0
    anything: Any = None


def test_builds_nested_fields():
    values = {
        'name': 'oak',
        'leaf': {'size': 2, 'rate': 1},
        'leaves': [{'size': 3}],
        'named': {'a': {'size': 4}},
        'options': {'name': 'x', 'list': [1, [2]]},
        'length': 'long',
        'anything': [1],
    }
    assert build(Tree, values) == Tree(
        name='oak',
        leaf=Leaf(2, 1.0),
        leaves=(Leaf(3),),
        named=Options(a=Leaf(4)),
        options=Options(name='x', list=(1, (2,))),
        length='long',
        anything=(1,),
    )
    assert type(build(Tree, values).leaf.rate) is float
    assert build(Tree, {'name': 'oak', 'leaf': Leaf(7)}).leaf == Leaf(7)
    hash(build(Tree, values))


@pytest.mark.parametrize(
    ('values', 'message'),
    [
        ({}, 'name: missing; it is required.'),
        ({'nmae': 'x'}, "nmae: unknown 'nmae'. Did you mean 'name'? Choices: "),
        ({'leaf': {'sizes': 1}}, "leaf.sizes: unknown 'sizes'. Did you mean 'size'? Choices: rate, size."),
        ({'leaf': {'size': '1'}}, "leaf.size: '1' is a str; expected a int."),
        ({'leaf': {'size': 1.0}}, 'leaf.size: 1.0 is a float; expected a int.'),
        ({'leaf': {'size': True}}, 'leaf.size: True is a bool; expected a int.'),
        ({'leaf': {'size': None}}, 'leaf.size: None is a NoneType; expected a int.'),
        ({'leaf': {'rate': '1'}}, "leaf.rate: '1' is a str; expected a float."),
        ({'leaf': {'size': -1}}, 'leaf.size: -1 must be greater than 0.'),
        ({'leaf': 3}, 'leaf: 3 is a int; expected named fields.'),
        ({'leaf': Options}, "leaf: <class 'lcx.config.Options'> is a "),
        ({'leaves': 3}, 'leaves: 3 is a int; expected a tuple.'),
        ({'leaves': ({'size': 1}, {'size': 0})}, 'leaves[1].size: 0 must be greater than 0.'),
        ({'leaves': ({'size': 1}, {'siz': 0})}, "leaves[1].siz: unknown 'siz'. Did you mean 'size'?"),
        ({'named': {'a': {'size': 0}}}, 'named.a.size: 0 must be greater than 0.'),
        ({'named': ({'size': 0},)}, "named: ({'size': 0},) is a tuple; expected named fields."),
        ({'length': 1.5}, 'length: 1.5 is a float; expected a str.'),
        ({'name': 3}, 'name: 3 is a int; expected a str.'),
    ],
)
@pytest.mark.parametrize('path', ['', 'forest.tree'])
def test_errors_name_the_path(values, message, path):
    values = values if not values or 'nmae' in values else {'name': 'oak', **values}
    with pytest.raises(ConfigError) as caught:
        build(Tree, values, path)
    assert str(caught.value).startswith(f'{path}.{message}' if path else message)


def test_a_field_may_be_called_like_its_owner():
    with pytest.raises(ConfigError, match=r'^size\.size: 0 must'):
        build(Leaf, {'size': 0}, 'size')


def test_what_is_not_a_mapping_is_an_error():
    with pytest.raises(ConfigError, match=r'^Leaf: 3 is a int; expected named fields'):
        build(Leaf, 3)
    with pytest.raises(ConfigError, match=r"^tool: 'hammer' is a str; expected named fields"):
        make(TOOLS, 'hammer', 'tool')


def hammer(*, weight: float, length: int = 3, names: tuple = (), made: str | None = 'steel') -> tuple:
    if weight <= 0:
        raise ConfigError(f'weight: {weight} must be greater than 0.')
    return weight, length, names, made


TOOLS = {'hammer': hammer, 'nothing': lambda: 'nothing'}


def test_make_calls_the_entry_with_its_options_and_the_context_it_asks_for():
    assert make(TOOLS, {'name': 'hammer', 'weight': 2}, 'tool') == (2.0, 3, (), 'steel')
    assert make(TOOLS, {'name': 'hammer', 'names': ['a']}, 'tool', weight=1.5) == (1.5, 3, ('a',), 'steel')
    assert make(TOOLS, {'name': 'nothing'}, 'tool', weight=1.5) == 'nothing'


def test_an_option_at_none_is_the_entrys_default():
    options = {'name': 'hammer', 'weight': 2.0, 'length': None, 'made': None, 'depth': None}
    assert make(TOOLS, options, 'tool') == (2.0, 3, (), 'steel')


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        ({}, 'tool.name: unknown None. Choices: hammer, nothing.'),
        ({'name': 'hamer'}, "tool.name: unknown 'hamer'. Did you mean 'hammer'? Choices: hammer, nothing."),
        ({'name': 'hammer'}, "tool.weight: 'hammer' needs it."),
        (
            {'name': 'hammer', 'wieght': 1.0},
            "tool.wieght (of 'hammer'): unknown 'wieght'. Did you mean 'weight'?",
        ),
        ({'name': 'hammer', 'weight': '1'}, "tool.weight: '1' is a str; expected a float."),
        ({'name': 'hammer', 'weight': 0}, 'tool.weight: 0.0 must be greater than 0.'),
        (
            {'name': 'nothing', 'x': 1},
            "tool.x (of 'nothing'): unknown 'x'. Choices: none: it has no options.",
        ),
    ],
)
def test_errors_of_make_name_the_option(options, message):
    with pytest.raises(ConfigError) as caught:
        make(TOOLS, options, 'tool')
    assert str(caught.value).startswith(message)


def test_what_the_context_gives_is_no_option():
    with pytest.raises(ConfigError, match=r"^tool.weight \(of 'hammer'\): unknown 'weight'"):
        make(TOOLS, {'name': 'hammer', 'weight': 1.0}, 'tool', weight=2.0)


class TestOptions:
    def test_equal_options_are_equal_keys(self):
        a, b = Options({'x': [1, {'y': 2}]}), Options(x=(1, Options(y=2)))
        assert a == b == {'x': (1, {'y': 2})} and hash(a) == hash(b)
        assert len({a, b, Options(x=3)}) == 2
        assert a != Options(x=(1, {'y': 3})) and a != [('x', 1)]

    def test_are_a_mapping_that_nothing_changes(self):
        given = {'x': [1]}
        options = Options(given)
        given['x'].append(2)
        assert dict(options) == {'x': (1,)} and len(options) == 1 and {**options} == {'x': (1,)}
        with pytest.raises(TypeError):
            options['x'] = 2

    def test_set_leaves_out_none(self):
        assert Options(a=None, b=0, c='').set() == {'b': 0, 'c': ''}

    def test_order_does_not_matter(self):
        assert hash(Options({'a': 1, 'b': 2})) == hash(Options({'b': 2, 'a': 1}))


def test_plain_is_ready_for_json_and_builds_the_same():
    tree = Tree('oak', Leaf(2), (Leaf(3, 0.5),), Options(a=Leaf(4)), Options(x=(1, 2)), 'long')
    written = json.loads(json.dumps(config.plain(tree)))
    assert written['leaves'] == [{'size': 3, 'rate': 0.5}] and written['options'] == {'x': [1, 2]}
    assert build(Tree, written) == tree


def test_completed_is_what_a_file_says_that_was_written_before_a_field_existed():
    given = {'name': 'oak', 'leaves': [{'rate': 0.5}], 'named': {'a': {}}, 'leaf': None, 'unknown': 1}
    assert config.completed(Tree, given) == {
        **config.plain(Tree('oak', Leaf(), (Leaf(1, 0.5),), Options(a=Leaf()))),
        'leaf': None,
        'unknown': 1,
    }


def test_positive_allows_none_and_refuses_nan():
    config.positive(Leaf(1, None), 'size', 'rate')
    with pytest.raises(ConfigError, match='rate: nan must be greater than 0'):
        Leaf(1, float('nan'))
