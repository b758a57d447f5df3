"""Model sizes by name. A preset gives the sizes; everything else keeps the defaults of ModelConfig.

``smollm2_135m`` and the Llama sizes are those of the published checkpoints (config.json of
HuggingFaceTB/SmolLM2-135M, meta-llama/Llama-3.2-1B, meta-llama/Llama-3.1-8B).
"""

from lcx.config import Options

PRESETS = {
    'tiny': dict(width=192, layers=4, heads=3, kv_heads=3, head_dim=64, hidden=512, tie_embeddings=True),
    'small': dict(width=512, layers=8, heads=8, kv_heads=4, head_dim=64, hidden=1408, tie_embeddings=True),
    'smollm2_135m': dict(
        vocab=49152, width=576, layers=30, heads=9, kv_heads=3, head_dim=64, hidden=1536, tie_embeddings=True,
        position=Options(name='rope', theta=100000.0), trained_length=8192,
    ),
    'llama_1b': dict(
        vocab=128256, width=2048, layers=16, heads=32, kv_heads=8, head_dim=64, hidden=8192, tie_embeddings=True,
        position=Options(name='rope', theta=500000.0), trained_length=8192,
    ),
    'llama_8b': dict(
        vocab=128256, width=4096, layers=32, heads=32, kv_heads=8, head_dim=128, hidden=14336, tie_embeddings=False,
        position=Options(name='rope', theta=500000.0), trained_length=8192,
    ),
}  # fmt: skip
