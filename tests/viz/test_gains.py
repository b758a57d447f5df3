"""The gain of context, from files of rows."""

import json
import math

import pytest

from lcx.viz import curves, results, tables
from lcx.viz.results import Column


def write(folder, rows, **common):
    folder.mkdir(parents=True)
    lines = [json.dumps({'label': 'rope', 'seed': 0, 'trained_length': 16, **common, **row}) for row in rows]
    (folder / 'results.jsonl').write_text('\n'.join(lines) + '\n')


def window(length, text, nats):
    scores = {'last': 8, 'nats': nats, 'last_nats': nats, 'last_bits_per_byte': nats / math.log(2)}
    return {
        'evaluator': 'window_perplexity',
        'length': length,
        'window': 'abc'.index(text),
        'text': text,
        **scores,
    }


def only(comparisons, evaluator):
    (found,) = [c for c in comparisons if c.evaluator == evaluator]
    return found


def test_windows_are_paired_by_text(tmp_path):
    """Texts that differ by whole nats, and gain hundredths."""
    nats = {'a': 1.0, 'b': 3.0, 'c': 2.0}
    short = [window(16, text, value) for text, value in nats.items()]
    gains = {'a': 0.01, 'b': 0.02, 'c': 0.06}
    long = [window(64, text, nats[text] - gain) for text, gain in gains.items()]
    write(tmp_path / 'run', [*long, *short])
    comparison = only(results.compare(results.load([tmp_path])), 'window_perplexity_gain')
    assert comparison.title == 'Nats per token that context beyond 16 tokens saves, over the last 8'
    (series,) = comparison.series
    assert series.values[Column(None, 16)] == (0.0, 0.0)
    value = series.values[Column(None, 64)]
    assert value.mean == pytest.approx(0.03)
    assert value.stderr == pytest.approx(math.sqrt((4 + 1 + 9) / 2) / 100 / math.sqrt(3))
    assert '0.030 ±0.015' in tables.to_markdown(tables.build(comparison))
    assert 'higher is better, 3 windows' in comparison.note
    assert 'window_perplexity_gain' in curves.figures([comparison])


def test_whole_rows_tell_it_themselves_and_seeds_are_averaged(tmp_path):
    for seed, gain in enumerate((0.2, 0.4)):
        rows = [
            {
                'evaluator': 'perplexity', 'length': length, 'windows': 4, 'last': 8, 'last_bits_per_byte': 2.0,
                'short': 16, 'gain_nats': g, 'gain_nats_stderr': 0.05 * bool(g),
            }
            for length, g in ((16, 0.0), (32, gain))
        ]  # fmt: skip
        write(tmp_path / str(seed), rows, seed=seed)
    found = results.compare(results.load([tmp_path]))
    assert [c.evaluator for c in found] == ['perplexity', 'perplexity_gain']
    (series,) = found[1].series
    assert series.values[Column(None, 32)] == pytest.approx((0.3, 0.1))


def test_a_column_that_some_texts_lack_is_a_mean_over_the_others(tmp_path):
    base = {'evaluator': 'longppl', 'length': 64, 'short': 16, 'nats': 3.0}
    own = [{'key_nats': 1.0}, {}, {'key_nats': 2.0}, {}]
    write(tmp_path / 'run', [{**base, 'window': i, 'text': str(i), **row} for i, row in enumerate(own)])
    comparison = only(results.compare(results.load([tmp_path])), 'longppl')
    assert comparison.title == 'LongPPL: nats per key token, those that more than 16 tokens tell'
    assert comparison.series[0].values[Column(None, 64)] == pytest.approx((1.5, 0.5))


def test_documents_become_means(tmp_path):
    rows = [
        {
            'evaluator': 'document_bits', 'length': 64, 'document': i, 'text': str(i), 'stride': 32,
            'nats': 1.0, 'bits_per_byte': 1.0 + i,
        }
        for i in range(3)
    ]  # fmt: skip
    write(tmp_path / 'run', rows)
    (comparison,) = results.compare(results.load([tmp_path]))
    assert comparison.title == 'Bits per byte of documents, read through windows 32 tokens apart'
    assert comparison.series[0].values[Column(None, 64)] == pytest.approx((2.0, 1 / math.sqrt(3)))
    assert '3 documents' in comparison.note


def test_a_gain_that_breaks_down_leaves_at_the_bottom(tmp_path):
    for label, last in (('yarn', 0.2), ('pi', 0.15), ('rope', -4.0)):
        rows = [
            {'evaluator': 'perplexity', 'length': n, 'short': 16, 'last': 8, 'gain_nats': g}
            for n, g in ((16, 0.0), (32, 0.1), (64, last))
        ]
        write(tmp_path / label, rows, label=label)
    comparison = only(results.compare(results.load([tmp_path])), 'perplexity_gain')
    low, high = curves.limits(comparison)
    assert -0.1 < low < 0 and 0.2 < high < 0.3
    words = [t.get_text() for t in curves.draw(comparison).axes[0].texts]
    assert 'rope ↓ -4.00' in words and any('axis cut: ↓ values beyond it' in w for w in words)
