"""Every configuration in configs/: it is one, and its smoke run goes from text to results."""

import importlib.util

import numpy as np
import pytest

from lcx.launch.experiment import ExperimentConfig, experiment_config, stage_models, values_of
from tests.running import CONFIGS, lcx, on_corpus, rows, steps

ENCODERS = [CONFIGS / 'randomized_positions.py']  # that read tasks, and no text
FILES = sorted(path for path in CONFIGS.glob('*.py') if path not in (CONFIGS / '__init__.py', *ENCODERS))
EVALUATIONS = sorted(
    path for path in CONFIGS.glob('eval/*.py') if path.name != '__init__.py'
)  # that train nothing


@pytest.fixture(params=[*FILES, *ENCODERS, *EVALUATIONS], ids=lambda path: path.stem)
def get_config(request):
    """The function of a configuration file."""
    spec = importlib.util.spec_from_file_location(f'config_{request.param.stem}', request.param)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.get_config


@pytest.mark.parametrize('arg', ['', 'smoke'])
def test_a_config_is_complete_and_correct(get_config, arg):
    experiment = experiment_config(values_of(get_config(arg)))
    assert isinstance(experiment, ExperimentConfig)
    models = stage_models(experiment, experiment.model)
    assert [m.trained_length for m in models] == [s.length for s in experiment.stages]


def test_a_config_tells_a_wrong_argument(get_config):
    with pytest.raises(ValueError, match=r"'smok' is unknown.*smoke"):
        get_config('smok')


@pytest.fixture(scope='module', params=FILES, ids=lambda path: path.stem)
def smoke(request, tmp_path_factory):
    """The workdir of a finished smoke run."""
    directory = tmp_path_factory.mktemp('smoke')
    words = [f'--config={request.param}:smoke', f'--workdir={directory}/run', *on_corpus(directory)]
    assert lcx('train', *words, "--config.eval.run=('perplexity', 'passkey')") == 0
    return directory / 'run'


def test_a_smoke_run_writes_metrics_and_checkpoints(smoke):
    found = rows(smoke / 'metrics.jsonl')
    assert [row['step'] for row in found] == list(range(1, steps(smoke)[-1] + 1))
    assert all(0 < row['loss'] < 10 and np.isfinite(row['grad_norm']) for row in found)


def test_a_smoke_run_writes_results(smoke):
    found = rows(smoke / 'results.jsonl')
    by_name = {name: [r for r in found if r['evaluator'] == name] for name in ('perplexity', 'passkey')}
    assert (
        [r['length'] for r in by_name['perplexity']]
        == [r['length'] for r in by_name['passkey']]
        == [128, 256]
    )
    for row in by_name['perplexity']:
        assert 0 < row['last_bits_per_byte'] < 12 and 1 < row['ppl'] < 3000 and row['windows'] == 2
    for row in by_name['passkey']:
        assert 0 <= row['accuracy'] <= 1 and row['samples'] == 2


@pytest.mark.parametrize(('config', 'words'), [(ENCODERS[0], 'smoke,r_alibi,missing_duplicate')])
def test_a_smoke_run_of_an_encoder_writes_results(config, words, tmp_path):
    assert lcx('train', f'--config={config}:{words}', f'--workdir={tmp_path}/run') == 0
    found = rows(tmp_path / 'run' / 'results.jsonl')
    assert [(r['evaluator'], r['size'], r['length']) for r in found] == [
        ('missing_duplicate_sizes', 3, 4),
        ('missing_duplicate_sizes', 50, 51),
    ]
    assert all(r['label'] == 'r_alibi' and 0 <= r['token_accuracy'] <= 1 and r['samples'] == 2 for r in found)
