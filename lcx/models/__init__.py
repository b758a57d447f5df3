"""Language models as Linen modules: a decoder whose layers are described by kinds and a repeating pattern.

config = ModelConfig(**PRESETS['tiny'], vocab=257)
params = init(config, jax.random.key(0))
logits(config, params, tokens)  # [B, T, V]: for notebooks and tests; training never holds this array
"""

from lcx.models.config import LayerKind, ModelConfig
from lcx.models.decoder import Decoder, boxed, init, logits
from lcx.models.presets import PRESETS
from lcx.models.scoring import Scores, score

__all__ = ['PRESETS', 'Decoder', 'LayerKind', 'ModelConfig', 'Scores', 'boxed', 'init', 'logits', 'score']
