"""Literal rows in, literal tables out."""

import io
import math

from rich.console import Console

from lcx.viz.results import compare
from lcx.viz.tables import build, to_markdown, to_rich

MISSING = object()


def perplexity(label, trained, values):
    for length, value in zip((128, 256, 512), values):
        if value is not MISSING:
            yield {
                'evaluator': 'perplexity',
                'label': label,
                'length': length,
                'trained_length': trained,
                'windows': 32,
                'last': 64,
                'last_bits_per_byte': value,
                'last_bits_per_byte_stderr': 0.021,
            }


def passkey(label, accuracies):
    for length, accuracy in zip((128, 256), accuracies):
        yield {
            'evaluator': 'passkey',
            'label': label,
            'length': length,
            'samples': 16,
            'accuracy': accuracy,
            'accuracy_stderr': 0.0,
        }


def markdown(*groups):
    return [to_markdown(build(c)) for c in compare([row for group in groups for row in group])]


def test_markdown_table():
    assert markdown(
        perplexity('rope', 128, (2.584, 2.93, 3.79)),
        perplexity('yarn', 128, (2.576, 2.58, math.nan)),
        perplexity('yarn|tuned', 512, (2.6, MISSING, 2.449)),
    ) == [
        """\
| label       | trained at |      128 (1x)† |       256 (2x) |      512 (4x)† |
| :---------- | ---------: | -------------: | -------------: | -------------: |
| rope        |        128 | **2.58 ±0.02** |     2.93 ±0.02 |     3.79 ±0.02 |
| yarn        |        128 | **2.58 ±0.02** | **2.58 ±0.02** |      nan ±0.02 |
| yarn\\|tuned |        512 |     2.60 ±0.02 |              – | **2.45 ±0.02** |

Bits per byte over the last 64 tokens of each window: lower is better, 32 windows, \
± standard error over windows. † trained length.
"""
    ]


def test_accuracy_is_better_higher_and_zero_is_said_in_words():
    assert markdown(passkey('rope', (0.0, 0.0)), passkey('yarn', (0.5, 0.0))) == [
        """\
| label | trained at | effective |            128 |        256 |
| :---- | ---------: | --------: | -------------: | ---------: |
| rope  |          – |     \\<128 |     0.00 ±0.00 | 0.00 ±0.00 |
| yarn  |          – |     \\<128 | **0.50 ±0.00** | 0.00 ±0.00 |

Share of answers that are right: higher is better, 16 samples, ± standard error over samples. \
Effective: the greatest length with more than 0.856.
"""
    ]
    assert markdown(passkey('rope', (0.0, 0.0)))[0].endswith(' No answer was right, at any length.\n')


def test_terminal_shows_the_same_cells_and_takes_labels_literally():
    (comparison,) = compare(
        [*perplexity('[red]rope', 128, (2.5, 2.9, 3.7)), *perplexity('pi', 128, (2.4, 3, 4))]
    )
    console = Console(width=120, record=True, file=io.StringIO())
    console.print(to_rich(build(comparison)))
    text = ' '.join(console.export_text().split())
    assert '[red]rope' in text
    assert '2.50 ±0.02' in text and '512 (4x)' in text and 'lower is better' in text


def test_multiples_are_of_the_shortest_trained_length():
    rows = [
        {
            'evaluator': 'perplexity',
            'label': 'a',
            'length': length,
            'last_bits_per_byte': 2.0,
            'trained_length': 100,
        }
        for length in (50, 128, 200000)
    ]
    (comparison,) = compare(rows)
    assert build(comparison).head == ('label', 'trained at', '50 (0.5x)', '128 (1.28x)', '200000 (2000x)')
