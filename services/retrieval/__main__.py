"""python -m services.retrieval"""

from __future__ import annotations

from collections.abc import Sequence

from penstock.bus import Hop
from penstock.clock import Clock
from penstock.embedding import EmbedderError, embedder_from_settings
from penstock.service import Runtime, run_service
from penstock.settings import SettingsError
from penstock.telemetry import get_logger
from qdrant_client import AsyncQdrantClient

from services.retrieval.adapters import PassageStore, StoreMisfit, StoreUnavailable, collection_name
from services.retrieval.app import Engine, IndexLimits, ground_hop, index_hop
from services.retrieval.qdrant_embedded import EmbeddedStore
from services.retrieval.qdrant_server import QdrantStore
from services.retrieval.settings import Settings

log = get_logger(__name__)


async def build(runtime: Runtime[Settings]) -> Sequence[Hop]:
    """Open the store, load the embedder and return the hops.

    Raises:
        SettingsError: the store or the embedder cannot be used as it is set; a server was waited for.
    """
    settings = runtime.settings
    try:
        engine = Engine(embedder_from_settings(settings))
        runtime.on_stop(engine.close)
        if settings.embedding_base_url is None:
            await engine.embed(["warm"])  # the first request does not pay for loading the model
        collection, dimension = collection_name(engine.embedder), engine.embedder.dimension
        store = await open_store(settings, collection, dimension, runtime.clock)
    except (StoreMisfit, StoreUnavailable, EmbedderError) as error:
        raise SettingsError(str(error)) from error
    runtime.on_stop(store.close)
    limits = IndexLimits(settings.chunk_limits(), settings.retrieval_max_document_characters)
    return [
        ground_hop(
            runtime.config, engine, store, runtime.clock, settings.retrieval_candidates, settings.retrieval_batch
        ),
        index_hop(engine, store, runtime.clock, limits),
    ]


async def open_store(settings: Settings, collection: str, dimension: int, clock: Clock) -> PassageStore:
    """Return the store that the settings name, ready for use; a server is waited for.

    Raises:
        StoreUnavailable: the server did not answer within START_TIMEOUT_S.
        StoreMisfit: the store cannot be used as it is.
    """
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
    deadline = clock.monotonic() + settings.start_timeout_s
    while True:
        try:
            await store.prepare()
            return store
        except StoreUnavailable as error:
            if clock.monotonic() > deadline:
                await store.close()
                raise StoreUnavailable(f"{error}; is QDRANT_URL={settings.qdrant_url} right?") from error
            log.info("waiting for Qdrant", reason=str(error))
            await clock.sleep(1.0)
        except BaseException:
            await store.close()
            raise


def main() -> None:
    """Run retrieval."""
    raise SystemExit(run_service("retrieval", Settings, build))


if __name__ == "__main__":
    main()
