"""What the commands read: the Qdrant server of the settings, or a folder that no service has open."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from penstock.embedding import Embedder
from penstock.embedding.settings import embedder_of

from services.retrieval.adapters import Collections, CollectionStore, StoreMisfit, collection_name
from services.retrieval.opening import connected
from services.retrieval.qdrant_embedded import EmbeddedFolder
from services.retrieval.qdrant_server import QdrantServer
from services.retrieval.settings import Settings

__all__ = ["answering_model", "existing_store", "open_existing"]


@asynccontextmanager
async def open_existing(settings: Settings) -> AsyncIterator[EmbeddedFolder | QdrantServer]:
    """Open the collections of the settings; nothing is made where there are none.

    Raises:
        StoreMisfit: the folder does not exist, or a service has it open.
    """
    if settings.qdrant_url is not None:
        collections: EmbeddedFolder | QdrantServer = connected(settings)
    else:
        collections = await EmbeddedFolder.open(_folder(settings), settings.qdrant_namespace)
    try:
        yield collections
    finally:
        await collections.close()


def _folder(settings: Settings) -> Path:
    if not settings.qdrant_path.is_dir():
        raise StoreMisfit(
            f"{settings.qdrant_path} does not exist: nothing was indexed there; set QDRANT_PATH or QDRANT_URL"
        )
    return settings.qdrant_path


async def answering_model(settings: Settings, collections: Collections) -> tuple[Embedder, str]:
    """Return the embedder of the collection that answers, and the collection's name.

    Raises:
        StoreMisfit: requests are answered from a collection of no model that is set, or there is none.
        EmbedderError: a model cannot be used as it is set.
    """
    answering, sizes = await collections.answering(), await collections.sizes()
    choices = [settings.embedding_choice(), settings.embedding_next_choice()]
    known = {}
    for choice in choices:
        if choice is not None:
            embedder = embedder_of(choice)
            known[collection_name(embedder, settings.qdrant_namespace)] = embedder
    name = answering if answering is not None else next(iter(known))
    if name not in sizes:
        raise StoreMisfit(f"there is no collection {name}: nothing was indexed yet")
    if name not in known:
        raise StoreMisfit(
            f"requests are answered from the collection {name}, which is of another model: set EMBEDDING_* as the "
            "service has them"
        )
    return known[name], name


async def existing_store(collections: Collections, name: str, dimension: int) -> CollectionStore:
    """Return the store on a collection.

    Raises:
        StoreMisfit: there is none of that name.
    """
    sizes = await collections.sizes()
    if name not in sizes:
        raise StoreMisfit(f"there is no collection {name}; there are {', '.join(sorted(sizes)) or 'none'}")
    return await collections.store(name, dimension)
