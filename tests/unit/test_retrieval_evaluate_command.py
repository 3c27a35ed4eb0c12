"""`penstock retrieval evaluate` over an invented corpus, with the packaged embedder and the service's own hops."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
from click.testing import CliRunner, Result

from services.retrieval.quality.command_evaluate import evaluate
from services.retrieval.quality.report import Report

PASSAGES = {
    "weir": ("The mill", "The weir raises the water level by two metres so that it can be led to the wheel."),
    "sluice": ("The mill", "Error E4012 means that the sluice gate is stuck. Clear the grating and turn the crank."),
    "flour": (
        "The mill",
        "Wheat is ground between two stones of French burr; the finest flour is sieved through silk.",
    ),
    "bees": (
        "The garden",
        "The hives stand behind the orchard. Honey is taken in July, after the limes have flowered.",
    ),
    "pond": ("The garden", "Carp are kept in the lower pond. It is drained each autumn to catch them."),
}
QUESTIONS = (
    ("How high is the water lifted?", ["weir"]),
    ("What does E4012 mean?", ["sluice"]),
    ("What is the flour sieved with?", ["flour"]),
    ("When do they harvest honey?", ["bees"]),
    ("Which fish are there?", ["pond"]),
    ("Who won the chess tournament in Reykjavik?", []),
)


@pytest.fixture
def files(tmp_path: Path) -> list[str]:
    corpus, questions = tmp_path / "corpus.jsonl", tmp_path / "questions.jsonl"
    rows = [{"id": name, "title": title, "text": text} for name, (title, text) in PASSAGES.items()]
    corpus.write_bytes(b"\n".join(map(msgspec.json.encode, rows)))
    asked = [{"id": f"q{n}", "question": text, "relevant": found} for n, (text, found) in enumerate(QUESTIONS)]
    questions.write_bytes(b"\n".join(map(msgspec.json.encode, asked)))
    return ["--corpus", str(corpus), "--queries", str(questions), "--index", str(tmp_path / "index")]


def run(*arguments: str) -> Result:
    return CliRunner().invoke(evaluate, arguments)


def test_ways_to_search_are_measured_compared_and_held_to_what_was_before(files: list[str], tmp_path: Path) -> None:
    said = run(
        *files,
        "--compare",
        "dense",
        "--compare",
        "sparse",
        "--compare",
        "bm25",
        "--run",
        str(tmp_path / "hybrid.run"),
        "--json",
    )
    assert said.exit_code == 0, said.output
    report = msgspec.json.decode(said.stdout, type=Report)
    hybrid, dense, sparse, bm25 = report.systems
    assert [one.name for one in report.systems] == ["hybrid", "dense", "sparse", "bm25"]
    assert (report.question_set.questions, report.question_set.strays) == (5, 1)
    assert hybrid.means["recall@5"].value == 1.0
    assert hybrid.means["mrr"].value == pytest.approx(sum(hybrid.values["mrr"].values()) / 5)
    for by_words in (sparse, bm25):
        assert by_words.values["mrr"]["q4"] == 0.0, "no word of the question stands in the passage"
    assert dense.values["mrr"]["q4"] == 1.0
    assert hybrid.indexed is not None
    assert (hybrid.indexed.chunks, hybrid.indexed.embedded) == (5, 5)
    assert dense.indexed == hybrid.indexed, "one index serves both"
    assert hybrid.attached is not None
    assert hybrid.attached.strays == 0.0
    assert [(one.baseline, one.candidate) for one in report.comparisons] == [
        (name, "hybrid") for name in ("dense", "sparse", "bm25")
    ]
    ranked = [line.split() for line in (tmp_path / "hybrid.run").read_text("utf-8").splitlines()]
    assert {line[2] for line in ranked if line[0] == "q1" and line[3] == "1"} == {"sluice"}

    stored = tmp_path / "report.json"
    stored.write_text(said.stdout, "utf-8")
    again = run(*files, "--baseline", str(stored), "--fail-below", "recall@5=1", "--json")
    assert again.exit_code == 0, again.output
    repeated = msgspec.json.decode(again.stdout, type=Report)
    assert repeated.systems[0].values == hybrid.values
    assert repeated.systems[0].indexed is not None
    assert repeated.systems[0].indexed.embedded == 0, "what stands in the index is not embedded again"
    other = run(*files, "--baseline", str(stored), "--baseline-system", "sparse", "--json")
    (beside,) = msgspec.json.decode(other.stdout, type=Report).comparisons
    assert (beside.baseline, beside.candidate) == ("sparse of report.json", "hybrid")
    unknown = run(*files, "--baseline", str(stored), "--baseline-system", "best")
    assert "has no system 'best'; it has hybrid, dense, sparse, bm25" in unknown.stderr
    short = run(*files, "--fail-below", "mrr=1.1")
    assert short.exit_code == 1
    assert "✗ hybrid: mrr is" in short.stdout

    others = tmp_path / "other.jsonl"
    others.write_text('{"id": "q0", "question": "Which fish?", "relevant": ["pond"]}', "utf-8")
    moved = run(*files[:2], "--queries", str(others), "--baseline", str(stored))
    assert moved.exit_code == 2
    assert "was made with other questions or judgements" in moved.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--fail-below", "map=0.5"], "there is no measure 'map'; there are recall@1"),
        (["--fail-below", "mrr=high"], "write the least mean as a number"),
        (["--compare", "densest"], "densest is no file, and none of hybrid"),
        (["--compare", "hybrid"], "two configurations have one name: hybrid, hybrid"),
        (["--baseline-system", "dense"], "name the report with --baseline"),
        (["--baseline", "/nonexistent.json"], "/nonexistent.json cannot be read"),
    ],
)
def test_what_cannot_run_ends_with_its_own_status(files: list[str], arguments: list[str], message: str) -> None:
    said = run(*files, *arguments)
    assert said.exit_code == 2
    assert message in said.stderr


def test_an_embedder_that_is_away_ends_it(files: list[str], tmp_path: Path) -> None:
    settings = tmp_path / "endpoint.yaml"
    settings.write_text("embedding: {base_url: 'http://127.0.0.1:1/v1', model: m, dimension: 8}", "utf-8")
    said = run(*files, "--config", str(settings))
    assert said.exit_code == 2
    assert "http://127.0.0.1:1/v1/embeddings does not answer" in said.stderr


def test_settings_are_compared_as_a_route_would_have_them(files: list[str], tmp_path: Path) -> None:
    settings = tmp_path / "late.yaml"
    settings.write_text("retrieval: {reranker: late-interaction, top_k: 1, diversity: 0.3}", "utf-8")
    said = run(*files, "--config", str(settings), "--compare", "hybrid", "--json")
    assert said.exit_code == 0, said.output
    late, _ = msgspec.json.decode(said.stdout, type=Report).systems
    assert late.configuration["retrieval"]["reranker"] == "late-interaction"
    assert late.attached is not None
    assert late.attached.documents <= 1.0, "no more than top_k are attached"
    assert late.means["recall@5"].value == 1.0, "what comes behind them is ranked all the same"
    settings.write_text("retrieval: {reranker: psychic}", "utf-8")
    unknown = run(*files, "--config", str(settings))
    assert unknown.exit_code == 2
    assert "there is no reranker 'psychic'; there are late-interaction" in unknown.stderr


def test_a_document_that_cannot_be_indexed_ends_it(files: list[str], tmp_path: Path) -> None:
    corpus = tmp_path / "corpus.jsonl"
    corpus.write_text('{"id": "weir", "text": "x", "content_type": "image/png"}', "utf-8")
    said = run(*files)
    assert said.exit_code == 2
    assert "the document 'weir' was not indexed: content_type 'image/png'" in said.stderr
