"""What is written loads in transformers and computes the same: every family, and models that lcx has extended.

Needs a Python with transformers and torch: this one, or the one that LCX_ORACLE names.
"""

import dataclasses
import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

from lcx import convert
from lcx.models import init, logits
from tests.convert.families import NAMES, golden, write_golden
from tests.models.tiny import changed

SCRIPT = Path(__file__).parents[2] / 'third_party' / 'families' / 'check_exports.py'
ORACLE = os.environ.get('LCX_ORACLE') or (importlib.util.find_spec('transformers') and sys.executable)


def export(directory: Path, config, params, tokens, **arguments) -> None:
    """The model at the length of ``tokens``, with what it computes there."""
    convert.save(config, params, directory, **arguments)
    found = np.array(jax.jit(logits, static_argnums=0)(config, params, tokens))
    np.savez(directory / 'reference.npz', tokens=tokens, logits=found)


@pytest.mark.slow
@pytest.mark.skipif(
    not ORACLE, reason='transformers is not installed, and LCX_ORACLE names no Python that has it'
)
def test_transformers_computes_the_same(tmp_path):
    out = tmp_path / 'out'
    for name in NAMES:
        config, params = convert.load(write_golden(tmp_path / name, name))
        export(out / name, config, params, golden(name)['tokens'])
    # Beyond the trained length, by methods that each family has.
    long = np.random.default_rng(0).integers(0, 64, (2, 160), np.int32)
    for name, position in {
        'llama_bias': {'name': 'yarn', 'theta': 1000.0},
        'qwen3': {'name': 'ntk', 'theta': 1000.0, 'factor': 3.0},
        'mistral': {'name': 'dynamic_ntk', 'theta': 1000.0, 'factor': 2.0},
        'gemma2': {'name': 'ntk_by_parts', 'theta': 1000.0},
        'gemma3': {'name': 'yarn', 'theta': 1000.0},
        'gpt_neox': {'name': 'pi', 'theta': 1000.0, 'rotary_fraction': 0.25},
    }.items():
        config, params = convert.load(tmp_path / name)
        config = dataclasses.replace(config, position=position)
        trained = config if position['name'] == 'dynamic_ntk' else config.trained_at(160)
        export(out / f'{name}_{position["name"]}', trained, params, long)
    config = changed(position={'name': 'yarn'})
    params = jax.jit(init, static_argnums=0)(config, jax.random.key(0))
    export(out / 'made_here_yarn', config.trained_at(160), params, long, max_shard_bytes=20_000)
    done = subprocess.run([ORACLE, str(SCRIPT), str(out)], capture_output=True, text=True)
    print(done.stdout)
    assert done.returncode == 0, done.stdout + done.stderr[-2000:]
