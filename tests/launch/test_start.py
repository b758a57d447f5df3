"""The start of a process that computes."""

import platform
import subprocess
import sys

import pytest

FAULTS = """
import resource, sys
import numpy as np
from lcx.launch.start import keep_freed_memory
kept = keep_freed_memory() if sys.argv[1] == 'keep' else False
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(10):
    np.ones(2**23)  # 64 MB, freed at once
print(kept, resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != 'glibc', reason='needs glibc')
def test_freed_memory_is_used_again_without_page_faults():
    def run(word):
        out = subprocess.run([sys.executable, '-c', FAULTS, word], capture_output=True, text=True, check=True)
        kept, faults = out.stdout.split()
        return kept == 'True', int(faults)

    (kept, few), (_, many) = run('keep'), run('default')
    assert kept and many > 4 * few
