"""A run that trains on a synthetic task and is evaluated on it, from the command line."""

from tests.running import CONFIGS, lcx, rows

WORDS = ['train', f'--config={CONFIGS}/base.py:smoke', '--config.data.source=task:copy']


def test_a_task_trains_and_evaluates(tmp_path):
    """With a position method that has parameters, and a base without any."""
    assert (
        lcx(
            *WORDS,
            '--config.model.position.name=ssmax',
            "--config.eval.run=('task', 'passkey')",
            f'--workdir={tmp_path}/run',
        )
        == 0
    )
    found = rows(tmp_path / 'run' / 'results.jsonl')
    assert [(r['evaluator'], r['length']) for r in found] == [
        ('copy', 128), ('copy', 256), ('passkey', 128), ('passkey', 256),
    ]  # fmt: skip
    assert all(0 <= r['accuracy'] <= r['token_accuracy'] <= 1 for r in found[:2])
    assert 'token_accuracy' not in found[2]


def test_evaluators_say_which_data_they_need(tmp_path, capsys):
    assert lcx(*WORDS, f'--workdir={tmp_path}/run') == 2
    assert "eval.run: 'perplexity' reads text, and data.source is a task" in capsys.readouterr().err
    text = ['train', f'--config={CONFIGS}/base.py:smoke', "--config.eval.run=('task',)"]
    assert lcx(*text, f'--workdir={tmp_path}/text') == 2
    assert "'task' evaluates the task in data.source, which is text" in capsys.readouterr().err
    assert lcx(*WORDS[:2], '--config.data.source=task:cpy', f'--workdir={tmp_path}/none') == 2
    assert "data.source: unknown 'task:cpy'. Did you mean 'task:copy'" in capsys.readouterr().err


def test_a_task_out_of_files_trains_on_one_and_is_evaluated_on_another(tmp_path):
    for split, values in (('train', '234'), ('test', '789')):
        lines = [f'( ( [MAX {value} ) 1 ] )\t{value}' for value in values]
        (tmp_path / f'basic_{split}.tsv').write_text('\n'.join(['Source\tTarget', *lines]) + '\n')
    files = f'--config.data.files=({str(tmp_path)!r},)'
    words = [*WORDS[:2], '--config.data.source=lra:listops', files, '--config.eval.split=test']
    assert lcx(*words, "--config.eval.run=('task',)", f'--workdir={tmp_path}/run') == 0
    found = rows(tmp_path / 'run' / 'results.jsonl')
    assert [(r['evaluator'], r['length'], r['samples'], r['cut']) for r in found] == [
        ('lra_listops', n, 2, 0) for n in (128, 256)
    ]
    assert lcx('eval', f'--workdir={tmp_path}/run', '--config.eval.split=validation') == 7
