"""Measures beside tables made by hand and scikit-learn, question sets of every layout, and reports that decide."""

from __future__ import annotations

import gzip
import io
import math
import re
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from penstock.embedding import EmbeddingSettings, embedder_from_settings
from rich.console import Console
from sklearn.metrics import ndcg_score

from services.retrieval.chunking import ChunkLimits
from services.retrieval.quality.configurations import Configuration, ConfigurationError, configuration_of
from services.retrieval.quality.measures import measured, ndcg, recall, reciprocal_rank
from services.retrieval.quality.printing import print_report
from services.retrieval.quality.question_sets import Passage, Question, QuestionSetError, read_question_set
from services.retrieval.quality.ranking import Ranked, open_index, rank_by_bm25
from services.retrieval.quality.report import (
    Latency,
    Report,
    SetFigures,
    System,
    attached,
    compared,
    floors,
    means,
    regressions,
    values_of,
)
from services.retrieval.quality.trec_run import run_lines

LOG3 = math.log2(3)


@pytest.mark.parametrize(
    ("ranking", "relevant", "expected"),
    [
        # One relevant document, at the first place, at the third, and nowhere.
        ("abc", {"a": 1}, {"recall@1": 1.0, "recall@2": 1.0, "mrr": 1.0, "ndcg@10": 1.0}),
        ("abc", {"c": 1}, {"recall@1": 0.0, "recall@2": 0.0, "mrr": 1 / 3, "ndcg@10": 0.5}),
        ("abc", {"z": 1}, {"recall@1": 0.0, "recall@2": 0.0, "mrr": 0.0, "ndcg@10": 0.0}),
        ("", {"a": 1}, {"recall@1": 0.0, "recall@2": 0.0, "mrr": 0.0, "ndcg@10": 0.0}),
        # Two, of which one is missed.
        ("abc", {"b": 1, "z": 1}, {"recall@1": 0.0, "recall@2": 0.5, "mrr": 0.5, "ndcg@10": (1 / LOG3) / (1 + 1 / LOG3)}),
        # Grades: the better document second.
        ("ab", {"a": 1, "b": 3}, {"recall@1": 0.5, "recall@2": 1.0, "mrr": 1.0,
                                  "ndcg@10": (1 + 3 / LOG3) / (3 + 1 / LOG3)}),
    ],
)  # fmt: skip
def test_measures_are_those_of_the_table(ranking: str, relevant: dict[str, float], expected: dict[str, float]) -> None:
    assert measured(ranking, relevant, (1, 2)) == pytest.approx(expected)


@given(st.lists(st.integers(0, 3), min_size=2, max_size=30).filter(any), st.integers(1, 12))
def test_ndcg_is_that_of_another_library(grades: list[int], k: int) -> None:
    ranking = [str(place) for place in range(len(grades))]
    relevant = {str(place): float(grade) for place, grade in enumerate(grades) if grade}
    falling = np.arange(len(grades), 0, -1, dtype=float)
    assert ndcg(ranking, relevant, k) == pytest.approx(ndcg_score([grades], [falling], k=k))


@given(st.permutations("abcdefgh"), st.sets(st.sampled_from("abcdefgh"), min_size=1))
def test_measures_are_shares_and_grow_with_depth(ranking: list[str], relevant: set[str]) -> None:
    grades = dict.fromkeys(relevant, 1.0)
    found = [recall(ranking, grades, k) for k in range(1, 9)]
    assert found == sorted(found)
    assert found[-1] == 1.0
    assert 0 < reciprocal_rank(ranking, grades) <= 1
    assert 0 <= ndcg(ranking, grades, 3) <= 1


def write(path: Path, *lines: str) -> Path:
    path.write_text("".join(f"{line}\n" for line in lines), "utf-8")
    return path


