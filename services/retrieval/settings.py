"""Settings of retrieval, beside those of every service."""

from __future__ import annotations

from pathlib import Path

from penstock.embedding import EmbeddingSettings
from penstock.settings import ServiceSettings
from pydantic import Field, SecretStr, model_validator

from services.retrieval.chunking import ChunkLimits

__all__ = ["Settings"]


class Settings(ServiceSettings, EmbeddingSettings):
    """What retrieval reads from the environment."""

    qdrant_url: str | None = Field(None, description="Qdrant server; unset: the embedded store at QDRANT_PATH.")
    qdrant_path: Path = Field(
        Path(".penstock/qdrant"), description="Folder of the embedded store; one process a folder."
    )
    qdrant_api_key: SecretStr | None = Field(None, description="Key of the Qdrant server.")
    qdrant_timeout_s: int = Field(5, description="Longest wait for the Qdrant server.", ge=1)
    qdrant_grpc: bool = Field(True, description="Speak gRPC to the server rather than HTTP.")
    qdrant_grpc_port: int = Field(6334, description="Port of the server's gRPC.", ge=1, le=65535)
    retrieval_chunk_tokens: int = Field(220, description="Most tokens of a chunk.", ge=16, le=2048)
    retrieval_chunk_overlap: int = Field(40, description="Tokens that chunks of one section share.", ge=0)
    retrieval_chunk_minimum: int = Field(60, description="Sections shorter than this are joined.", ge=0)
    retrieval_candidates: int = Field(
        32, description="Chunks that each of the two searches gives to the ranking, at least a route's top_k.", ge=1
    )
    retrieval_max_document_characters: int = Field(
        2_000_000, description="Longest document that is indexed; a longer one must be split by its owner.", ge=1000
    )
    retrieval_batch: int = Field(64, description="Most requests grounded in one step.", ge=1, le=1024)

    @model_validator(mode="after")
    def _limits_fit(self) -> Settings:
        self.chunk_limits()
        return self

    def chunk_limits(self) -> ChunkLimits:
        """Return the sizes of chunks."""
        return ChunkLimits(self.retrieval_chunk_tokens, self.retrieval_chunk_overlap, self.retrieval_chunk_minimum)
