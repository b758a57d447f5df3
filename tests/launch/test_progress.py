"""What is said of an evaluation while it runs."""

from lcx.launch.progress import Progress
from lcx.train.progress import duration


def row(length, seconds=1.0, evaluator='needle'):
    return {'evaluator': evaluator, 'length': length, 'seconds': seconds}


def test_rows_are_counted_and_the_rest_takes_as_long_for_a_token():
    progress = Progress('needle', {100: 2, 400: 3}, done=[row(100), row(100, evaluator='ruler'), row(800)])
    assert progress.add(row(100, 2.0)) == '2/5, eta 24 s'  # 1200 tokens at 0.02 s
    assert progress.add(row(400, 40.0)) == '3/5, eta 80 s'
    assert progress.add(row(400, 0.0)) == '4/5, eta 20 s'  # the same batch
    assert not progress.complete()
    assert progress.add(row(400, 50.0)) == '5/5' and progress.complete()
    assert progress.add(row(400)) == ''  # one more than it said


def test_rows_of_another_name_and_single_rows_are_not_counted():
    progress = Progress('perplexity', {100: 1})
    assert progress.add(row(100, evaluator='perplexity_by_position')) == ''
    assert progress.add(row(100, evaluator='perplexity')) == ''
    assert progress.complete() and Progress('harness', {}).complete()


def test_durations():
    assert [duration(s) for s in (0.4, 48, 720, 12_600)] == ['0 s', '48 s', '12 min', '3.5 h']
