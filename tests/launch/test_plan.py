"""``lcx plan``: tables of what a device would hold, for devices that are not there, and what it refuses."""

import re
import time

import jax
import pytest

from lcx.models import PRESETS
from tests.running import CONFIGS, lcx

BASE = f'--config={CONFIGS / "base.py"}'
LLAMA = (
    BASE,
    '--config.model.preset=llama_8b',
    '--config.model.dtype=bfloat16',
    '--config.model.remat=full',
    '--config.stages[0].length=8192',
    '--devices=64',
    '--config.mesh.fsdp=-1',
    '--config.mesh.tensor=8',
)


def table(text: str) -> dict[str, list[str]]:
    """The cells of each row by the first."""
    rows = (re.split(r'\s*\|\s*', line.strip('| ')) for line in text.splitlines() if line.startswith('|'))
    return {first: rest for first, *rest in rows}


def test_a_llama_over_devices_that_are_not_there(capsys):
    before, start = len(jax.live_arrays()), time.monotonic()
    assert lcx('plan', *LLAMA, '--cache_tokens=8192', '--cache_rows=16') == 0
    assert time.monotonic() - start < 5
    assert len(jax.live_arrays()) == before  # nothing was allocated
    found = table(capsys.readouterr().out)
    v, d, f = (PRESETS['llama_8b'][name] for name in ('vocab', 'width', 'hidden'))
    assert found['embedding'] == [f'{v} x {d}', 'float32', 'tensor, fsdp', f'{4 * v * d // 64:,}']
    assert found['layers/full_0/feed_forward/down/kernel'] == [
        f'32 x {f} x {d}', 'float32', '-, tensor, fsdp', f'{4 * 32 * f * d // 64:,}'
    ]  # fmt: skip
    assert found['final_norm/scale'] == [f'{d}', 'float32', 'fsdp', f'{4 * d // 8:,}']
    # 8,030,261,248 parameters, of which 65 norms are divided by 8 alone
    held = 4 * ((8_030_261_248 - 65 * d) // 64 + 65 * d // 8)
    assert found['parameters (8,030.26 M)'] == found['gradients'] == [f'{held / 1e6:.2f} MB']
    assert found['optimizer state'] == [f'{2 * held / 1e9:.2f} GB']
    assert found['tokens per device and step'] == [f'{8 * 8192:,}']
    flops = 6 * (8_030_261_248 - v * d - 65 * d) + 6 * 32 * d * 8192
    assert found['FLOPs per device and step'] == [f'{flops * 64 * 8192 / 64 / 1e12:.2f} T']
    cache = 2 * 2 * 32 * (8 // 8) * 128 * 8192 * 2  # k and v, bfloat16, 1 of 8 key heads, 2 of 16 rows
    number, unit = found['cache (full), not in training'][0].split()
    assert (float(number), unit) == (pytest.approx(cache / 1e6, rel=0.01), 'MB')


def test_every_stage_has_a_column_and_a_frozen_parameter_its_mark(capsys):
    longlora = f'--config={CONFIGS / "longlora.py"}:smoke'
    assert lcx('plan', longlora, '--config.optimizer.accumulate=2') == 0
    text = capsys.readouterr().out
    found = table(text)
    assert 'Devices: data 1 x fsdp 1 x context 1 x tensor 1 x stage 1.' in text
    assert 'several devices' not in text
    assert found['per device'] == ['stages[0]: 64 x 2']
    assert found['layers/full_0/mixer/query/kernel (frozen)'][2] == '-, -, -, -'
    assert {'embedding', 'layers/full_0/mixer/query/lora_a'} <= set(found)
    assert found['tokens per device and step'] == ['128']


@pytest.mark.parametrize(
    ('words', 'message'),
    [
        ((), '--config is required, for example --config=configs/base.py'),
        ((BASE, 'word'), "'word' is not a flag"),
        ((BASE, '--devices=0'), '--devices: 0 must be at least 1. Nearest: 1.'),
        (
            (BASE, '--devices=8', '--config.mesh.data=1'),
            'mesh: data=1 multiplies to 1, but there are 8 devices. Nearest: data=8.',
        ),
        ((BASE, '--config.mesh.stage=0'), 'mesh.stage: 0 must be at least 1. Nearest: 1.'),
        ((BASE, '--config.mesh.tensor=2'), 'model.vocab: 257 is no multiple of mesh.tensor=2.'),
        (
            (*LLAMA, '--config.mesh.tensor=16'),
            'model.kv_heads: 8 is no multiple of mesh.tensor=16. Nearest: model.kv_heads 16, or mesh.tensor 8.',
        ),
        (
            (BASE, '--config.mesh.data=3'),
            'stages[0].batch: 64 is no multiple of mesh.data=3 x mesh.fsdp=1. Nearest: stages[0].batch 63 or 66.',
        ),
        (
            (BASE, '--config.mesh.stage=3'),
            'repeats of the pattern (model.layers): 4 is no multiple of mesh.stage=3.',
        ),
        (
            (BASE, '--cache_rows=2'),
            '--cache_rows: 2 goes with --cache_tokens, for example --cache_tokens=8192.',
        ),
        ((BASE, '--cache_tokens=0'), '--cache_tokens: 0 must be at least 1. Nearest: 1.'),
        (
            (BASE, '--cache_tokens=8', '--cache_rows=3', '--config.mesh.data=2'),
            '--cache_rows: 3 is no multiple of mesh.data=2 x mesh.fsdp=1. Nearest: --cache_rows 2 or 4.',
        ),
        ((BASE, '--config.init_from=nowhere'), "init_from: 'nowhere' is neither a workdir"),
    ],
)
def test_what_cannot_be_planned_says_why(words, message, capsys):
    assert lcx('plan', *words) == 2
    assert message in capsys.readouterr().err


def test_a_length_that_does_not_divide_is_filled_up(capsys):
    assert lcx('plan', BASE, '--config.mesh.context=3', '--config.mesh.order=zigzag') == 0
    assert '2,816' in capsys.readouterr().out  # 64 rows of 132 tokens, a third of each