def test_beirs_layout_and_trecs_judgements(tmp_path: Path) -> None:
    corpus = write(
        tmp_path / "corpus.jsonl",
        '{"_id": "d1", "title": "Mills", "text": "The weir raises the water.", "metadata": {}}',
        '{"_id": 2, "text": "Wheat is ground."}',
        '{"_id": "d3", "title": "A title alone", "text": ""}',
    )
    queries = write(tmp_path / "queries.jsonl", *(f'{{"_id": "q{n}", "text": "What {n}?"}}' for n in range(4)))
    beir = write(tmp_path / "test.tsv", "query-id\tcorpus-id\tscore", "q0\td1\t2", "q0\t2\t0", "q1\t2\t1", "q2\td1\t0")
    trec = write(tmp_path / "qrels.txt", "q0 0 d1 2", "q0 0 2 0", "q1 0 2 1", "q2 0 d1 0")
    read = read_question_set([corpus], [queries], [beir])
    assert [(each.id, each.title) for each in read.corpus] == [("d1", "Mills"), ("2", ""), ("d3", "A title alone")]
    assert read.corpus[2].text == "A title alone"
    assert [(each.id, each.relevant) for each in read.questions] == [("q0", {"d1": 2.0}), ("q1", {"2": 1.0})]
    assert [each.id for each in read.strays] == ["q2"]
    assert (read.unjudged, read.missing) == (1, 0)
    assert read_question_set([corpus], [queries], [trec]) == read


def test_tables_with_tabs_or_commas_a_mark_and_ids_with_spaces(tmp_path: Path) -> None:
    corpus = tmp_path / "corpus.csv"
    corpus.write_bytes(
        b'\xef\xbb\xbfdocid,title,text,language\r\nd 1,Mills,"Wheat, ground\r\nand sold.",en\r\n2,,The weir.,\r\n'
    )
    tabs = write(tmp_path / "corpus.tsv", "docno\ttitle\ttext", "d 1\tMills\tWheat, ground and sold.", "2\t\tThe weir.")
    queries = write(tmp_path / "queries.csv", "query-id,text", 'q 1,"What is ground, and where?"', "q2 ,What is sold?")
    plain = write(tmp_path / "queries.tsv", "q 1\tWhat is ground, and where?", "q2 \tWhat is sold?")
    commas = write(tmp_path / "qrels.csv", "query-id,corpus-id,score", '"q 1",d 1,1', "q2,2,1")
    marked = tmp_path / "qrels.tsv"
    marked.write_bytes(b"\xef\xbb\xbfquery-id\tcorpus-id\tscore\r\nq 1\td 1\t1\r\nq2\t2\t1\r\n")
    read = read_question_set([corpus], [queries], [commas])
    assert read.corpus == (
        Passage("d 1", "Mills", "Wheat, ground\r\nand sold.", language="en"), Passage("2", "", "The weir."),
    )  # fmt: skip
    assert [(each.id, each.text, each.relevant) for each in read.questions] == [
        ("q 1", "What is ground, and where?", {"d 1": 1.0}), ("q2", "What is sold?", {"2": 1.0}),
    ]  # fmt: skip
    again = read_question_set([tabs], [plain], [marked])
    assert [each.text for each in again.corpus] == ["Wheat, ground and sold.", "The weir."]
    assert (again.questions, again.version) == (read.questions, read.version)


async def test_an_index_that_is_kept_holds_the_corpus_and_nothing_else(tmp_path: Path) -> None:
    first = [
        Passage("mill", "", "The mill grinds wheat."),
        Passage("weir", "", "The weir raises the water of the mill."),
    ]
    second = [Passage("weir", "", "The weir raises the water."), Passage("oven", "", "Bread is baked in the oven.")]
    question, rules = [Question("q", "What does the mill grind?", {})], Configuration().rules()
    embedder = embedder_from_settings(EmbeddingSettings())
    for corpus, expected in ((first, {"mill", "weir"}), (second, {"weir", "oven"}), (first, {"mill", "weir"})):
        async with open_index(tmp_path, corpus, embedder, ChunkLimits(), lambda done: None) as index:
            (found,) = await index.rank(question, rules, 32, lambda done: None)
            assert (set(found.documents), index.indexed.documents, index.indexed.chunks) == (expected, 2, 2)


