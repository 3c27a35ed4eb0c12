"""Settings of retrieval, beside those of every service."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from penstock.embedding.settings import NextEmbeddingSettings
from penstock.settings import ServiceSettings
from pydantic import Field, SecretStr, model_validator

from services.retrieval.chunking import ChunkLimits
from services.retrieval.pdf import PdfLimits
from services.retrieval.qdrant_options import CollectionOptions

__all__ = ["Settings"]


class Settings(ServiceSettings, NextEmbeddingSettings):
    """What retrieval reads from the environment."""

    qdrant_url: str | None = Field(None, description="Qdrant server; unset: the embedded store at QDRANT_PATH.")
    qdrant_path: Path = Field(
        Path(".penstock/qdrant"), description="Folder of the embedded store; one process a folder."
    )
    qdrant_api_key: SecretStr | None = Field(None, description="Key of the Qdrant server.")
    qdrant_timeout_s: int = Field(5, description="Longest wait for the Qdrant server.", ge=1)
    qdrant_grpc: bool = Field(True, description="Speak gRPC to the server rather than HTTP.")
    qdrant_grpc_port: int = Field(6334, description="Port of the server's gRPC.", ge=1, le=65535)
    qdrant_namespace: str = Field(
        "penstock",
        description="What the names of the collections begin with, and of the alias on the one that answers; without a "
        "hyphen, which ends it, so that no installation takes another's collections for its own.",
        pattern=r"^[A-Za-z0-9_.]{1,80}$",
    )
    qdrant_quantization: Literal["none", "int8"] = Field(
        "none", description="int8: a server searches by a quarter of the vectors' size, and scores by the full vectors."
    )
    qdrant_on_disk_vectors: bool = Field(False, description="A server maps the full vectors from disk.")
    qdrant_on_disk_payload: bool = Field(True, description="A server reads texts and other fields from disk.")
    qdrant_shards: int | None = Field(
        None, description="Parts of a collection that a cluster's nodes share; unset: one a node.", ge=1
    )
    qdrant_replicas: int = Field(1, description="Copies of each part, on different nodes of a cluster.", ge=1)
    qdrant_write_consistency: int = Field(
        1, description="Copies that must have a write before it counts as done; at most QDRANT_REPLICAS.", ge=1
    )
    retrieval_switch: Literal["auto", "manual"] = Field(
        "auto",
        description="manual: a complete copy under EMBEDDING_NEXT_* answers only after `penstock retrieval switch`.",
    )
    retrieval_copy_share: float = Field(
        0.5, description="Share of the time in which chunks are embedded anew for EMBEDDING_NEXT_*.", gt=0, le=1
    )
    retrieval_chunk_tokens: int = Field(220, description="Most tokens of a chunk.", ge=16, le=2048)
    retrieval_chunk_overlap: int = Field(40, description="Tokens that chunks of one section share.", ge=0)
    retrieval_chunk_minimum: int = Field(60, description="Sections shorter than this are joined.", ge=0)
    retrieval_candidates: int = Field(
        32, description="Chunks that each of the two searches gives to the ranking, at least a route's top_k.", ge=1
    )
    retrieval_max_document_characters: int = Field(
        2_000_000, description="Longest document that is indexed; a longer one must be split by its owner.", ge=1000
    )
    retrieval_pdf_timeout_s: float = Field(60.0, description="Longest reading of one PDF, seconds.", gt=0)
    retrieval_pdf_memory_mb: int = Field(
        1024, description="Most memory (address space, MiB) of a process that reads a PDF.", ge=128
    )
    retrieval_pdf_pages: int = Field(2000, description="Most pages of a PDF; a longer one must be split.", ge=1)
    retrieval_pdf_processes: int = Field(2, description="PDFs that are read at once.", ge=1, le=32)
    retrieval_batch: int = Field(
        16, description="Most requests grounded in one step: whoever comes next waits for all of them.", ge=1, le=1024
    )

    @model_validator(mode="after")
    def _limits_fit(self) -> Settings:
        self.chunk_limits()
        if self.qdrant_write_consistency > self.qdrant_replicas:
            raise ValueError(
                f"QDRANT_WRITE_CONSISTENCY is {self.qdrant_write_consistency}, and there are only QDRANT_REPLICAS="
                f"{self.qdrant_replicas} copies to write: no write would ever count as done"
            )
        return self

    def collection_options(self) -> CollectionOptions:
        """Return how a server creates collections."""
        return CollectionOptions(
            quantization=self.qdrant_quantization,
            on_disk_vectors=self.qdrant_on_disk_vectors,
            on_disk_payload=self.qdrant_on_disk_payload,
            shards=self.qdrant_shards,
            replicas=self.qdrant_replicas,
            write_consistency=self.qdrant_write_consistency,
        )

    def pdf_limits(self) -> PdfLimits:
        """Return what reading one PDF may take."""
        return PdfLimits(
            self.retrieval_pdf_timeout_s,
            self.retrieval_pdf_memory_mb,
            self.retrieval_pdf_pages,
            self.retrieval_max_document_characters,
        )

    def chunk_limits(self) -> ChunkLimits:
        """Return the sizes of chunks."""
        return ChunkLimits(self.retrieval_chunk_tokens, self.retrieval_chunk_overlap, self.retrieval_chunk_minimum)
