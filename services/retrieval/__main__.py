"""python -m services.retrieval"""

from __future__ import annotations

from collections.abc import Sequence

from penstock.bus import Hop
from penstock.embedding import embedder_from_settings
from penstock.service import Runtime, run_service
from qdrant_client import AsyncQdrantClient

from services.retrieval.adapters import PassageStore, collection_name
from services.retrieval.app import Engine, IndexLimits, ground_hop, index_hop
from services.retrieval.qdrant_embedded import EmbeddedStore
from services.retrieval.qdrant_server import QdrantStore
from services.retrieval.settings import Settings


async def build(runtime: Runtime[Settings]) -> Sequence[Hop]:
    """Open the store, load the embedder and return the hops."""
    settings = runtime.settings
    engine = Engine(embedder_from_settings(settings))
    runtime.on_stop(engine.close)
    collection, dimension = collection_name(engine.embedder), engine.embedder.dimension
    store = await open_store(settings, collection, dimension)
    runtime.on_stop(store.close)
    if settings.embedding_base_url is None:
        await engine.embed(["warm"])  # the first request does not pay for loading the model
    limits = IndexLimits(settings.chunk_limits(), settings.retrieval_max_document_characters)
    return [
        ground_hop(
            runtime.config, engine, store, runtime.clock, settings.retrieval_candidates, settings.retrieval_batch
        ),
        index_hop(engine, store, runtime.clock, limits),
    ]


async def open_store(settings: Settings, collection: str, dimension: int) -> PassageStore:
    """Return the store that the settings name, ready for use."""
    if settings.qdrant_url is None:
        return await EmbeddedStore.open(settings.qdrant_path, collection, dimension)
    key = settings.qdrant_api_key
    client = AsyncQdrantClient(
        url=settings.qdrant_url,
        api_key=None if key is None else key.get_secret_value(),
        timeout=settings.qdrant_timeout_s,
        prefer_grpc=settings.qdrant_grpc,
        grpc_port=settings.qdrant_grpc_port,
        check_compatibility=False,  # would call the server, synchronously, before anything is awaited
    )
    store = QdrantStore(client, collection, dimension)
    await store.prepare()
    return store


def main() -> None:
    """Run retrieval."""
    raise SystemExit(run_service("retrieval", Settings, build))


if __name__ == "__main__":
    main()
