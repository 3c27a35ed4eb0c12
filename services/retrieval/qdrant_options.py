"""How a Qdrant server keeps a collection: memory, disk, copies. Pure.

All of it holds from the creation of a collection on. One that was created under other options goes on as it is; what
differs is told at every start.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, cast

from qdrant_client import models

from services.retrieval.adapters import DENSE, vectors_config

__all__ = ["CollectionOptions"]

# Of the values of a vector, the share that is spread over int8's 256 steps; what lies outside is cut off. Qdrant's
# documentation recommends it: a few outliers would otherwise make every step coarse.
_QUANTILE = 0.99
# Candidates that are found by int8 for each that is asked for, and then scored by the float32 vectors: Qdrant's
# documentation gives 2.0 as what makes up for the rounding at little cost.
_OVERSAMPLING = 2.0


@dataclass(frozen=True, slots=True)
class CollectionOptions:
    """How collections are created.

    Args:
        quantization: ``int8`` keeps a quarter of the vectors' size in memory, searches by that, and scores what it found
            by the full vectors again.
        on_disk_vectors: the full vectors are mapped from disk rather than held in memory.
        on_disk_payload: texts and other fields are read from disk rather than held in memory.
        shards: parts of the collection that nodes share; None: Qdrant's default, one for each node.
        replicas: copies of each part, on different nodes.
        write_consistency: copies that must have a write before it counts as done.
    """

    quantization: Literal["none", "int8"] = "none"
    on_disk_vectors: bool = False
    on_disk_payload: bool = True
    shards: int | None = None
    replicas: int = 1
    write_consistency: int = 1

    def vectors(self, dimension: int) -> dict[str, models.VectorParams]:
        """Return the dense part of a collection."""
        dense = vectors_config(dimension)[DENSE]
        return {DENSE: dense.model_copy(update={"on_disk": self.on_disk_vectors, "quantization_config": self._int8()})}

    def creation(self) -> dict[str, Any]:
        """Return the other arguments of ``create_collection``."""
        return {
            "shard_number": self.shards,
            "replication_factor": self.replicas,
            "write_consistency_factor": self.write_consistency,
            "on_disk_payload": self.on_disk_payload,
        }

    def search_params(self) -> models.SearchParams | None:
        """Return how to search the dense vectors: with scores of full precision."""
        if self.quantization == "none":
            return None
        rescoring = models.QuantizationSearchParams(rescore=True, oversampling=_OVERSAMPLING)
        return models.SearchParams(quantization=rescoring)

    def differences(self, found: models.CollectionConfig) -> list[str]:
        """Return what of a collection is not as the settings say, each as ``SETTING is X, the collection has Y``."""
        params = found.params
        dense = cast("dict[str, models.VectorParams]", params.vectors)[DENSE]
        # A quantization can be of the vector or, as what holds for all vectors, of the collection.
        quantization = dense.quantization_config or found.quantization_config
        quantized = "none" if quantization is None else _kind(quantization)
        compared: list[tuple[str, object, object]] = [
            ("QDRANT_QUANTIZATION", self.quantization, quantized),
            ("QDRANT_ON_DISK_VECTORS", self.on_disk_vectors, bool(dense.on_disk)),
            ("QDRANT_ON_DISK_PAYLOAD", self.on_disk_payload, params.on_disk_payload),
            ("QDRANT_SHARDS", self.shards, params.shard_number),
            ("QDRANT_REPLICAS", self.replicas, params.replication_factor),
            ("QDRANT_WRITE_CONSISTENCY", self.write_consistency, params.write_consistency_factor),
        ]
        return [
            f"{name} is {wanted}, the collection has {there}"
            for name, wanted, there in compared
            if wanted is not None and there is not None and wanted != there
        ]

    def _int8(self) -> models.ScalarQuantization | None:
        if self.quantization == "none":
            return None
        return models.ScalarQuantization(
            scalar=models.ScalarQuantizationConfig(type=models.ScalarType.INT8, quantile=_QUANTILE, always_ram=True)
        )


def _kind(quantization: object) -> str:
    if isinstance(quantization, models.ScalarQuantization):
        return quantization.scalar.type.value
    return type(quantization).__name__
