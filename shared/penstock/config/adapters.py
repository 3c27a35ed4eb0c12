"""Adapters: what was trained onto a model, registered as a version of it that routes can name."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from penstock.config.entry import Entry, ModelName, Name, Part

__all__ = ["Adapter", "TrainingData"]


class TrainingData(Part):
    """What an adapter was trained on."""

    name: str = Field(min_length=1, max_length=200, description="Name of the dataset.")
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$", description="Digest of its manifest, which names the topic offsets.")
    rows: int = Field(ge=1, description="Conversations in it.")


class Adapter(Entry):
    """A low-rank adapter (LoRA, https://arxiv.org/abs/2106.09685) of a model that an engine of inference runs."""

    KIND: ClassVar[str] = "adapters"

    name: Name = Field(description="Name that targets ask for as their model.")
    base_model: ModelName = Field(description="Model that it was trained onto, as the engine serves it.")
    path: str = Field(min_length=1, description="Folder with its weights (safetensors), as inference sees it.")
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$", description="Digest of the weights: others are not loaded.")
    rank: int = Field(ge=1, le=512, description="Rank of the adapter.")
    trained_on: TrainingData | None = Field(default=None, description="What it was trained on; null where unknown.")
    figures: dict[str, float] = Field(
        default_factory=dict, description="What its evaluation said, by name, e.g. golden.token_f1 and base.token_f1."
    )
    note: str = Field(default="", max_length=2000, description="Who made it, and why.")

    @property
    def key(self) -> str:
        return self.name
