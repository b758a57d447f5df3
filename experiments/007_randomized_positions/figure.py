"""Tables and the figure of experiment 007, from the rows that sweep.py's runs have written.

python experiments/007_randomized_positions/figure.py runs/random
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from matplotlib import style
from matplotlib.figure import Figure

from lcx.viz import results
from lcx.viz.curves import COLOURS, DPI, FAINT, MARKERS, STYLE, render

TRAINED, LONGEST = 40, 500  # symbols: of training, and of the longest questions
TASKS = ('bucket_sort', 'reverse_string', 'even_pairs', 'missing_duplicate')
METHODS = (
    *('none', 'rope', 'relative', 't5', 'alibi', 'sinusoidal'),
    *('r_rope', 'r_relative', 'r_t5', 'r_alibi', 'r_sinusoidal'),
)
# Ruoss et al. 2023, table 1, percent, as remembered: NOT checked against the paper. In the order of METHODS but for t5,
# which is not there.
PAPER = {
    task: dict(zip((m for m in METHODS if not m.endswith('t5')), percent))
    for task, percent in {
        'bucket_sort': (23.7, 30.6, 91.9, 38.8, 30.1, 99.6, 100, 99.6, 100),
        'reverse_string': (52.8, 51.9, 58.3, 62.3, 50.6, 69.9, 95.1, 77.1, 75.6),
        'even_pairs': (50.4, 51.0, 96.4, 67.3, 50.9, 100, 100, 81.5, 100),
        'missing_duplicate': (52.5, 56.5, 54.0, 54.3, 51.3, 88.7, 100, 79.7, 52.5),
    }.items()
}
# Sizes that a table averages over.
PARTS = {
    'Up to 40 symbols, as in training': (10, 40),
    '41 to 100 symbols': (41, 100),
    '41 to 500 symbols': (41, 500),
}
COMPARED = '41 to 500 symbols'  # the paper's

Found = Mapping[tuple[str, str], Mapping[int, Mapping[int, float]]]  # (task, method) -> seed -> size -> share


def main(directory: Path) -> None:
    """Prints the tables; writes accuracy.png and accuracy.svg into ``directory``."""
    found = load(directory)
    for words, sizes in PARTS.items():
        print(f'{words}\n\n{table(found, sizes, PAPER if words == COMPARED else {})}\n')
    for task in TASKS:
        both = [m for m in PAPER[task] if (task, m) in found]
        ours = [np.mean(scores(found[task, m], PARTS[COMPARED])) for m in both]
        theirs = [PAPER[task][m] for m in both]
        if len(ours) > 1:
            print(f'{task}: rank correlation with the paper {spearman(ours, theirs):.2f}')
    for (task, label), by_seed in found.items():
        if label not in METHODS:
            numbers = ', '.join(
                f'{words} {np.mean(scores(by_seed, sizes)):.1f}' for words, sizes in PARTS.items()
            )
            print(f'{task}, {label}: {numbers}')
    figure = draw(found)
    for kind in ('png', 'svg'):
        (directory / f'accuracy.{kind}').write_bytes(render(figure, kind))
        print(f'wrote {directory / f"accuracy.{kind}"}')


def load(directory: Path) -> Found:
    """The share of right answer tokens of every task, method, seed and size, of runs that are done."""
    found: dict = {}
    for path in results.find([directory]):
        for row in results.read(path):
            key = row['evaluator'].removesuffix('_sizes'), row['label']
            found.setdefault(key, {}).setdefault(row['seed'], {})[row['size']] = row['token_accuracy']
    done = {
        key: {seed: of for seed, of in by_seed.items() if LONGEST in of} for key, by_seed in found.items()
    }
    return {key: by_seed for key, by_seed in done.items() if by_seed}


def scores(by_seed: Mapping[int, Mapping[int, float]], sizes: tuple[int, int]) -> list[float]:
    """Percent, of each seed: the mean over all ``sizes`` from first to last.

    Those between the tested ones are interpolated, linearly in the logarithm of the size.
    """
    first, last = sizes
    every = np.log(np.arange(first, last + 1))
    return [
        100 * float(np.mean(np.interp(every, np.log(sorted(of)), [of[size] for size in sorted(of)])))
        for of in by_seed.values()
    ]


def table(found: Found, sizes: tuple[int, int], paper: Mapping[str, Mapping[str, float]]) -> str:
    """Methods down, tasks across: mean and, in brackets, least and most of the seeds; in italics the paper's."""
    lines = ['| method | ' + ' | '.join(task.replace('_', ' ') for task in TASKS) + ' |']
    lines.append('| :--- ' + '| ---: ' * len(TASKS) + '|')
    for method in METHODS:
        cells = []
        for task in TASKS:
            of = scores(found.get((task, method), {}), sizes)
            cell = f'{np.mean(of):.1f}' if of else '–'
            cell += f' ({min(of):.1f} to {max(of):.1f})' if len(of) > 1 else ''
            cells.append(cell + (f' *{paper[task][method]:g}*' if method in paper.get(task, {}) else ''))
        lines.append(f'| {method} | ' + ' | '.join(cells) + ' |')
    return '\n'.join(lines)


