"""``lcx attention``: what the heads of a run or a converted model attend to in one text, drawn and counted.

lcx attention --init=runs/base --prompt_file=book.txt --tokens=1024 --workdir=runs/base-heads
lcx attention --init=models/smollm2 --prompt="..." --layers=0,15,29 --heads=all --workdir=runs/heads
lcx attention --init=models/smollm2 --prompt_file=book.txt --workdir=runs/yarn-heads --config.model.position.name=yarn

    WORKDIR/figures/attention_layer_L.{png,svg}       a map for each head: queries down, keys to the right
    WORKDIR/figures/attention_by_distance.{png,svg}   mass by distance in tokens, the first tokens (sinks) apart
    WORKDIR/results.jsonl                             a row for each layer, head and range of distances: mass in it,
                                                      mass on the first tokens, entropy; lcx report shows them

Probabilities are those of the model as configured: position method, regions, rules, bias and softcap. No T x T matrix
is ever held: a map of a longer text has means over cells. The time grows with the square of the length. Overrides with
--config.FIELD=VALUE change the configuration of the run: model, label and seed; config.cache is not asked.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from absl import flags as absl_flags

from lcx.errors import ConfigError, StorageError
from lcx.launch import flags as shared
from lcx.launch import origin
from lcx.launch.generate import given

if TYPE_CHECKING:
    from lcx.generate.probe import Found
    from lcx.types import Row

EVALUATOR = 'attention'
ALL = 'all'


def define(flags: absl_flags.FlagValues, argv: Sequence[str]) -> list[str]:
    """Adds the verb's flags. The fields that can be overridden are those of the run's own configuration."""
    shared.define_workdir(flags, 'Directory that figures and rows go to.')
    meaning = 'Run, by its newest checkpoint, or Hugging Face directory that is looked at.'
    words = origin.define(flags, argv, 'attention', {'init': meaning})
    for flag, meaning in (
        ('prompt', 'The text.'),
        ('prompt_file', 'Instead, a file with it, UTF-8. With neither, stdin.'),
        ('layers', f'Layers, counted from 0: 0,5 or {ALL}. Default: the first, the middle one and the last.'),
    ):
        absl_flags.DEFINE_string(flag, None, meaning, flag_values=flags)
    absl_flags.DEFINE_string('heads', ALL, f'Query heads, counted from 0: 0,3 or {ALL}.', flag_values=flags)
    absl_flags.DEFINE_integer(
        'tokens', None, 'Only so many tokens, the first of the text.', lower_bound=1, flag_values=flags
    )
    return words


def run(flags: absl_flags.FlagValues, arguments: list[str]) -> None:
    """Looks, draws and writes. Raises ConfigError before anything is loaded."""
    import jax
    import numpy as np

    from lcx.data.tokenizers import make_tokenizer
    from lcx.generate import probe
    from lcx.launch.evaluation import factor, identity, peak_bytes
    from lcx.launch.experiment import experiment_config
    from lcx.launch.start import start
    from lcx.launch.workdir import Workdir

    shared.no_arguments(arguments)
    target = origin.workdir(flags, 'runs/heads')
    source = Path(shared.required(flags, 'init', 'runs/base'))
    name, text = given(flags)
    found = origin.find(source)
    values, model = origin.applied(found.model, flags.config)
    origin.check_tokenizer(found.path, values)
    config = experiment_config(values)
    last = model.layers - 1
    asked = flags.layers or ','.join(map(str, dict.fromkeys((0, last // 2, last))))
    layers = numbers('layers', asked, model.layers)
    heads = numbers('heads', flags.heads, model.heads)
    probe.check(model, layers)
    ids = make_tokenizer(config.data.tokenizer).encode(text)[: flags.tokens]
    if len(ids) < 2:
        raise ConfigError(f'{name}: the text has {len(ids)} token(s); it must have at least 2.')
    positions, remap = np.arange(len(ids), dtype=np.int32), model.remap(len(ids))
    if remap is not None:  # some methods draw positions at evaluation too; the same ones every time
        positions = np.asarray(remap(jax.random.key(config.seed), positions[None], False))[0]
    with Workdir(target) as workdir:
        if workdir.saved_config() is None:
            workdir.write_config(values)
        start(workdir, config.seed)
        since = time.monotonic()
        seen = probe.look(model, found.params(model), ids, positions, layers, heads)
        common = {
            'label': config.label or model.position['name'],
            'run': target.name,
            'seed': config.seed,
            'step': found.step,
            'trained_length': model.trained_length,
            'position': model.position['name'],
            'of': identity(model, found.step, config.seed, source),
            'factor': factor(model, len(ids)),
            'evaluator': EVALUATOR,
            'length': len(ids),
            'text': hashlib.sha256(ids.tobytes()).hexdigest()[:12],
            'first': probe.FIRST,
            'seconds': time.monotonic() - since,
            'peak_bytes': peak_bytes(),
        }
        written = [{**common, **row} for row in rows(seen, heads, probe.edges(len(ids)))]
        for row in written[1:]:  # seconds are those since the row before
            row['seconds'] = 0.0
        write(target, written, seen, heads)


def numbers(name: str, given: str, count: int) -> list[int]:
    """The numbers of ``given``, each once. Raises ConfigError for those that are not 0 .. count - 1."""
    if given == ALL:
        return list(range(count))
    found = []
    for word in given.split(','):
        if not word.strip().isdecimal() or int(word) >= count:
            raise ConfigError(
                f'--{name}: {word.strip()!r} is none of the model: it has 0 to {count - 1}; several as 0,2, or {ALL}.'
            )
        found.append(int(word))
    return list(dict.fromkeys(found))


def rows(seen: Mapping[int, Found], heads: Sequence[int], edges: Sequence[int]) -> list[dict[str, Any]]:
    """A row for each layer, head and range of distances."""
    return [
        {
            'layer': layer,
            'head': head,
            'bucket_start': edges[b],
            'bucket_end': edges[b + 1],
            'mass': float(mass),
            'first_mass': float(found.first[i]),
            'entropy': float(found.entropy[i]),
        }
        for layer, found in seen.items()
        for i, head in enumerate(heads)
        for b, mass in enumerate(found.mass[i])
    ]


def write(target: Path, written: Sequence[Row], seen: Mapping[int, Found], heads: Sequence[int]) -> None:
    """The rows and the figures; says what was written. Raises StorageError."""
    from lcx.train.metrics import JsonlWriter
    from lcx.viz import attention, curves, tables

    with JsonlWriter(target / 'results.jsonl') as results:
        for row in written:
            results.write(row)
    (table,) = attention.tables(written)
    print(tables.to_markdown(table))
    label, length, folder = written[0]['label'], written[0]['length'], target / 'figures'
    drawn = attention.figures(written)
    for layer, found in seen.items():
        pictures = dict(zip(heads, found.picture))
        name = f'attention_layer_{layer}'
        drawn[name] = attention.draw_maps(pictures, label=label, layer=layer, length=length)
    try:
        folder.mkdir(exist_ok=True)
        for name, figure in drawn.items():
            for kind in ('png', 'svg'):
                path = folder / f'{name}.{kind}'
                path.write_bytes(curves.render(figure, kind))
                print(f'wrote {path}')
    except OSError as error:
        raise StorageError(f'{folder}: cannot write there: {error}') from error