def test_questions_that_name_their_documents(tmp_path: Path) -> None:
    corpus = write(tmp_path / "corpus.jsonl", '{"id": "d1", "title": "Old_Mill", "text": "The weir."}')
    queries = write(
        tmp_path / "questions.jsonl",
        '{"id": "a", "question": "What raises it?", "relevant": ["d1", "gone"]}',
        '{"id": "b", "question": "Who sang?", "relevant": []}',
    )
    read = read_question_set([corpus], [queries])
    assert read.corpus[0].title == "Old Mill"
    assert (read.questions[0].relevant, read.missing) == ({"d1": 1.0, "gone": 1.0}, 1)
    assert [each.id for each in read.strays] == ["b"]
    other = write(tmp_path / "other.jsonl", '{"id": "a", "question": "What raises it?", "relevant": ["d1"]}')
    assert read_question_set([corpus], [other]).version != read.version


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"id": "a", "question": "x"', "questions.jsonl:1: it is not JSON"),
        ("[1]", "questions.jsonl:1: write an object"),
        ('{"question": "x"}', "it has no id; name it _id or id"),
        ('{"id": "a"}', "it has no question"),
        ('{"id": "a", "question": "x", "relevant": "d1"}', "relevant is a list of document ids"),
        ('{"id": "a", "question": "x"}', "no question has a relevant document; give --qrels"),
        ('{"id": "a", "question": "x", "relevant": {"d1": Infinity}}', "relevant is a list of document ids"),
        ('[{"id": "a",', "write one object a line"),
        ('{"id": "a", "question": "x", "relevant": ["other"]}', "do not belong together, e.g. 'other' beside 'd1'"),
    ],
)
def test_what_cannot_be_read_is_named(tmp_path: Path, line: str, message: str) -> None:
    corpus = write(tmp_path / "corpus.jsonl", '{"id": "d1", "text": "The weir."}')
    with pytest.raises(QuestionSetError, match=message.replace("(", r"\(")):
        read_question_set([corpus], [write(tmp_path / "questions.jsonl", line)])


def test_other_files_that_cannot_be_read(tmp_path: Path) -> None:
    corpus = write(tmp_path / "corpus.jsonl", '{"id": "d1", "text": "The weir."}', '{"id": "d1", "text": "The mill."}')
    queries = write(tmp_path / "q.tsv", "id\ttext", "a\tWhat?")
    with pytest.raises(QuestionSetError, match=r"corpus.jsonl:2: the document 'd1' stands there a second time"):
        read_question_set([corpus], [queries])
    with pytest.raises(QuestionSetError, match="cannot be read: No such file"):
        read_question_set([tmp_path / "none.jsonl"], [queries])
    (tmp_path / "latin.jsonl").write_bytes('{"id": "d1", "text": "Müller"}'.encode("latin-1"))
    with pytest.raises(QuestionSetError, match="is not UTF-8"):
        read_question_set([tmp_path / "latin.jsonl"], [queries])
    (tmp_path / "corpus.jsonl.gz").write_bytes(gzip.compress(b'{"id": "d1", "text": "The weir."}'))
    with pytest.raises(QuestionSetError, match="is compressed; unpack it"):
        read_question_set([tmp_path / "corpus.jsonl.gz"], [queries])
    for name, row, message in (
        ("cells.csv", "id,title,text\nd1,The weir.", "2 cells under 3 columns"),
        ("names.csv", "id,heading,body\nd1,Weirs,The weir.", "it has no text; name it text or"),
        ("long.csv", f"d1,{'x' * 140_000}", "write JSON lines"),
        ("language.jsonl", '{"id": "d1", "text": "x", "language": 5}', "language is a code, such as en"),
    ):
        with pytest.raises(QuestionSetError, match=message):
            read_question_set([write(tmp_path / name, row)], [queries])
    write(corpus, '{"id": "d1", "text": "The weir."}')
    for row, message in (
        ("a d1", "2 columns"),
        ("a\td1\tyes", "'yes' is no number"),
        ("a\td1\tinf", "'inf' is no number"),
        ("a\td1\tnan", "'nan' is no number"),
        ("b\td1\t1", "no question of .*: ids of questions and judgements do not belong together, e.g. 'b' beside 'a'"),
    ):
        with pytest.raises(QuestionSetError, match=message):
            read_question_set([corpus], [queries], [write(tmp_path / "qrels.tsv", row)])


