"""DataConfig refuses what nobody could read, and names the field."""

import pytest

from configs.base import get_config
from lcx.config import build
from lcx.data.config import DataConfig
from lcx.errors import ConfigError


def changed(**fields):
    return build(DataConfig, get_config().data.to_dict() | fields, 'data')


def test_has_exactly_the_fields_of_the_base_configuration():
    assert changed().source == 'stdlib'


@pytest.mark.parametrize(
    ('fields', 'message'),
    [
        ({'source': 'stdlb'}, r"data\.source: unknown 'stdlb'. Did you mean 'stdlib'\?"),
        ({'source': 'tfds:'}, r'data\.source: unknown'),
        ({'source': 'Austen'}, r"data\.source: unknown 'Austen'. Did you mean 'austen'\?"),
        ({'source': 'text'}, r'data\.files: empty'),
        ({'files': ('a.txt',)}, r"data\.files: \('a.txt',\) would not be read; set source to 'text'"),
        ({'packing': 'concatenate'}, r"data\.packing: unknown 'concatenate'. Did you mean 'concat'\?"),
        ({'tokenizer': 'byte'}, r"data\.tokenizer: unknown 'byte'. Did you mean 'bytes'\?"),
        ({'validation_percent': 0}, r'data\.validation_percent: 0 is not between 1 and 50'),
        ({'validation_percent': 51}, r'data\.validation_percent: 51'),
    ],
)
def test_errors_name_the_field_and_the_way_out(fields, message):
    with pytest.raises(ConfigError, match=message):
        changed(**fields)
