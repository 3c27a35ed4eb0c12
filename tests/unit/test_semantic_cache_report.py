"""Figures by threshold, from the metrics as processes expose them; and the commands on them."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from penstock.embedding.minilm import MiniLmEmbedder
from penstock.telemetry import metrics
from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest

from services.retrieval.adapters import collection_name
from services.retrieval.answer_store import AnswerStore, Lookup
from services.retrieval.cache_report import figures_of, wilson_upper
from services.retrieval.command.cache import cache
from services.retrieval.opening import answers_of
from services.retrieval.qdrant_embedded import EmbeddedFolder
from services.retrieval.semantic_cache import Asked, Given, released_digest


def exposed(pairs: list[tuple[float, str]], lookups: int = 9, hits: int = 4, false_hits: int = 1) -> str:
    """Return what a process exposes that compared ``pairs``, under the names of the catalogue."""
    registry = CollectorRegistry()
    for name, count in (("lookups", lookups), ("hits", hits), ("false_hits", false_hits)):
        counter = Counter(f"penstock_semantic_cache_{name}", name, ["route", "mode"], registry=registry)
        counter.labels("faq", "shadow").inc(count)
    similarity = Histogram(
        "penstock_semantic_cache_similarity",
        "cosine",
        ["route", "verdict"],
        buckets=(0.8, 0.9, 0.95, 1.0),
        registry=registry,
    )
    for cosine, verdict in pairs:
        similarity.labels("faq", verdict).observe(cosine)
    return generate_latest(registry).decode()


PAIRS = [(0.85, "different"), (0.85, "same"), (0.92, "different"), (0.93, "same"), (0.97, "same"), (1.0000001, "same")]


def test_the_figures_of_replicas_add_up_by_threshold() -> None:
    (found,) = figures_of([exposed(PAIRS), exposed([(0.99, "same")])])
    assert (found.route, found.lookups, found.hits, found.false_hits) == ("faq", {"shadow": 18}, {"shadow": 8}, 2)
    assert [(each.similarity, each.compared, each.different) for each in found.thresholds] == [
        (0.8, 7, 2), (0.9, 5, 1), (0.95, 3, 0),
    ]  # fmt: skip
    assert figures_of(["", "# HELP x y\n# TYPE x counter\nx_total 1\n"]) == []


def test_the_interval_is_wilsons() -> None:
    # statsmodels' proportion_confint(part, whole, method="wilson")
    assert wilson_upper(1, 8) == pytest.approx(0.470886, abs=1e-5)
    assert wilson_upper(0, 50) == pytest.approx(0.071348, abs=1e-5)
    assert wilson_upper(5, 5) == 1.0
    assert wilson_upper(0, 0) is None


@pytest.fixture
def process() -> Iterator[str]:
    class Metrics(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(exposed(PAIRS).encode())

        def log_message(self, format: str, *args: object) -> None:
            """Keep the test's output clean."""

    server = HTTPServer(("127.0.0.1", 0), Metrics)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/metrics"
    server.shutdown()
    thread.join()
    server.server_close()


def test_the_report_reads_a_process(process: str) -> None:
    told = CliRunner().invoke(cache, ["report", "--metrics", process])
    assert told.exit_code == 0, told.output
    assert "9 looked up, 4 hits, 1 false in shadow" in told.output
    assert "25.0%" in told.output
    one = json.loads(CliRunner().invoke(cache, ["report", "--metrics", process, "--json"]).output)
    assert one["thresholds"][1] == {
        "similarity": 0.9,
        "compared": 4,
        "different": 1,
        "at_most": pytest.approx(0.69936, abs=1e-4),
    }
    other = CliRunner().invoke(cache, ["report", "--metrics", process, "--route", "another"])
    assert "semantic: shadow" in other.output


def test_the_names_are_the_catalogues() -> None:
    constants = [name for name in metrics.__all__ if name.startswith("SEMANTIC_CACHE_")]
    served = {getattr(metrics, name)._name for name in constants}
    read = {name for name in served if name in exposed(PAIRS)}
    assert served - read == {"penstock_semantic_cache_differences"}


def test_a_persons_answers_are_erased_from_a_folder(tmp_path: Path) -> None:
    async def answers(folder: EmbeddedFolder) -> AnswerStore:
        embedder = MiniLmEmbedder()
        await folder.store(collection_name(embedder), embedder.dimension)
        return await answers_of(folder, "penstock")(embedder)

    async def prepare() -> None:
        folder = await EmbeddedFolder.open(tmp_path)
        store = await answers(folder)
        for request_id, user_id in (("r1", "ada"), ("r2", "eva")):
            asked = Asked("support", request_id, "s", "How?", "faq", user_id, (), (), 2e9)
            await store.put([Lookup(asked, np.eye(384, dtype=np.float32)[0])])
            entry = await store.get("support", request_id)
            assert entry is not None
            await store.answer(entry, Given("e", "So.", (), "m", "openai", "m"))
            await store.release(entry, released_digest("So."), 2e9)
        await folder.close()

    async def left() -> list[bool]:
        folder = await EmbeddedFolder.open(tmp_path)
        store = await answers(folder)
        found = [await store.get("support", name) is not None for name in ("r1", "r2")]
        await folder.close()
        return found

    asyncio.run(prepare())
    told = CliRunner().invoke(
        cache, ["erase", "--team", "support", "--user", "ada"], env={"QDRANT_PATH": str(tmp_path)}
    )
    assert told.exit_code == 0, told.output
    assert asyncio.run(left()) == [False, True]


def test_what_cannot_be_read_or_erased_is_said() -> None:
    nowhere = CliRunner().invoke(cache, ["report", "--metrics", "http://127.0.0.1:1/metrics"])
    assert (nowhere.exit_code, "cannot be read" in nowhere.output) == (1, True)
    unnamed = CliRunner().invoke(cache, ["erase", "--team", "support"])
    assert (unnamed.exit_code, "--user, --request and --document" in unnamed.output) == (2, True)
