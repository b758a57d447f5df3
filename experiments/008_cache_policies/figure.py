"""Quality against the size of the cache: a table and a figure of the rows that sweep.py's runs have written.

python experiments/008_cache_policies/figure.py runs/cache
"""

from __future__ import annotations

import sys
from pathlib import Path

from matplotlib import style
from matplotlib.figure import Figure

from lcx.viz import results
from lcx.viz.curves import COLOURS, DPI, MARKERS, STYLE, render

# The columns that are shown: evaluator, column, words.
SHOWN = (
    ('window_perplexity', 'last_bits_per_byte', 'bits per byte of the last quarter'),
    ('needle', 'accuracy', 'needles found'),
    ('passkey', 'accuracy', 'passkeys found'),
)
BITS = ('int8', 'int4', 'int2')
ALONE = 'window alone'  # far from the others in bits per byte


def main(directory: Path) -> None:
    """Prints the table; writes quality.png and quality.svg into ``directory``."""
    found: dict[str, dict] = {}
    for row in results.load([directory]):
        for evaluator, column, _ in SHOWN:
            if row['evaluator'] == evaluator and column in row:
                value = row[column], row.get(f'{column}_stderr')
                found.setdefault(row['label'], {})[evaluator] = value
                found[row['label']]['bytes'] = row['cache_bytes']
    found = dict(sorted(found.items(), key=lambda item: order(item[0])))
    print(table(found))
    figure = draw(found)
    for kind in ('png', 'svg'):
        (directory / f'quality.{kind}').write_bytes(render(figure, kind))
        print(f'wrote {directory / f"quality.{kind}"}')


def order(label: str) -> tuple:
    """Whole caches first, then policies by name, each from its largest budget on."""
    policy, _, share = label.partition(', ')
    whole = ['full', *BITS].index(policy) if not share else len(BITS) + 1
    return whole, policy.lower(), -float(share.rstrip('%') or 0)


def table(found: dict[str, dict]) -> str:
    """A row for each cache, as Markdown."""
    whole = found['full']['bytes']
    lines = ['| cache | bytes | of full | ' + ' | '.join(words for _, _, words in SHOWN) + ' |']
    lines.append('| :--- ' + '| ---: ' * (2 + len(SHOWN)) + '|')
    for label, values in found.items():
        cells = [f'{values["bytes"] / 1e6:.1f} MB', f'{values["bytes"] / whole:.3f}']
        for evaluator, _, _ in SHOWN:
            mean, error = values[evaluator]
            share = evaluator != 'window_perplexity'
            cells.append(f'{mean:.2f}' if share else f'{mean:.3f}' + (f' ±{error:.3f}' if error else ''))
        lines.append(f'| {label} | ' + ' | '.join(cells) + ' |')
    return '\n'.join(lines)


def share(label: str, found: dict[str, dict]) -> float:
    """What is kept of the full cache: of its tokens for a policy with a budget, else of its bytes."""
    if label.endswith('%'):
        return float(label.rpartition(' ')[2].rstrip('%')) / 100
    return found[label]['bytes'] / found['full']['bytes']


def draw(found: dict[str, dict]) -> Figure:
    """A panel for each measure, a line for each policy from the full cache to its smallest one."""
    lines = {policy: ['full'] for policy in dict.fromkeys(label.partition(',')[0] for label in found)}
    for label in found:
        lines[label.partition(',')[0]].append(label)
    lines = {policy: labels for policy, labels in lines.items() if ',' in labels[-1]}
    lines['quantised'] = ['full', *(label for label in BITS if label in found)]
    with style.context(['default', STYLE]):
        figure = Figure(figsize=(11, 3.8), dpi=DPI, facecolor='white', layout='constrained')
        panels = figure.subplots(1, len(SHOWN))
        for axes, (evaluator, _, words) in zip(panels, SHOWN):
            for i, (policy, labels) in enumerate(lines.items()):
                x = [share(label, found) for label in labels]
                y = [found[label][evaluator][0] for label in labels]
                look = {'color': COLOURS[i % len(COLOURS)], 'marker': MARKERS[i % len(MARKERS)]}
                axes.plot(
                    x, y, label=policy, linestyle='-' if i < len(COLOURS) else '--', linewidth=1.4, **look
                )
            if evaluator == 'window_perplexity':
                values = [found[label][evaluator][0] for label in found if not label.startswith(ALONE)]
                axes.set_ylim(min(values) - 0.01, max(values) + 0.02)
                words += f'\n({ALONE}: above, see the table)'
            else:
                axes.set_ylim(-0.04, 1.04)
            axes.set_xscale('log', base=2)
            ticks = [share(label, found) for label in lines['StreamingLLM']]
            axes.set_xticks(ticks, [f'{100 * tick:g}%' for tick in ticks])
            axes.minorticks_off()
            axes.set_xlabel('of the cache is kept')
            axes.set_title(words, loc='left', size=10, weight='bold')
            axes.grid(axis='y', color='#E5E5E5', linewidth=0.8)
            axes.spines[['left', 'right', 'top']].set_visible(False)
        figure.legend(*panels[0].get_legend_handles_labels(), loc='outside right center', frameon=False)
    return figure


if __name__ == '__main__':
    main(Path(sys.argv[1]))
