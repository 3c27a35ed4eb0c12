"""python -m services.retrieval"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from functools import partial

from penstock.bus import Hop
from penstock.embedding import EmbedderError
from penstock.service import Runtime, run_service
from penstock.settings import SettingsError

from services.retrieval.adapters import StoreMisfit, StoreUnavailable
from services.retrieval.answering_again import SemanticCache, keep_hop
from services.retrieval.app import IndexLimits, ground_hop, index_hop
from services.retrieval.embedding_requests import embedding_hop
from services.retrieval.extracting import extract_hop
from services.retrieval.opening import answers_of, open_collections, open_serving
from services.retrieval.pdf import read_pdf
from services.retrieval.reembedding import Reembedding
from services.retrieval.reranking import rerankers
from services.retrieval.settings import Settings


async def build(runtime: Runtime[Settings]) -> Sequence[Hop]:
    """Open the store, load the embedder and return the hops.

    Raises:
        SettingsError: the store or the embedder cannot be used as it is set; a server was waited for.
    """
    settings = runtime.settings
    try:
        collections = await open_collections(settings, runtime.clock)
        runtime.on_stop(collections.close)
        opened = await open_serving(settings, collections, runtime.clock)
    except (StoreMisfit, StoreUnavailable, EmbedderError) as error:
        raise SettingsError(str(error)) from error
    runtime.on_stop(opened.close)
    serving = opened.serving
    if opened.reembedding is not None:
        runtime.background(_reembedded(opened.reembedding, runtime.stopping))
    limits = IndexLimits(settings.chunk_limits(), settings.retrieval_max_document_characters)
    cache = SemanticCache(runtime.config, serving, answers_of(collections, settings.qdrant_namespace), runtime.clock)
    candidates, batch = settings.retrieval_candidates, settings.retrieval_batch
    return [
        ground_hop(runtime.config, serving, runtime.clock, candidates, batch, cache, rerankers()),
        index_hop(serving, runtime.clock, limits, cache),
        keep_hop(cache),
        embedding_hop(serving, runtime.clock),
        extract_hop(partial(read_pdf, limits=settings.pdf_limits()), runtime.clock, settings.retrieval_pdf_processes),
    ]


async def _reembedded(reembedding: Reembedding, stopping: asyncio.Event) -> None:
    """Let the next model follow, and wait for the end: a background job that ends before is taken for a failure."""
    await reembedding.run(stopping)
    await stopping.wait()


def main() -> None:
    """Run retrieval."""
    raise SystemExit(run_service("retrieval", Settings, build))


if __name__ == "__main__":
    main()
