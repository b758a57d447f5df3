"""Compiled programs are kept between test runs, and garbage is looked for rarely: most of the time is compilation."""

import gc
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
    gc.set_threshold(50_000)  # lcx.launch.cli says why


# A process may hold so many pieces of memory (vm.max_map_count is 65,530 by default), and every program takes several:
# without room for one more, XLA crashes.
PIECES = 20_000


@pytest.fixture(autouse=True, scope='module')
def forgotten_programs():
    """Programs are dropped after a module that leaves many behind."""
    yield
    maps = Path('/proc/self/maps')
    if maps.exists() and len(maps.read_bytes().splitlines()) > PIECES:
        import jax

        jax.clear_caches()
