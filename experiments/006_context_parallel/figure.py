"""Tables of results.jsonl, and figures of it and of the model's extrapolation.

python experiments/006_context_parallel/figure.py
"""

from __future__ import annotations

import json
from pathlib import Path

import model
from matplotlib import style
from matplotlib.figure import Figure

from lcx.viz.curves import COLOURS, DPI, MARKERS, STYLE, render

HERE = Path(__file__).parent
SHOWN = (
    ('sent', 'MB that a device sends', (1, 10, 100)),
    ('temporary', 'MB of its temporary memory', (10, 30, 100)),
)


def tables(rows: list[dict]) -> str:
    """What was counted, as GitHub Markdown."""
    attention = [row for row in rows if row['what'] == 'attention']
    lengths = sorted({row['length'] for row in attention})
    lines = ['| strategy, rule | ' + ' | '.join(f'{n // 1024}k' for n in lengths) + ' |']
    lines += ['| :--- |' + ' ---: |' * len(lengths)]
    for key in dict.fromkeys((row['strategy'], row['rule']) for row in attention):
        own = {row['length']: row for row in attention if (row['strategy'], row['rule']) == key}
        cells = [f'{own[n]["sent"] / 1e6:.1f} / {own[n]["temporary"] / 1e6:.0f}' for n in lengths]
        lines.append(f'| {key[0]}, {key[1]} | {" | ".join(cells)} |')
    lines += ['', '| blocks, most / mean | ' + ' | '.join(f'{n // 1024}k' for n in lengths) + ' |']
    lines += ['| :--- |' + ' ---: |' * len(lengths)]
    balance = [row for row in rows if row['what'] == 'balance']
    for key in dict.fromkeys((row['case'], row['order']) for row in balance):
        own = {row['length']: row for row in balance if (row['case'], row['order']) == key}
        cells = [f'{own[n]["max_over_mean"]:.2f} ({sum(own[n]["blocks"])})' for n in lengths]
        lines.append(f'| {key[0]}, {key[1]} | {" | ".join(cells)} |')
    lines += [
        '',
        '| gradient of four layers, 8k | sent, MB | temporary, MB | compiled in |',
        '| :--- | ---: | ---: | ---: |',
    ]
    for row in rows:
        if row['what'] == 'gradient of a model':
            sizes = f'{row["sent"] / 1e6:.1f} | {row["temporary"] / 1e6:.0f}'
            lines.append(f'| {row["strategy"]} | {sizes} | {row["compile_seconds"]} s |')
    return '\n'.join(lines)


def counted(rows: list[dict]) -> Figure:
    """Bytes sent and held against the length, causal (halo: window)."""
    figure = Figure(figsize=(9, 4.2), dpi=DPI, layout='constrained')
    axes = figure.subplots(1, 2)
    rows = [row for row in rows if row['what'] == 'attention']
    rows = [row for row in rows if row['rule'] == ('window' if row['strategy'] == 'halo' else 'causal')]
    for axis, (column, words, ticks) in zip(axes, SHOWN):
        for i, strategy in enumerate(dict.fromkeys(row['strategy'] for row in rows)):
            own = [row for row in rows if row['strategy'] == strategy]
            x, y = [row['length'] for row in own], [row[column] / 1e6 for row in own]
            name = f'{strategy}, window of 512' if strategy == 'halo' else strategy
            axis.plot(x, y, label=name, color=COLOURS[i % len(COLOURS)], marker=MARKERS[i % len(MARKERS)])
        axis.set(xscale='log', yscale='log', xlabel='tokens over eight devices', ylabel=words)
        axis.set_xticks(x, [f'{n // 1024}k' for n in x])
        axis.set_yticks(ticks, [str(n) for n in ticks])
        axis.minorticks_off()
    figure.legend(*axes[0].get_legend_handles_labels(), loc='outside lower center', ncols=3, fontsize='small')
    return figure


def extrapolated() -> Figure:
    """Share of the ideal speed by devices, for each number of tokens, within a node and over a network."""
    figure = Figure(figsize=(9, 3.6), dpi=DPI, layout='constrained')
    for axis, device in zip(figure.subplots(1, 2, sharey=True), ('H100', 'H100, network')):
        rows = model.extrapolation(device)
        for i, tokens in enumerate(model.TOKENS):
            for strategy, dash in (('ring zigzag', '-'), ('all_gather', '--')):
                own = [row for row in rows if (row['tokens'], row['strategy']) == (tokens, strategy)]
                axis.plot(
                    [row['devices'] for row in own],
                    [row['of_ideal'] for row in own],
                    dash,
                    label=f'{tokens / 2**20:g} M tokens' if dash == '-' else None,
                    color=COLOURS[i % len(COLOURS)],
                )
        axis.set(xscale='log', xlabel='devices', title=device, ylim=(0, 1.02))
        axis.set_xticks(model.COUNTS, [str(n) for n in model.COUNTS])
        axis.minorticks_off()
    figure.axes[0].set_ylabel('share of the ideal speed (model)')
    figure.axes[0].legend(
        fontsize='small', title='ring in zigzag order; dashed all_gather', title_fontsize='small'
    )
    return figure


def main() -> None:
    rows = [json.loads(line) for line in (HERE / 'results.jsonl').read_text().splitlines()]
    print(tables(rows))
    with style.context(STYLE):
        for name, figure in (('counted', counted(rows)), ('extrapolated', extrapolated())):
            for kind in ('png', 'svg'):
                (HERE / f'{name}.{kind}').write_bytes(render(figure, kind))


if __name__ == '__main__':
    main()
