"""The effective length: published ones, in tables and in figures."""

import pytest

from lcx.viz import curves
from lcx.viz.effective import THRESHOLD, effective_length
from lcx.viz.results import average, compare
from lcx.viz.tables import build, to_markdown

# Rows of the table in RULER's README: scores at 4K to 128K, and the effective length in K.
PUBLISHED = {
    'GPT-4-1106-preview': ((96.6, 96.3, 95.2, 93.2, 87.0, 81.2), 64),
    'Llama3.1 (8B)': ((95.5, 93.8, 91.6, 87.4, 84.7, 77.0), 32),
    'Mistral (7B)': ((93.6, 91.2, 87.2, 75.4, 49.0, 13.8), 16),
    'DBRX': ((95.1, 93.8, 83.6, 63.1, 2.4, 0.0), 8),
    'InternLM2.5 (7B)': ((88.1, 85.5, 84.5, 82.7, 75.5, 68.9), 4),
    'LWM (7B)': ((82.3, 78.4, 73.7, 69.1, 68.1, 65.0), None),
    'Jamba-1.5-large': ((96.7, 96.6, 96.4, 96.0, 95.4, 95.1), 128),
}


@pytest.mark.parametrize('model', PUBLISHED)
def test_effective_lengths_are_the_published_ones(model):
    scores, effective = PUBLISHED[model]
    lengths = {2**i * 1024: score / 100 for i, score in enumerate(scores, start=2)}
    assert effective_length(lengths) == (effective and effective * 1024)


def test_a_score_must_exceed_the_threshold():
    assert THRESHOLD == 0.856
    assert effective_length({4096: THRESHOLD}) is None and effective_length({}) is None
    assert effective_length({4096: 0.5, 8192: 0.6, 16384: 0.5}, threshold=0.5) == 8192


def rows(label, scores, evaluator='ruler', column='score', trained=1024, **more):
    return [
        {
            'evaluator': evaluator, 'label': label, 'length': 1024 << i, 'trained_length': trained, column: score,
            f'{column}_stderr': 0.01, 'samples': 8, **more,
        }
        for i, score in enumerate(scores)
    ]  # fmt: skip


def test_tables_have_a_column_of_it_beside_the_trained_length():
    """A label's first gap is not its end; a label below at every length is below the shortest."""
    found = [*rows('yarn', (0.9, 0.8, 0.87)), *rows('pi', (0.86, 0.856, 0.2)), *rows('rope', (0.5, 0.0))]
    (comparison,) = compare(found)
    assert to_markdown(build(comparison)).splitlines() == [
        '| label | trained at | effective |     1024 (1x)† |      2048 (2x) |      4096 (4x) |',
        '| :---- | ---------: | --------: | -------------: | -------------: | -------------: |',
        '| yarn  |       1024 |      4096 | **0.90 ±0.01** |     0.80 ±0.01 | **0.87 ±0.01** |',
        '| pi    |       1024 |      1024 |     0.86 ±0.01 | **0.86 ±0.01** |     0.20 ±0.01 |',
        '| rope  |       1024 |    \\<1024 |     0.50 ±0.01 |     0.00 ±0.01 |              – |',
        '',
        'RULER, all tasks: share of what an answer must hold that is in what was written: higher is better, '
        '8 samples, ± standard error over samples. † trained length. Effective: the greatest length with more than '
        '0.856.',
    ]
    (other,) = compare(found, threshold=0.4)
    assert [row[2].text for row in build(other).rows] == ['4096', '2048', '1024']


def test_only_shares_by_length_have_one():
    bits = rows('a', (2.0, 1.0), 'perplexity', 'last_bits_per_byte', last=8)
    none = rows('a', (0.0, 0.0), 'passkey', 'accuracy')
    task = rows('a', (1.0, 0.5), 'copy', 'accuracy')
    assert [c.threshold for c in compare([*bits, *none, *task])] == [None, None, THRESHOLD]


def test_figures_have_a_line_at_the_threshold_and_bands_over_seeds():
    """Three seeds of a task: the band is s / sqrt(3) to each side."""
    seeds = [
        rows('rope', (1.0, score), 'copy', 'accuracy', seed=i) for i, score in enumerate((0.5, 0.6, 0.7))
    ]
    (comparison,) = compare([average(group) for group in zip(*seeds)])
    assert '± standard error over 3 seeds' in comparison.note
    axes = curves.draw(comparison).axes[0]
    assert any(list(line.get_ydata()) == [THRESHOLD] * 2 for line in axes.lines)
    assert any('dotted: 0.856' in text.get_text() for text in axes.texts)
    band = axes.collections[0].get_paths()[0].vertices[:, 1]
    error = 0.1 / 3**0.5
    assert {round(float(y), 6) for y in band} == {1.0, round(0.6 - error, 6), round(0.6 + error, 6)}
