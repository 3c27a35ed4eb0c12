"""From settings to what serves: Qdrant, the embedders, and which of two collections answers."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

from penstock.clock import Clock
from penstock.embedding import EmbedderError
from penstock.embedding.protocol import Embedder
from penstock.embedding.settings import EmbeddingChoice, embedder_of
from penstock.telemetry import get_logger
from qdrant_client import AsyncQdrantClient

from services.retrieval.adapters import CollectionStore, StoreMisfit, StoreUnavailable, collection_name
from services.retrieval.answer_store import AnswerStore
from services.retrieval.app import embedded_points
from services.retrieval.embedded_answers import EmbeddedAnswers
from services.retrieval.qdrant_embedded import EmbeddedFolder
from services.retrieval.qdrant_server import QdrantServer
from services.retrieval.reembedding import Pace, Reembedding, answering_collection
from services.retrieval.server_answers import ServerAnswers
from services.retrieval.serving import Engine, Index, Serving
from services.retrieval.settings import Settings

__all__ = ["Opened", "answers_of", "connected", "open_collections", "open_serving"]

log = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Opened:
    """What answers and what is to follow.

    Args:
        reembedding: to be run beside the hops; None where no model is to follow, or it answers already.
    """

    serving: Serving
    reembedding: Reembedding | None

    async def close(self) -> None:
        """End the embedders' threads."""
        for index in self.serving.written:
            await index.engine.close()


def connected(settings: Settings) -> QdrantServer:
    """Return the server at QDRANT_URL; nothing is sent to it yet.

    Raises:
        StoreMisfit: QDRANT_URL is not set.
    """
    if settings.qdrant_url is None:
        raise StoreMisfit(
            f"the embedded store in {settings.qdrant_path} has one process, which is the service: this needs a server "
            "(QDRANT_URL)"
        )
    key = settings.qdrant_api_key
    client = AsyncQdrantClient(
        url=settings.qdrant_url,
        api_key=None if key is None else key.get_secret_value(),
        timeout=settings.qdrant_timeout_s,
        prefer_grpc=settings.qdrant_grpc,
        grpc_port=settings.qdrant_grpc_port,
        check_compatibility=False,  # would call the server, synchronously, before anything is awaited
    )
    return QdrantServer(client, settings.collection_options(), settings.qdrant_namespace)


async def open_collections(settings: Settings, clock: Clock) -> EmbeddedFolder | QdrantServer:
    """Return the Qdrant that the settings name, ready for use; a server is waited for.

    Raises:
        StoreUnavailable: the server did not answer within START_TIMEOUT_S.
        StoreMisfit: it cannot be used as it is.
    """
    if settings.qdrant_url is None:
        return await EmbeddedFolder.open(Path(settings.qdrant_path), settings.qdrant_namespace)
    server = connected(settings)
    deadline = clock.monotonic() + settings.start_timeout_s
    while True:
        try:
            await server.answering()
            return server
        except StoreUnavailable as error:
            if clock.monotonic() > deadline:
                await server.close()
                raise StoreUnavailable(f"{error}; is QDRANT_URL={settings.qdrant_url} right?") from error
            log.info("waiting for Qdrant", reason=str(error))
            await clock.sleep(1.0)
        except BaseException:
            await server.close()
            raise


async def open_serving(settings: Settings, collections: EmbeddedFolder | QdrantServer, clock: Clock) -> Opened:
    """Return what answers requests, by the alias, and what is to follow it, by EMBEDDING_NEXT_*.

    Raises:
        EmbedderError: an embedder cannot be used as it is set.
        StoreUnavailable: the store is away.
        StoreMisfit: requests are answered from a collection of neither model.
    """
    choice, next_choice = settings.embedding_choice(), settings.embedding_next_choice()
    embedder = embedder_of(choice)
    own = collection_name(embedder, settings.qdrant_namespace)
    if next_choice is None:
        await answering_collection(collections, own, None)
        return Opened(Serving((await _index(collections, embedder, own, choice))[0]), None)
    following = embedder_of(next_choice)
    name = collection_name(following, settings.qdrant_namespace)
    if name == own:
        raise EmbedderError("EMBEDDING_NEXT_* names the embedder that is in use: set a new model there, or unset it")
    if await answering_collection(collections, own, name) == name:
        log.info(
            "the next embedder answers already",
            collection=name,
            remedy="move EMBEDDING_NEXT_* to EMBEDDING_*; what it replaced can be dropped: penstock retrieval drop",
        )
        return Opened(Serving((await _index(collections, following, name, next_choice))[0]), None)
    current, source = await _index(collections, embedder, own, choice)
    target = await collections.store(name, following.dimension)
    # Not warmed: where it is away, requests are answered all the same.
    serving = Serving(current, Index(Engine(following), target, name))
    reembedding = Reembedding(
        serving,
        collections,
        source,
        target,
        embedded_points,
        clock,
        Pace(settings.retrieval_copy_share),
        settings.retrieval_switch,
    )
    return Opened(serving, reembedding)


async def _index(
    collections: EmbeddedFolder | QdrantServer, embedder: Embedder, name: str, choice: EmbeddingChoice
) -> tuple[Index, CollectionStore]:
    """Return the index that answers, and its store; the alias is put on its collection."""
    engine = Engine(embedder)
    try:
        if choice.by != "endpoint":
            await engine.embed(["warm"])  # the first request does not pay for loading the model
        store = await collections.store(name, embedder.dimension)
        if await collections.answering() != name:
            await collections.let_answer(name)
    except BaseException:
        await engine.close()
        raise
    return Index(engine, store, name), store


def answers_of(
    collections: EmbeddedFolder | QdrantServer, namespace: str
) -> Callable[[Embedder], Awaitable[AnswerStore]]:
    """Return what opens the semantic cache's answers of an embedder, in the Qdrant of its chunks.

    Args:
        namespace: what the names of the installation's collections of chunks begin with; these begin with another word.
    """
    family = f"answers-{namespace}-"

    async def opened(embedder: Embedder) -> AnswerStore:
        name = f"answers-{collection_name(embedder, namespace)}"
        if isinstance(collections, EmbeddedFolder):
            return await EmbeddedAnswers.open(collections, name, embedder.dimension, family)
        return await ServerAnswers.open(collections.client, name, embedder.dimension, family)

    return opened
