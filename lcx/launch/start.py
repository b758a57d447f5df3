"""The start of a process that computes: settings of JAX, and the record of the attempt."""

from __future__ import annotations

import collections
import os
import sys
from pathlib import Path

import jax
from absl import logging

from lcx.launch.workdir import Workdir


def start(workdir: Workdir, seed: int) -> None:
    """Prepares JAX, touches the devices for the first time and writes what this attempt is into run.json."""
    logging.set_verbosity(logging.WARNING)
    compilation_cache()
    workdir.record_attempt(
        command=sys.argv,
        seed=seed,
        platform=jax.default_backend(),
        devices=collections.Counter(d.device_kind for d in jax.devices()),
    )


def compilation_cache() -> None:
    """Keeps compiled programs in a directory that only the user can write to, since they are executed when read.

    JAX_COMPILATION_CACHE_DIR names another; set to the empty string it turns the cache off.
    """
    if 'JAX_COMPILATION_CACHE_DIR' in os.environ:
        return
    directory = Path(os.environ.get('XDG_CACHE_HOME') or Path.home() / '.cache') / 'lcx' / 'xla'
    directory.mkdir(parents=True, exist_ok=True)
    directory.chmod(0o700)
    jax.config.update('jax_compilation_cache_dir', str(directory))
    jax.config.update('jax_persistent_cache_min_compile_time_secs', 0.5)
