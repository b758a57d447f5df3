"""Where parameters come from: the workdir of a run, or a Hugging Face directory.

Both are evaluated, tuned and exported by the same commands. A run brings its whole configuration; a directory brings
its model and its tokenizer, and what to do with them is in a ``--config`` file. Overrides apply to the model that was
trained, every field of it written down.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from absl import flags as absl_flags

from lcx.errors import ConfigError, unknown
from lcx.launch import flags as shared

if TYPE_CHECKING:
    from ml_collections import ConfigDict

    from lcx.models import ModelConfig
    from lcx.parallel.rules import Mesh
    from lcx.types import Tree

NAMES = (
    'config.json',
    'run.json',
    'checkpoints',
)  # by which a directory is told to be a run or another system's


class Origin(NamedTuple):
    """Parameters, and the model that they were trained in."""

    path: Path
    model: ModelConfig
    step: int  # finished steps of the run; 0 of a directory
    # For that model, or one of the same parameters; on that mesh, or on one device.
    params: Callable[[ModelConfig, Mesh | None], Tree]


def is_converted(path: Path) -> bool:
    """Whether ``path`` is a Hugging Face directory: its config.json tells of a model as transformers does."""
    config, run, checkpoints = (path / name for name in NAMES)
    try:
        values = json.loads(config.read_text(encoding='utf-8'))
    except OSError:
        return False
    except ValueError:  # its reader says what is wrong
        return not run.exists() and not checkpoints.exists()
    return isinstance(values, dict) and not values.keys().isdisjoint(('architectures', 'model_type'))


def find(path: Path, field: str = 'init') -> Origin:
    """The newest checkpoint of a run, or what a Hugging Face directory holds; ``field`` names it in errors.

    Raises:
      ConfigError: ``path`` is neither, or its model is none that is known here.
      StorageError: files are missing or broken, or weights are a pickle.
    """
    if is_converted(path):
        from lcx import convert
        from lcx.models import boxed
        from lcx.parallel.rules import shardings

        convert.check_weights(path)

        def weights(model: ModelConfig, mesh: Mesh | None = None) -> Tree:
            where = None if mesh is None else shardings(boxed(model), mesh)
            return convert.load(path, shardings=where)[1]

        return Origin(path, convert.read_config(path), 0, weights)
    from lcx import config as configuration
    from lcx.models import ModelConfig
    from lcx.train.checkpoint import Checkpoints

    with Checkpoints(path / 'checkpoints', keep=None) as checkpoints:
        step = checkpoints.latest()
        if step is None:
            raise ConfigError(
                f'{field}: {str(path)!r} is neither a workdir with checkpoints nor a Hugging Face directory '
                '(config.json and safetensors).'
            )
        model = configuration.build(ModelConfig, checkpoints.extra(step)['model'], field)

    def params(model: ModelConfig, mesh: Mesh | None = None) -> Tree:
        from lcx.train.tune import merged_params

        with Checkpoints(path / 'checkpoints', keep=None) as checkpoints:
            return merged_params(checkpoints, model, step, mesh)

    return Origin(path, model, step, params)


def workdir(flags: absl_flags.FlagValues, example: str) -> Path:
    """``--workdir``, where results go. Raises ConfigError if it is missing, or a Hugging Face directory."""
    target = Path(shared.required(flags, 'workdir', example))
    if is_converted(target):
        raise ConfigError(
            f'--workdir: {str(target)!r} is a Hugging Face directory, in which nothing is written; give another.'
        )
    return target


def define(
    flags: absl_flags.FlagValues,
    argv: Sequence[str],
    verb: str,
    by: Mapping[str, str],
    located: Callable[[str], Path] = Path,
) -> list[str]:
    """The flags ``by`` (name -> meaning), and the overrides of the origin that the first of them given names.

    ``located`` turns that value into a path. Returns the words that are left to parse: a ``--config=FILE``, which only
    a Hugging Face directory takes, is read here.
    """
    for name, meaning in by.items():
        absl_flags.DEFINE_string(name, None, meaning, flag_values=flags)
    given, _ = shared.peek(argv, *by)
    named, words = shared.peek(argv, 'config')
    file, overrides = named['config'], shared.overrides(words)
    field = next((name for name in by if given[name]), None)
    if field is None:
        if file or overrides:
            word = f'--config={file}' if file else overrides[0]
            raise ConfigError(f'{word}: which run? Name it, for example --{[*by][-1]}=runs/base.')
        return words
    source = located(given[field])
    if file and not is_converted(source):
        raise ConfigError(
            f'{file}: {verb} takes the configuration of the run itself; give --config.FIELD=VALUE.'
        )
    found = find(source, field)
    config = adopted(shared.load_config(file), source, found.model) if file else settings_of(found)
    shared.define_overrides(
        flags, start_anew(config, words), words, "Override any field of the run's configuration"
    )
    return words


def settings_of(found: Origin) -> ConfigDict:
    """The configuration of a run with the model of its checkpoint, or configs/base.py for the model of a directory.

    The mesh is not the run's: other devices may be at hand.
    """
    from configs import base

    if is_converted(found.path):
        return adopted(base.get_config(), found.path, found.model)
    path, config = found.path / NAMES[0], base.get_config()
    if not path.is_file():
        raise ConfigError(f'{path}: missing; it is the configuration that the run was trained with.')
    saved = json.loads(path.read_text(encoding='utf-8'))
    fill(config, {k: v for k, v in saved.items() if k not in ('model', 'mesh')})
    config.model = model_config(found.model)
    return config


def adopted(config: ConfigDict, path: Path, model: ModelConfig) -> ConfigDict:
    """``config`` for the ``model`` of a Hugging Face directory, and its tokenizer unless ``config`` names another.

    What ``config`` changes of the model in configs/base.py is changed; but its sizes, and its preset of sizes, are of a
    model that would be made, and not of this one.

    Raises:
      ConfigError: it changes a kind of layer that the model does not have.
    """
    from lcx.data.tokenizers import Bytes

    config.model = _with_changes(config.model, model)
    if config.data.tokenizer == 'bytes':
        own = tokenizer_of(path)
        if own is not None:
            config.data.tokenizer = own
        elif model.vocab != Bytes.vocab:
            unset(config.data, 'tokenizer')
    return config


def _with_changes(given: ConfigDict, trained: ModelConfig) -> ConfigDict:
    """``config.model`` of ``trained`` with what ``given`` changes of configs/base.py."""
    from configs import base
    from lcx.launch.experiment import values_of
    from lcx.models import PRESETS

    before, after, config = values_of(base.get_config().model), values_of(given), model_config(trained)
    sizes = {'preset', 'vocab', *PRESETS[before['preset']]}
    own = {k: v for k, v in after.items() if v != before[k] and k not in sizes}
    for name in own.get('kinds', {}):
        if 'pattern' not in own and name not in config.kinds:
            raise ConfigError(unknown('model.kinds (of the model in the directory)', name, config.kinds))
    if own.get('position', {}).get('name', config.position.name) != config.position.name:
        config.position = base.position()
    fill(config, own)
    return config


def tokenizer_of(path: Path) -> str | None:
    """The directory as a ``data.tokenizer``, if it holds one."""
    from lcx.data.tokenizers import locate

    try:
        locate(str(path))
    except ConfigError:
        return None
    return str(path)


def tokenizer_spec(path: Path) -> str | None:
    """The ``data.tokenizer`` of a run, or that of a Hugging Face directory, if it holds one."""
    if is_converted(path):
        return tokenizer_of(path)
    return json.loads((path / NAMES[0]).read_text(encoding='utf-8'))['data']['tokenizer']


def check_tokenizer(path: Path, values: Mapping[str, Any]) -> None:
    """Raises ConfigError unless ``data.tokenizer`` can be that of the model in a Hugging Face directory.

    It is the directory's own, or has as many ids. Of a directory without one it must be given.
    """
    from lcx.data.tokenizers import make_tokenizer

    spec, own = values['data']['tokenizer'], tokenizer_of(path) if is_converted(path) else None
    if spec is None:
        raise ConfigError(
            f'data.tokenizer: {path} holds none; give the one that the model was trained with, '
            f'--config.data.tokenizer=PATH. The model has {values["model"]["vocab"]} ids.'
        )
    if own is not None and spec != own:
        sizes = [make_tokenizer(x).vocab for x in (spec, own)]
        if sizes[0] != sizes[1]:
            raise ConfigError(
                f'data.tokenizer: {spec!r} has {sizes[0]} ids, but that of the model, in {own}, has {sizes[1]}.'
            )


def model_config(model: ModelConfig) -> ConfigDict:
    """``config.model`` that describes ``model``: every field and every kind of layer, those at None typed.

    ``preset`` is None, since every size is there; ``source`` is left out, since its keys may have points, and
    ``pipeline``, which is of training.
    """
    from ml_collections import ConfigDict

    from configs import base
    from lcx.config import plain

    config = base.get_config().model
    unset(config, 'preset')
    config.kinds = ConfigDict({name: base.kind() for name in model.kinds})
    for name, kind in model.kinds.items():
        if kind.position is not None:
            config.kinds[name].position = base.position()
    fill(config, {k: v for k, v in plain(model).items() if k not in ('source', 'pipeline')})
    return config


def start_anew(config: ConfigDict, words: Sequence[str]) -> ConfigDict:
    """``config`` with no options of a position method or cache where the overrides in ``words`` ask for another one."""
    from configs import base

    kinds = config.model.kinds
    for path, owner in {
        'model': config.model,
        **{f'model.kinds.{name}': kinds[name] for name in kinds},
    }.items():
        flag = f'config.{path}.position.name'
        name = shared.peek(words, flag)[0][flag]
        if name and owner.position is not None and name != owner.position.name:
            owner.position = base.position(owner.position.name)
    name = shared.peek(words, 'config.cache.name')[0]['config.cache.name']
    if name and name != config.cache.name:
        config.cache = base.cache(config.cache.name)
    return config


def unset(config: ConfigDict, name: str) -> None:
    """None in place of a string, which an override can still give."""
    from ml_collections import config_dict

    with config.ignore_type():
        config[name] = config_dict.placeholder(str)


def fill(config: Any, values: Mapping[str, Any]) -> None:
    """Writes JSON values into a ConfigDict; fields at null keep their type for overrides."""
    from ml_collections import ConfigDict

    def typed(value: Any) -> Any:
        if isinstance(value, Mapping):
            return ConfigDict({k: typed(v) for k, v in value.items()})
        return tuple(typed(v) for v in value) if isinstance(value, (list, tuple)) else value

    for name, value in values.items():
        if isinstance(value, Mapping) and isinstance(config.get(name), ConfigDict):
            fill(config[name], value)
        elif value is not None:
            with config.ignore_type():
                config[name] = typed(value)


def applied(trained: ModelConfig, config: ConfigDict) -> tuple[dict[str, Any], ModelConfig]:
    """The configuration as plain values, and the model that it makes of ``trained``, whose :func:`model_config` it has.

    A position method keeps the rotation that the weights know (:func:`lcx.positions.extension.keep_rotation`), unless
    it is asked for another.

    Raises:
      ConfigError: a field cannot be what it is, or the model has other parameters than those that were trained.
    """
    from lcx import config as configuration
    from lcx.launch.experiment import values_of
    from lcx.models import ModelConfig

    values = values_of(config)
    before, after = values_of(model_config(trained)), dict(values['model'])
    _check_preset(trained, after.pop('preset'))
    changed = {k: v for k, v in after.items() if v != before.get(k)}
    if 'position' in changed:
        changed['position'] = _position(changed['position'], trained.position)
    if 'kinds' in changed:
        known = {name: trained.position_of(name) for name in trained.kinds}
        changed['kinds'] = {
            name: {**kind, 'position': _position(kind['position'], known.get(name, trained.position))}
            for name, kind in changed['kinds'].items()
        }
    model = configuration.build(ModelConfig, {**configuration.plain(trained), **changed}, 'model')
    if changed:
        _check_shapes(trained, model)
    values['model'] = {'preset': None, **configuration.plain(model)}
    return values, model


def _position(options: Mapping[str, Any] | None, trained: Mapping[str, Any]) -> dict[str, Any] | None:
    from lcx.positions.extension import keep_rotation

    if options is None:
        return None
    return keep_rotation({k: v for k, v in options.items() if v is not None}, trained)


def _check_shapes(trained: ModelConfig, model: ModelConfig) -> None:
    """Raises ConfigError naming the first parameter that one of them lacks, or has in another shape."""
    import jax

    from lcx.compress import leaves
    from lcx.models import init

    have, want = (
        leaves.named(jax.eval_shape(functools.partial(init, m), jax.random.key(0))) for m in (trained, model)
    )
    for name in {**want, **have}:
        had, wants = (x[name].shape if name in x else 'none' for x in (have, want))
        if had != wants:
            raise ConfigError(f'{name}: the model as configured has {wants}, but what was trained has {had}.')


def _check_preset(trained: ModelConfig, preset: str | None) -> None:
    """Raises ConfigError if there is a preset, and it has other sizes than the model."""
    from lcx.models import PRESETS

    if preset is None:
        return
    if preset not in PRESETS:
        raise ConfigError(unknown('model.preset', preset, PRESETS))
    for name, size in PRESETS[preset].items():
        if isinstance(size, int) and name != 'trained_length' and size != getattr(trained, name):
            raise ConfigError(
                f'model.preset: {preset!r} has {name} {size}, the parameters {getattr(trained, name)}; leave it out.'
            )
