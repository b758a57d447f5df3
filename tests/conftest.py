"""Compiled programs are kept between test runs: compilation is most of the time."""

import os
from pathlib import Path

import pytest


def pytest_configure(config: pytest.Config) -> None:
    """Before JAX is imported: a compilation cache in the user's cache directory, private like any program."""
    directory = Path(os.environ.get('XDG_CACHE_HOME') or Path.home() / '.cache') / 'lcx' / 'tests'
    directory.mkdir(parents=True, exist_ok=True)
    directory.chmod(0o700)
    os.environ.setdefault('JAX_COMPILATION_CACHE_DIR', str(directory))
    os.environ.setdefault('JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS', '0.3')
    os.environ.setdefault('JAX_PLATFORMS', 'cpu')
    # Machine code made quickly, of the same program: what XLA fuses, keeps and copies is decided before.
    quick = '--xla_backend_optimization_level=0'
    os.environ['XLA_FLAGS'] = f'{os.environ.get("XLA_FLAGS", "")} {quick}'.strip()
