"""Runs files ``*on_eight_devices.py`` where JAX has eight: the number is fixed when a process first asks for one."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.devices
@pytest.mark.parametrize('name', ['parallel/', 'parallel/pipeline_', 'train/', 'generate/'])
def test_on_eight_devices(name):
    run(name, 'not slow')


@pytest.mark.slow
def test_every_strategy_trains_every_case():
    run('train/', 'slow')


def run(name, marks):
    flags = f'{os.environ.get("XLA_FLAGS", "")} --xla_force_host_platform_device_count=8'
    command = [
        sys.executable,
        '-m',
        'pytest',
        '-q',
        '-p',
        'no:cacheprovider',
        '-m',
        marks,
        f'tests/{name}on_eight_devices.py',
    ]
    # Without kept programs: read back from disk, those of several CPU devices no longer wait for each other in
    # order, and mix up what is sent at the same time (jaxlib 0.10.2: wrong numbers, or an abort in rendezvous.h).
    given = {'XLA_FLAGS': flags, 'JAX_PLATFORMS': 'cpu', 'JAX_ENABLE_COMPILATION_CACHE': 'false'}
    environment = {**os.environ, **given}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=1800)
    assert done.returncode == 0, done.stdout + done.stderr
    # and none was skipped
    assert re.search(r'^\d+ passed(, \d+ deselected)? in', done.stdout, re.MULTILINE), done.stdout
