"""Differences on the same texts, from files of rows."""

import json
import math

import pytest

from lcx.errors import ConfigError
from lcx.viz import curves, paired, results, tables


def write(folder, label, scores, **more):
    """``scores``: (length, text) -> last_nats."""
    folder.mkdir(parents=True)
    rows = [
        {
            'label': label, 'evaluator': 'window_perplexity', 'length': length, 'window': i, 'text': text,
            'last': 8, 'last_nats': nats, 'last_bits_per_byte': nats / math.log(2), 'trained_length': 16, **more,
        }
        for i, ((length, text), nats) in enumerate(scores.items())
    ]  # fmt: skip
    (folder / 'results.jsonl').write_text(''.join(json.dumps(row) + '\n' for row in rows))


@pytest.fixture
def runs(tmp_path):
    """Texts that differ by whole nats, models by hundredths."""
    texts = {(16, 'a'): 1.0, (16, 'b'): 3.0, (16, 'c'): 2.0, (32, 'a'): 0.5, (32, 'b'): 4.5}
    write(tmp_path / 'base', 'base', texts)
    changed = {key: value + (0.02 if key[1] == 'a' else 0.01) for key, value in texts.items()}
    write(tmp_path / 'other', 'other', {**changed, (32, 'z'): 9.0})
    write(tmp_path / 'short', 'short', {key: v - 1 for key, v in texts.items() if key[0] == 16})
    return tmp_path


def test_differences_are_of_pairs(runs):
    (comparison,) = paired.compare([runs])
    by_label = {s.label: s.values for s in comparison.series}
    value = by_label['other'][results.Column(None, 16)]
    assert value.mean == pytest.approx(0.04 / 3)
    assert value.stderr == pytest.approx(0.01 / math.sqrt(3) / math.sqrt(3))
    assert by_label['other'][results.Column(None, 32)].mean == pytest.approx(0.015)
    assert list(by_label['short']) == [results.Column(None, 16)]
    text = tables.to_markdown(tables.build(comparison))
    assert '0.0133 ±0.0033' in text and 'less those of base on the same text' in text
    assert '2 or 3 pairs' in text
    assert list(curves.figures([comparison])) == ['window_perplexity_paired']


def test_the_reference_is_a_choice_and_its_name_is_checked(runs):
    (comparison,) = paired.compare([runs], 'other')
    assert {s.label for s in comparison.series} == {'base', 'short'}
    with pytest.raises(ConfigError, match=r"reference: unknown 'bas'\. Did you mean 'base'"):
        paired.compare([runs], 'bas')


def test_windows_become_means_with_errors(runs):
    rows = [
        r
        for r in results.load([runs])
        if (r['label'], r['evaluator']) == ('base', 'window_perplexity') and r['length'] == 16
    ]
    assert len(rows) == 1 and rows[0]['windows'] == 3
    assert rows[0]['last_nats'] == pytest.approx(2.0)
    assert rows[0]['last_nats_stderr'] == pytest.approx(1 / math.sqrt(3))


def test_without_pairs_there_is_nothing(tmp_path):
    write(tmp_path / 'a', 'a', {(16, 'a'): 1.0})
    assert paired.compare([tmp_path]) == []
    write(tmp_path / 'b', 'b', {(16, 'b'): 1.0})
    assert paired.compare([tmp_path]) == []
