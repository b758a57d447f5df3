"""A model and settings that evaluators are tested with."""

from lcx.eval import EvalConfig
from lcx.models import LayerKind, ModelConfig

CONFIG = EvalConfig(
    run=(),
    split='validation',
    every=None,
    lengths=(8, 16),
    windows=2,
    depths=(0.5,),
    samples=1,
    last=4,
    tokens=32,
)
MODEL = ModelConfig(
    vocab=257,
    width=16,
    layers=2,
    heads=2,
    kv_heads=1,
    head_dim=8,
    hidden=16,
    kinds={'full': LayerKind(attention={'name': 'dense'})},
)
