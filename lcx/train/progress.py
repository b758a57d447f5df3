"""What a person sees while a run trains, and the rates that logs carry.

On a terminal a live bar; elsewhere (files, schedulers, CI) one plain line per log row.
"""

from __future__ import annotations

import sys
import time

import jax
import numpy as np
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as Bar

# Dense bf16 peak of one device, FLOP/s, by a part of jax's device_kind (vendors' data sheets).
PEAKS = {
    'H200': 989e12,
    'H100': 989e12,
    'A100': 312e12,
    'TPU v4': 275e12,
    'TPU v5 lite': 197e12,
    'TPU v5': 459e12,
    'TPU v6': 918e12,
}


def peak_flops() -> float | None:
    """The peak of all devices together, or None where it is not known (CPUs)."""
    kind = jax.devices()[0].device_kind
    peaks = [peak for name, peak in PEAKS.items() if name.lower() in kind.lower()]
    return peaks[0] * jax.device_count() if peaks else None


def duration(seconds: float) -> str:
    """'48 s', '12 min', '3.5 h'."""
    if seconds > 5400:
        return f'{seconds / 3600:.1f} h'
    return f'{seconds / 60:.0f} min' if seconds > 90 else f'{seconds:.0f} s'


class Rates:
    """Means of metrics and rates of work since the last row."""

    def __init__(self, flops_per_token: float) -> None:
        self.flops_per_token = flops_per_token
        self.rows: list[dict] = []
        self.since = time.monotonic()

    def add(self, metrics: dict) -> None:
        """One step's metrics, still on the device."""
        self.rows.append(metrics)

    def take(self) -> dict[str, float]:
        """loss (mean over tokens, nats), grad_norm, tokens_per_second, gflops (10^9 FLOP/s) and mfu where known."""
        rows = jax.device_get(self.rows)
        seconds = time.monotonic() - self.since
        self.rows, self.since = [], time.monotonic()
        tokens = np.array([r['tokens'] for r in rows], np.float64)
        losses = np.array([r['loss'] for r in rows], np.float64)
        rate = tokens.sum() / max(seconds, 1e-9)
        out = {
            'loss': float((losses * tokens).sum() / max(tokens.sum(), 1)),
            'grad_norm': float(np.mean([r['grad_norm'] for r in rows])),
            'tokens_per_second': float(rate),
            'gflops': float(rate * self.flops_per_token / 1e9),
        }
        peak = peak_flops()
        return out | ({'mfu': rate * self.flops_per_token / peak} if peak else {})


class Progress:
    """A progress bar over all steps of a run (context manager); of several processes the first one shows it."""

    def __init__(self, steps: int, done: int, shown: bool = True) -> None:
        self.steps = steps
        self.console = Console(stderr=True, quiet=not shown)
        self.live = shown and self.console.is_terminal and sys.stderr.isatty()
        self.bar = Bar(
            TextColumn('{task.description}'),
            BarColumn(bar_width=None),
            MofNCompleteColumn(),
            TextColumn('{task.fields[numbers]}'),
            TimeElapsedColumn(),
            TextColumn('eta'),
            TimeRemainingColumn(),
            console=self.console,
            disable=not self.live,
        )
        self.task = self.bar.add_task('compiling', total=steps, completed=done, numbers='')
        self.start, self.first = time.monotonic(), done

    def __enter__(self) -> Progress:
        self.bar.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        self.bar.__exit__(*error)

    def stage(self, number: int, count: int, length: int) -> None:
        """Announces a stage."""
        self.title = f'stage {number + 1}/{count}, length {length}'
        self.bar.update(self.task, description=self.title)
        if not self.live:
            self.console.print(f'{self.title}: compiling', highlight=False)

    def update(self, step: int, row: dict) -> None:
        """Shows the newest row of metrics."""
        speed = f'mfu {row["mfu"]:.1%}' if 'mfu' in row else f'{row["gflops"]:.0f} GFLOP/s'
        numbers = f'loss {row["loss"]:.3f}  {row["tokens_per_second"]:,.0f} tokens/s  {speed}'
        self.bar.update(self.task, completed=step, numbers=numbers)
        if not self.live:
            left = (time.monotonic() - self.start) / max(step - self.first, 1) * (self.steps - step)
            self.console.print(
                f'{self.title}: step {step}/{self.steps}  {numbers}  eta {duration(left)}',
                highlight=False,
                soft_wrap=True,
            )
