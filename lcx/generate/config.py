"""What generating is, beside the cache: chunks of the prompt, and how tokens are chosen."""

from __future__ import annotations

import dataclasses

from lcx import config
from lcx.generate.sampling import Sampling


@dataclasses.dataclass(frozen=True)
class GenerateConfig:
    """The fields of ``config.generate``, which configs/base.py explains."""

    chunk: int = 512
    temperature: float = 0.0
    top_k: int | None = None
    top_p: float | None = None
    min_p: float | None = None
    repetition_penalty: float | None = None

    def __post_init__(self) -> None:
        config.positive(self, 'chunk')
        _ = self.sampling  # checks the others

    @property
    def sampling(self) -> Sampling:
        """How tokens are chosen."""
        return Sampling(self.temperature, self.top_k, self.top_p, self.min_p, self.repetition_penalty)