def spearman(a: list[float], b: list[float]) -> float:
    """The correlation of ranks, those of equal numbers being their mean."""

    def ranks(values: list[float]) -> np.ndarray:
        x = np.round(values, 1)
        return np.array([np.sum(x < y) + np.sum(x == y) / 2 for y in x])

    return float(np.corrcoef(ranks(a), ranks(b))[0, 1])


def pooled(by_seed: list[Mapping[int, float]]) -> tuple[np.ndarray, np.ndarray]:
    """Sizes and shares 'seeds sizes', with the mean of five neighbours in place of sizes close to each other."""
    sizes = sorted(by_seed[0])
    close = [size for size in sizes if TRAINED < size <= 100]
    groups = [
        *([size] for size in sizes if size not in close),
        *(close[i : i + 5] for i in range(0, len(close), 5)),
    ]
    groups.sort()
    shares = [[np.mean([of[size] for size in group]) for group in groups] for of in by_seed]
    return np.array([np.mean(group) for group in groups]), np.array(shares)


def draw(found: Found) -> Figure:
    """A panel for each task; a colour for each base, solid where its positions are random."""
    colours = dict(zip(('rope', 'relative', 'alibi', 'sinusoidal', 't5'), COLOURS[1:]))
    with style.context(['default', STYLE]):
        figure = Figure(figsize=(11, 7), dpi=DPI, facecolor='white', layout='constrained')
        panels = figure.subplots(2, 2).ravel()
        for axes, task in zip(panels, TASKS):
            for i, method in enumerate(METHODS):
                by_seed = list(found.get((task, method), {}).values())
                if not by_seed:
                    continue
                sizes, shares = pooled(by_seed)
                base = method.removeprefix('r_')
                colour, dashes = colours.get(base, FAINT), '--' if method == base else '-'
                look = {'color': colour, 'linestyle': dashes, 'marker': MARKERS[i % 5], 'markersize': 4}
                axes.plot(sizes, shares.mean(axis=0), label=method, linewidth=1.4, **look)
                band = shares.min(axis=0), shares.max(axis=0)
                axes.fill_between(sizes, *band, color=colour, alpha=0.12, linewidth=0)
            axes.axvline(TRAINED, color=FAINT, linewidth=0.9, linestyle=':')
            axes.annotate(
                'trained up to here', (TRAINED, 1.045), ha='right', size=8, color=FAINT, annotation_clip=False
            )
            axes.set_xscale('log', base=2)
            axes.set_xticks((10, 20, 40, 60, 100, 200, 500), ('10', '20', '40', '60', '100', '200', '500'))
            axes.minorticks_off()
            axes.set_ylim(0 if task == 'bucket_sort' else 0.35, 1.03)
            axes.set_xlabel('symbols of the question', size=9)
            axes.set_title(
                f'{task.replace("_", " ")}: share of right tokens', loc='left', size=10, weight='bold', pad=14
            )
            axes.grid(axis='y', color='#E5E5E5', linewidth=0.8)
            axes.spines[['left', 'right', 'top']].set_visible(False)
        figure.legend(*panels[0].get_legend_handles_labels(), loc='outside right center', frameon=False)
    return figure


if __name__ == '__main__':
    main(Path(sys.argv[1]))
