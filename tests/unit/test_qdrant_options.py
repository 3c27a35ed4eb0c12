"""How collections are created, and what is told of them: options, indexes, the wire to a server, the embedded limit."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc  # type: ignore[import-untyped]
import numpy as np
import pytest
import structlog
from google.protobuf.message import Message  # type: ignore[import-untyped]
from penstock.clock import SystemClock
from qdrant_client import AsyncQdrantClient, models
from qdrant_client import grpc as wire

from services.retrieval.adapters import Point
from services.retrieval.core import ChunkRecord
from services.retrieval.exact_index import ExactIndex
from services.retrieval.filters import Conditions, qdrant_filter
from services.retrieval.qdrant_embedded import EmbeddedFolder, EmbeddedStore
from services.retrieval.qdrant_options import CollectionOptions
from services.retrieval.qdrant_server import QdrantServer, QdrantStore
from services.retrieval.sparse import SparseVector

NAME = "penstock-model-16"
OPTIONS = CollectionOptions("int8", on_disk_vectors=True, shards=3, replicas=2, write_consistency=2)


def test_what_a_collection_has_otherwise_than_the_options_say_is_named() -> None:
    options = CollectionOptions(
        quantization="int8", on_disk_vectors=True, on_disk_payload=True, shards=3, replicas=2, write_consistency=2
    )
    described = models.CollectionConfig(
        params=models.CollectionParams(vectors=options.vectors(16), **options.creation()),
        hnsw_config=models.HnswConfig(m=16, ef_construct=100, full_scan_threshold=10_000),
        optimizer_config=models.OptimizersConfig(
            deleted_threshold=0.2, vacuum_min_vector_number=1000, default_segment_number=0, flush_interval_sec=5
        ),
    )
    assert options.differences(described) == []
    assert CollectionOptions(on_disk_payload=False).differences(described) == [
        "QDRANT_QUANTIZATION is none, the collection has int8",
        "QDRANT_ON_DISK_VECTORS is False, the collection has True",
        "QDRANT_ON_DISK_PAYLOAD is False, the collection has True",
        "QDRANT_REPLICAS is 1, the collection has 2",
        "QDRANT_WRITE_CONSISTENCY is 1, the collection has 2",
    ]
    binary = models.BinaryQuantization(binary=models.BinaryQuantizationConfig())
    assert options.differences(described.model_copy(update={"quantization_config": binary})) == []
    plain = described.model_copy(
        update={
            "quantization_config": binary,
            "params": models.CollectionParams(vectors=CollectionOptions().vectors(16)),
        }
    )
    assert CollectionOptions().differences(plain) == [
        "QDRANT_QUANTIZATION is none, the collection has BinaryQuantization"
    ]


async def test_the_dense_vectors_of_a_collection_are_quantized_where_that_is_asked_for() -> None:
    client = AsyncQdrantClient(":memory:")
    await QdrantStore(client, "chunks", 16, CollectionOptions("int8", on_disk_vectors=True)).prepare()
    vectors = (await client.get_collection("chunks")).config.params.vectors
    assert isinstance(vectors, dict)
    dense = vectors["dense"]
    assert dense.on_disk
    assert isinstance(dense.quantization_config, models.ScalarQuantization)
    assert dense.quantization_config.scalar.type == models.ScalarType.INT8
    await client.close()


def test_scores_of_quantized_vectors_are_of_full_precision() -> None:
    params = CollectionOptions("int8").search_params()
    assert params is not None
    assert params.quantization == models.QuantizationSearchParams(rescore=True, oversampling=2.0)
    assert CollectionOptions().search_params() is None


async def test_every_field_that_a_query_may_ask_for_is_indexed_by_a_server() -> None:
    class Recording(AsyncQdrantClient):
        indexed: dict[str, Any]

        async def create_payload_index(self, collection_name: str, field_name: str, *args: Any, **kwargs: Any) -> Any:
            self.indexed[field_name] = args[0] if args else kwargs["field_schema"]
            return await super().create_payload_index(collection_name, field_name, *args, **kwargs)

    client = Recording(":memory:")
    client.indexed = {}
    await QdrantStore(client, "chunks", 16).prepare()
    asked = qdrant_filter(
        Conditions("support", "default", frozenset({("a", "b")}), frozenset({"en"}), SystemClock().now())
    )
    keys = {
        condition.key
        for part in (asked.must, asked.must_not)
        for condition in (part if isinstance(part, list) else [])
        if isinstance(condition, models.FieldCondition)
    }
    assert keys == {"team", "collection", "labels", "language", "valid_from", "valid_to"}
    assert keys | {"document_id"} == set(client.indexed)
    assert client.indexed["team"].is_tenant
    await client.close()


async def test_an_embedded_store_near_its_limit_is_told_once(tmp_path: Path) -> None:
    folder = await EmbeddedFolder.open(tmp_path / "qdrant")
    await folder.store("test-near-2", 2)
    index, words = ExactIndex(2), SparseVector((), ())
    chunk, vector = a_chunk(0), np.array([1, 0], np.float32)
    for n in range(17_999):
        index.put(a_chunk(n + 10), vector, words)
    with structlog.testing.capture_logs() as logs:
        store = EmbeddedStore(folder, "test-near-2", index, {})
        await store.write([Point(chunk, vector, words)], (), ())
        assert logs == []
        for n in range(2):
            await store.write([Point(a_chunk(1 + n), vector, words)], (), ())
    assert [(line["chunks"], line["advised"]) for line in logs] == [(18_001, 20_000)]
    assert "QDRANT_URL" in logs[0]["remedy"]
    await folder.close()


def a_chunk(number: int) -> ChunkRecord:
    return ChunkRecord(
        id=f"00000000-0000-0000-0000-{number:012}", team="support", collection="default", document_id="guide",
        ordinal=number, start=0, end=1, tokens=1, title="", source="", heading=(), text="weir",
    )  # fmt: skip


class Wire(grpc.GenericRpcHandler):  # type: ignore[misc]
    """A server of Qdrant's gRPC that keeps what it is sent. A collection that is to be made is made by another replica."""

    def __init__(self) -> None:
        self.sent: list[tuple[str, bytes]] = []
        params = wire.CollectionParams(
            shard_number=1,
            vectors_config=wire.VectorsConfig(
                params_map=wire.VectorParamsMap(map={"dense": wire.VectorParams(size=16, distance=wire.Distance.Dot)})
            ),
        )
        info = wire.CollectionInfo(
            status=wire.CollectionStatus.Green, segments_count=1, optimizer_status=wire.OptimizerStatus(ok=True),
            config=wire.CollectionConfig(
                params=params,
                hnsw_config=wire.HnswConfigDiff(m=16, ef_construct=100, full_scan_threshold=10_000),
                optimizer_config=wire.OptimizersConfigDiff(
                    deleted_threshold=0.2, vacuum_min_vector_number=1000, default_segment_number=0, flush_interval_sec=5
                ),
                wal_config=wire.WalConfigDiff(wal_capacity_mb=32, wal_segments_ahead=0),
            ),
        )  # fmt: skip
        alias = wire.AliasDescription(alias_name="penstock-chunks", collection_name="penstock-before-4")
        done = wire.UpdateResult(operation_id=1, status=wire.UpdateStatus.Completed)
        self._answers: dict[str, Message] = {
            "Get": wire.GetCollectionInfoResponse(result=info),
            "CreateFieldIndex": wire.PointsOperationResponse(result=done),
            "ListAliases": wire.ListAliasesResponse(aliases=[alias]),
            "UpdateAliases": wire.CollectionOperationResponse(result=True),
        }

    def of(self, name: str) -> list[bytes]:
        return [message for sent, message in self.sent if sent == name]

    def service(self, handler_call_details: Any) -> Any:
        name = handler_call_details.method.rpartition("/")[2]

        async def answer(message: bytes, context: Any) -> bytes:
            self.sent.append((name, message))
            if name == "Create":
                await context.abort(grpc.StatusCode.ALREADY_EXISTS, "Wrong input: the collection already exists!")
            if name == "CollectionExists":
                exists = wire.CollectionExists(exists=bool(self.of("Create")))
                return bytes(wire.CollectionExistsResponse(result=exists).SerializeToString())
            return bytes(self._answers[name].SerializeToString())

        return grpc.unary_unary_rpc_method_handler(answer)