def test_a_configuration_is_a_method_a_file_or_a_route(tmp_path: Path, project: Path) -> None:
    assert configuration_of("dense").rules().dense_share == 1.0
    assert configuration_of("sparse").rules().dense_share == 0.0
    assert configuration_of("hybrid").rules() == Configuration().retrieval
    path = write(tmp_path / "wide.yaml", "candidates: 64", "retrieval: {dense_share: 0.3}", "chunks: {max_tokens: 100}")
    wide = configuration_of(str(path))
    assert (wide.name, wide.candidates, wide.rules().dense_share, wide.chunks.limits().max_tokens) == (
        "wide",
        64,
        0.3,
        100,
    )
    assert wide.by("dense").rules().dense_share == 1.0
    route = configuration_of(str(project / "infra/config/routes/default.yaml"))
    assert (route.name, route.retrieval.top_k) == ("default", 4)
    named = write(tmp_path / "endpoint.yaml", "embedding: {base_url: 'http://127.0.0.1:1/v1', model: m, dimension: 8}")
    assert configuration_of(str(named)).embedding_settings().embedding_dimension == 8
    assert Configuration().embedding_settings() == EmbeddingSettings()


def test_the_settings_of_the_operators_page_can_be_read(tmp_path: Path, project: Path) -> None:
    (block,) = re.findall(r"```yaml\n(.*?)```", (project / "infra/RETRIEVAL.md").read_text("utf-8"), re.DOTALL)
    found = configuration_of(str(write(tmp_path / "wide.yaml", block)))
    assert (found.name, found.rules().dense_share, found.candidates) == ("wide", 0.6, 64)
    assert found.embedding_settings().embedding_choice().by == "endpoint"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("candidates: 0", "candidates: Input should be greater than or equal to 1"),
        ("candidate: 3", "candidate: Extra inputs are not permitted"),
        ("chunks: {max_tokens: 20, overlap_tokens: 30}", "chunk limits do not fit together"),
        ("embedding: {models: x}", "embedding has no models; it has"),
        ("- 1", "write fields such as"),
        ("a: [", "not YAML"),
    ],
)
def test_a_configuration_that_cannot_be_used_is_named(tmp_path: Path, text: str, message: str) -> None:
    path = write(tmp_path / "c.yaml", text)
    with pytest.raises(ConfigurationError, match=message):
        configuration_of(str(path))
    with pytest.raises(ConfigurationError, match="is no file, and none of hybrid, dense, sparse, bm25"):
        configuration_of("densest")


QUESTIONS = [Question(f"q{n}", "?", {f"d{n}": 1.0}) for n in range(40)]
RIGHT = [Ranked((f"d{n}", "x"), (0.8, 0.4)) for n in range(40)]
WRONG = [Ranked(("x", f"d{n}"), (0.8, 0.4)) for n in range(40)]


def test_a_fall_is_told_with_its_interval_and_noise_is_not() -> None:
    good = values_of(QUESTIONS, RIGHT, (1,))
    worse = values_of(QUESTIONS, [*RIGHT[:20], *WRONG[20:]], (1,))
    one_off = values_of(QUESTIONS, [*RIGHT[:39], WRONG[39]], (1,))
    fallen = compared(("before", good), ("now", worse), seed=1)
    mrr = next(row for row in fallen.differences if row.measure == "mrr")
    assert (mrr.baseline, mrr.candidate, mrr.verdict, mrr.questions) == (1.0, 0.75, "worse", 40)
    assert mrr.difference.low is not None
    assert mrr.difference.high is not None
    assert mrr.difference.low < -0.25 < mrr.difference.high < 0
    assert len(regressions(fallen, 0.0)) == 3
    assert "now: mrr fell from 1.0000 to 0.7500" in "\n".join(regressions(fallen, 0.0))
    assert regressions(fallen, 0.9) == []
    assert regressions(compared(("before", good), ("now", one_off), seed=1), 0.0) == []
    assert regressions(compared(("before", worse), ("now", good), seed=1), 0.0) == []


