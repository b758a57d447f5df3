"""``lcx report DIR...``: the results of many runs as tables and figures.

lcx report runs                     # every run below runs/; writes runs/figures/, report.html and all
lcx report runs/base runs/yarn --out=experiments/001_extension
lcx report --positions              # the position methods: a table, and a figure of their frequencies

Tables and figures are files of their own, and all of them, with what the runs are, in one page: report.html needs no
other file and no network.
"""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from absl import flags as absl_flags

from lcx.errors import ConfigError, StorageError
from lcx.launch.flags import no_arguments
from lcx.types import Row
from lcx.viz import attention, bench, curves, effective, heatmap, page, paired, results, runs, tables
from lcx.viz import positions as frequencies


def define(flags: absl_flags.FlagValues, argv: Sequence[str]) -> None:
    """Adds the verb's flags."""
    absl_flags.DEFINE_string(
        'out',
        None,
        'Directory of report.html, report.md and figures. Default: figures/ inside a single DIR, report/ for many.',
        flag_values=flags,
    )
    absl_flags.DEFINE_string(
        'reference',
        None,
        'Label that others are compared with on the same texts (rows of window_perplexity). Default: the first.',
        flag_values=flags,
    )
    absl_flags.DEFINE_float(
        'threshold',
        effective.THRESHOLD,
        'Share of right answers above which a length counts as effective. Default: that of RULER.',
        lower_bound=0.0,
        upper_bound=1.0,
        flag_values=flags,
    )
    absl_flags.DEFINE_bool(
        'positions',
        False,
        'Instead of results, the position methods: a table, and a figure of their frequencies, in --out or report/.',
        flag_values=flags,
    )


def run(flags: absl_flags.FlagValues, arguments: list[str]) -> None:
    """Prints a table of each evaluator and writes them with their figures; ``arguments`` are the directories.

    With --positions there are no directories. Raises ConfigError without a directory, DataError without
    results, StorageError if it cannot write.
    """
    if flags.positions:
        no_arguments(arguments)
        positions(flags.out)
        return
    if not arguments:
        raise ConfigError('report: no directory given. Name the workdirs or folders of them: lcx report runs')
    report(arguments, flags.out, flags.reference, flags.threshold)


def report(
    directories: list[str],
    out: str | None,
    reference: str | None = None,
    threshold: float = effective.THRESHOLD,
) -> None:
    """The verb without its flags: ``out`` at None is the default folder. Raises as the parts do."""
    paths = [Path(d) for d in directories]
    raced, rows = bench.split(results.load(paths))
    looked, rows = attention.split(rows)
    comparisons = [*results.compare(rows, threshold), *paired.compare(paths, reference)]
    built = [*(tables.build(c) for c in comparisons), *attention.tables(looked), *bench.tables(raced)]
    _print(built)
    columns = ', '.join(dict.fromkeys(m.column for m in results.MEASURES))
    untold = [
        f'{evaluator}: not shown; its rows have none of the columns {columns}.'
        for evaluator in _untabled(rows, comparisons)
    ]
    if untold:
        print(*untold, sep='\n')

    folder = Path(out or (Path(directories[0], 'figures') if len(directories) == 1 else 'report'))
    drawn = curves.figures(comparisons) | heatmap.figures(results.load(paths, keep=('depth',)))
    drawn |= attention.figures(looked) | bench.figures(raced)
    kinds = {kind: {name: curves.render(f, kind) for name, f in drawn.items()} for kind in ('png', 'svg')}
    files = {f'{name}.{kind}': content for kind, made in kinds.items() for name, content in made.items()}
    other = None if threshold == effective.THRESHOLD else threshold
    command = _command(directories, out=out, reference=reference, threshold=other)
    files['report.md'] = _markdown(command, built, files).encode()
    about = page.Section('Runs', runs.tables(runs.load(paths)), note=' '.join(untold))
    files['report.html'] = page.render(
        'Results', command, [*page.sections(built, kinds['svg']), about]
    ).encode()
    _write(folder, files)
    print(*(f'wrote {folder / name}' for name in files), sep='\n')


def positions(out: str | None) -> None:
    """The table of position methods, printed, and positions.{md,png,svg} in ``out``. Raises StorageError."""
    from lcx.launch import methods  # the only report that computes anything: JAX takes a second to load

    text = methods.table()
    print(text)
    curves_by_size = {head_dim: methods.curves(head_dim) for head_dim in methods.HEAD_DIMS}
    figure = frequencies.draw(curves_by_size, trained=methods.TRAINED, length=methods.LENGTH)
    files = {f'positions.{kind}': curves.render(figure, kind) for kind in ('png', 'svg')}
    folder = Path(out or 'report')
    _write(folder, {'positions.md': text.encode(), **files})
    print(*(f'wrote {folder / name}' for name in ('positions.md', *files)), sep='\n')


def _untabled(rows: list[Row], comparisons: list[results.Comparison]) -> list[str]:
    shown = {c.evaluator for c in comparisons}
    return list(dict.fromkeys(row['evaluator'] for row in rows if row['evaluator'] not in shown))


def _print(built: list[tables.Table]) -> None:
    """Tables of a terminal, or Markdown into a pipe or file, where lines must be neither cut nor coloured."""
    if not sys.stdout.isatty():
        print(*(f'{table.name}\n\n{tables.to_markdown(table)}' for table in built), sep='\n')
        return
    from rich.console import Console

    console = Console()
    for table in built:
        console.print(tables.to_rich(table))


def _command(arguments: list[str], **given: str | float | None) -> str:
    flags = (f'--{k}={v}' for k, v in given.items() if v is not None)
    return shlex.join(['lcx', 'report', *arguments, *flags])


def _markdown(command: str, built: list[tables.Table], files: Mapping[str, bytes]) -> str:
    sections = [f'# Results\n\nMade by `{command}`.\n']
    for table in built:
        picture = f'{table.name}.png'
        figure = f'\n![{table.name}]({picture})\n' if picture in files else ''
        sections.append(f'## {table.name}\n\n{tables.to_markdown(table)}{figure}')
    tabled = {f'{table.name}.png' for table in built}
    for picture in sorted(name for name in files if name.endswith('.png') and name not in tabled):
        sections.append(f'![{picture.removesuffix(".png")}]({picture})\n')
    return '\n'.join(sections)


def _write(out: Path, files: Mapping[str, bytes]) -> None:
    """Writes each file whole or not at all: a new file takes the place of the old one in one step."""
    try:
        out.mkdir(parents=True, exist_ok=True)
        for name, content in files.items():
            partial = out / f'.{name}.{os.getpid()}'
            try:
                partial.write_bytes(content)
                partial.replace(out / name)
            finally:
                partial.unlink(missing_ok=True)
    except OSError as error:
        raise StorageError(f'--out={out}: cannot write the report there: {error}') from error
