"""Runs of the command line on a text of a few kilobytes, as the tests of training and launching need them."""

import hashlib
import json
from pathlib import Path

import numpy as np

from lcx.launch import cli

CONFIGS = Path(__file__).parents[1] / 'configs'


def write_corpus(directory: Path) -> str:
    """Twelve documents of about 3 kB below ``directory``; returns the glob that matches them."""
    directory.mkdir(parents=True, exist_ok=True)
    words = ['sun', 'sky', 'grass', 'key', 'pass', 'token', 'length', 'window', 'step', 'model', 'the', 'of']
    random = np.random.default_rng(0)
    for i in range(12):
        (directory / f'{i}.txt').write_text(' '.join(random.choice(words, size=600)) + '\n')
    return f'{directory}/*.txt'


def on_corpus(directory: Path) -> list[str]:
    """The overrides that let any configuration read the corpus in ``directory``, prepared beside it."""
    return [
        '--config.data.source=text',
        f'--config.data.files=({write_corpus(directory / "corpus")!r},)',
        f'--config.data.directory={directory / "prepared"}',
    ]


def lcx(*words: object) -> int:
    """Runs ``lcx WORDS`` in this process and returns its exit code."""
    return cli.run(['lcx', *map(str, words)])


def rows(path: Path) -> list[dict]:
    """The rows of a JSONL file."""
    return [json.loads(line) for line in path.read_text().splitlines()]


def timeless(row: dict, **more: object) -> dict:
    """The row without what differs each time it is measured, and with ``more``."""
    return {**row, 'seconds': 0, 'peak_bytes': 0, **more}


def steps(workdir: Path) -> list[int]:
    """The steps of which the run has a checkpoint."""
    return sorted(int(path.name) for path in (workdir / 'checkpoints').iterdir() if path.name.isdecimal())


def digests(workdir: Path, step: int) -> dict[str, str]:
    """SHA-256 by name of every array in a checkpoint: parameters, optimizer, key, step."""
    manifest = (workdir / 'checkpoints' / str(step) / 'manifest.json').read_text().split('\n')[1]
    return {name: leaf['sha256'] for name, leaf in json.loads(manifest)['leaves'].items()}


def digest(workdir: Path, step: int) -> str:
    """One SHA-256 over all of them."""
    return hashlib.sha256(json.dumps(digests(workdir, step), sort_keys=True).encode()).hexdigest()