@pytest.fixture
async def server() -> AsyncIterator[tuple[Wire, QdrantServer]]:
    seen, listening = Wire(), grpc.aio.server()
    listening.add_generic_rpc_handlers((seen,))
    port = listening.add_insecure_port("127.0.0.1:0")
    await listening.start()
    client = AsyncQdrantClient(
        url="http://127.0.0.1", grpc_port=port, prefer_grpc=True, check_compatibility=False, timeout=10
    )
    made = QdrantServer(client, OPTIONS)
    yield seen, made
    await made.close()
    await listening.stop(0)


async def test_over_grpc_a_collection_is_created_as_the_options_say_whoever_is_first(
    server: tuple[Wire, QdrantServer],
) -> None:
    seen, collections = server
    with structlog.testing.capture_logs() as logs:
        await collections.store(NAME, 16)
    (message,) = seen.of("Create")
    created = wire.CreateCollection.FromString(message)
    assert (created.shard_number, created.replication_factor, created.write_consistency_factor) == (3, 2, 2)
    dense = created.vectors_config.params_map.map["dense"]
    assert (dense.size, dense.on_disk, dense.quantization_config.scalar.type) == (16, True, wire.QuantizationType.Int8)
    assert len(seen.of("CreateFieldIndex")) == 7
    # What the other replica made has none of that, and every start says so.
    (line,) = logs
    assert "QDRANT_QUANTIZATION is int8, the collection has none" in line["differences"]
    assert "QDRANT_SHARDS is 3, the collection has 1" in line["differences"]


async def test_over_grpc_the_alias_changes_in_one_request(server: tuple[Wire, QdrantServer]) -> None:
    seen, collections = server
    assert await collections.answering() == "penstock-before-4"
    await collections.let_answer(NAME)
    (message,) = seen.of("UpdateAliases")
    removed, made = wire.ChangeAliases.FromString(message).actions
    assert removed.delete_alias.alias_name == "penstock-chunks"
    assert (made.create_alias.alias_name, made.create_alias.collection_name) == ("penstock-chunks", NAME)