def test_a_few_questions_that_differ_decide_nothing() -> None:
    questions = [Question(f"q{n}", "?", {f"d{n}": 1.0}) for n in range(97)]
    right = [Ranked((f"d{n}", "x"), (0.8, 0.4)) for n in range(97)]
    three_off = [Ranked(("x", f"d{n}"), (0.8, 0.4)) for n in range(3)]
    before = values_of(questions, [*three_off, *right[3:]], (1, 2))
    rows = {
        row.measure: row
        for row in compared(("a", before), ("b", values_of(questions, right, (1, 2))), seed=0).differences
    }
    mrr = rows["mrr"].difference
    assert mrr.low is not None
    assert mrr.low > 0, "the interval alone would call it better"
    assert (rows["mrr"].verdict, rows["recall@2"].verdict) == ("unclear", "same")


def test_a_report_fits_a_terminal_of_80_columns() -> None:
    values = values_of(QUESTIONS, [*RIGHT[:30], *WRONG[30:]], (1, 5, 10))
    system = System(
        name="hybrid", configuration={}, means=means(values, seed=1), latency_ms=Latency(p50=9.204, p99=36.58, mean=10.0),
        attached=attached(QUESTIONS, RIGHT, []), floors=floors(QUESTIONS, RIGHT, [], top_k=2), values=values,
    )  # fmt: skip
    said = SetFigures(documents=120, questions=40, strays=0, unjudged=0, missing=0, version="1")
    report = Report(
        made_at=datetime(2026, 1, 5, tzinfo=UTC),
        question_set=said,
        systems=[system],
        comparisons=[compared(("a", values), ("b", values), seed=1)],
    )
    console = Console(width=80, record=True, file=io.StringIO())
    print_report(report, console)
    text = console.export_text()
    for whole in (*system.means, "0.7500", "0.8750", "36.58", "100.0%", "difference"):
        assert whole in text, text
    mrr = system.means["mrr"]
    assert f"{mrr.low:.3f}-{mrr.high:.3f}" in text
    assert "\N{HORIZONTAL ELLIPSIS}" not in text, text


def test_requirements_and_floors_and_what_is_attached() -> None:
    values = values_of(QUESTIONS, WRONG, (1, 2))
    found = means(values, seed=1)
    assert (found["recall@1"].value, found["recall@2"].value, found["mrr"].value) == (0.0, 1.0, 0.5)
    strays = [Ranked((), ()), Ranked(("x",), (0.3,))]
    by_floor = {one.floor: one for one in floors(QUESTIONS, WRONG, strays, top_k=2)}
    assert (by_floor[0.4].relevant, by_floor[0.4].empty, by_floor[0.4].strays) == (1.0, 0.0, 0.0)
    assert (by_floor[0.45].relevant, by_floor[0.3].strays) == (0.0, 0.5)
    assert floors(QUESTIONS, WRONG, (), top_k=1)[0].relevant == 0.0
    given = attached(QUESTIONS, [*RIGHT[:30], *[Ranked((), ())] * 10], strays)
    assert (given.relevant, given.empty, given.documents, given.strays) == (0.75, 0.25, 1.5, 0.5)


def test_the_run_of_trec_keeps_the_order_whatever_the_scores() -> None:
    odd = Ranked(("a b", "c", "d"), (0.5, 0.5, 0.9))
    lines = [line.split() for line in run_lines([Question("q 1", "?", {"c": 1.0})], [odd], "hybrid")]
    assert [line[:4] for line in lines] == [
        ["q_1", "Q0", "a_b", "1"], ["q_1", "Q0", "c", "2"], ["q_1", "Q0", "d", "3"]
    ]  # fmt: skip
    assert [line[4] for line in lines] == ["0.500000", "0.499999", "0.499998"]


def test_bm25_ranks_by_words_and_leaves_the_rest_out() -> None:
    passages = [Passage("a", "Mill", "The weir raises the water."), Passage("b", "", "Wheat is ground between stones.")]
    ranked, took = rank_by_bm25(passages, [Question("q", "Which stone grinds wheat?", {"b": 1.0})])
    assert ranked[0].documents == ("b",)
    assert len(took) == 1
