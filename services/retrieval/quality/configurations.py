"""What is compared: a way to search, and the settings that it runs under."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path
from typing import Any, Literal

from penstock.config.entry import Part
from penstock.config.kinds import Retrieval, Route
from penstock.config.yaml_lines import YamlError, read_yaml
from penstock.embedding import EmbeddingSettings
from pydantic import Field, ValidationError, model_validator

from services.retrieval.chunking import ChunkLimits

__all__ = ["METHODS", "Chunks", "Configuration", "ConfigurationError", "Method", "configuration_of"]

Method = Literal["hybrid", "dense", "sparse", "bm25"]
METHODS: tuple[Method, ...] = ("hybrid", "dense", "sparse", "bm25")
"""hybrid: as the settings say. dense, sparse: by embedding or by words alone. bm25: the library bm25s, beside which the rest
is seen; it reads whole documents and has no other settings."""
_SHARES = {"dense": 1.0, "sparse": 0.0}


class ConfigurationError(Exception):
    """A configuration cannot be used; the message names the cause and the remedy."""


class Chunks(Part):
    """Sizes of chunks, in tokens of the embedder."""

    max_tokens: int = Field(default=ChunkLimits().max_tokens, ge=16, le=2048)
    overlap_tokens: int = Field(default=ChunkLimits().overlap_tokens, ge=0)
    min_tokens: int = Field(default=ChunkLimits().min_tokens, ge=0)

    @model_validator(mode="after")
    def _fit(self) -> Chunks:
        self.limits()
        return self

    def limits(self) -> ChunkLimits:
        """Return them as the chunker takes them."""
        return ChunkLimits(self.max_tokens, self.overlap_tokens, self.min_tokens)


class Configuration(Part):
    """One way to search.

    Attributes:
        retrieval: as a route says it.
        candidates: chunks that each of the two searches gives to the ranking, ``RETRIEVAL_CANDIDATES`` of the service.
        embedding: fields of the embedder in place of the environment's, e.g. ``model``; names as in EMBEDDING_<NAME>.
    """

    name: str = Field(default="", description="What reports call it; by default its file's name, or its method.")
    method: Method = Field(default="hybrid")
    retrieval: Retrieval = Field(default=Retrieval())
    chunks: Chunks = Field(default=Chunks())
    candidates: int = Field(default=32, ge=1)
    embedding: dict[str, str | int | bool] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _known_embedding(self) -> Configuration:
        known = {field.removeprefix("embedding_") for field in EmbeddingSettings.model_fields}
        if unknown := sorted(self.embedding.keys() - known):
            raise ValueError(f"embedding has no {', '.join(unknown)}; it has {', '.join(sorted(known))}")
        return self

    def by(self, method: Method) -> Configuration:
        """Return the same, searched by ``method``."""
        return self.model_copy(update={"method": method, "name": method})

    def rules(self) -> Retrieval:
        """Return what a route would say to search so."""
        share = _SHARES.get(self.method, self.retrieval.dense_share)
        return self.retrieval.model_copy(update={"dense_share": share, "enabled": True})

    def embedding_settings(self) -> EmbeddingSettings:
        """Return the environment's settings of the embedder, with those of this configuration in their place.

        Raises:
            ConfigurationError: they do not make an embedder.
        """
        try:
            return EmbeddingSettings(**{f"embedding_{name}": value for name, value in self.embedding.items()})  # type: ignore[arg-type]
        except ValidationError as error:
            raise ConfigurationError(_told("the settings of the embedder", error)) from error


def configuration_of(given: str) -> Configuration:
    """Read a configuration: one of :data:`METHODS` under the defaults, or the path of a YAML file.

    A file holds the fields of :class:`Configuration`, or is a route of the configuration.

    Raises:
        ConfigurationError: it is neither, or cannot be read.
    """
    if given in METHODS:
        return Configuration(method=given, name=given)
    path = Path(given)
    try:
        fields = _plain(read_yaml(path.read_text(encoding="utf-8")).data)
    except FileNotFoundError as error:
        raise ConfigurationError(f"{given} is no file, and none of {', '.join(METHODS)}") from error
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"{given} cannot be read: {error}") from error
    except YamlError as error:
        raise ConfigurationError(f"{given}: {error}; {error.remedy}") from error
    if not isinstance(fields, dict):
        raise ConfigurationError(f"{given}: write fields such as `retrieval:`, or give the file of a route")
    try:
        if "targets" in fields:
            route = Route.model_validate(fields)
            return Configuration(name=route.name, retrieval=route.retrieval)
        found = Configuration.model_validate(fields)
    except ValidationError as error:
        raise ConfigurationError(_told(given, error)) from error
    return found if found.name else found.model_copy(update={"name": path.stem})


def _plain(value: Any) -> Any:
    """Return YAML's data with floats for its decimals: nothing here is money."""
    match value:
        case Decimal():
            return float(value)
        case dict():
            return {name: _plain(each) for name, each in value.items()}
        case list():
            return [_plain(each) for each in value]
        case _:
            return value


def _told(what: str, error: ValidationError) -> str:
    first = error.errors(include_url=False, include_input=False)[0]
    place = ".".join(map(str, first["loc"]))
    return f"{what}: {f'{place}: ' if place else ''}{first['msg'].removeprefix('Value error, ')}"
