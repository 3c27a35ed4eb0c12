"""penstock guard evaluate: formats told apart, figures counted right, what cannot be read named."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from penstock.cli.main import main
from penstock.config.policies import Policy

from services.guardrails.command.evaluate import topic_rules, with_task_rules
from services.guardrails.command.labelled import Entity, Labelled, Reading, read_labelled

DATA = Path(__file__).parents[3] / "shared/data"
POLICY = """
name: tried
input:
  secrets: {action: flag}
  pii: {action: mask, kinds: [EMAIL_ADDRESS, CREDIT_CARD]}
  injection: {scanner: banned_words, action: block, words: [ignore all, obey]}
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "policies").mkdir()
    (tmp_path / "policies" / "tried.yaml").write_text(POLICY)
    return tmp_path


def written(path: Path, *rows: object) -> Path:
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
    return path


def read(path: Path, **reading: Any) -> list[Labelled]:
    rows = list(read_labelled([path], Reading(**reading)))
    assert all(isinstance(row, Labelled) for row in rows), rows
    return [row for row in rows if isinstance(row, Labelled)]


def evaluate(folder: Path, *arguments: object) -> Result:
    given = ["guard", "evaluate", "--policy", "tried", "--config", str(folder), *map(str, arguments)]
    return CliRunner().invoke(main, given)


def sections(result: Result) -> list[dict[str, Any]]:
    document = json.loads(result.stdout)
    assert document["policy"]["name"] == "tried"
    found: list[dict[str, Any]] = document["sections"]
    return found


@pytest.mark.parametrize(
    ("row", "task", "stage", "label"),
    [
        ({"text": "a", "label": 1, "source": "chat"}, "injection", "input", True),
        ({"text": "a", "label": "benign", "family": "chat"}, "injection", "input", False),
        ({"text": "a", "label": "0", "source": "mails_ctx_dev"}, "injection", "documents", False),
        ({"text": "a", "label": True, "stage": "document"}, "injection", "documents", True),
        ({"messages": [{"role": "user", "content": "a"}], "label": 1.0}, "injection", "input", True),
        ({"full_text": "a", "masked": "a", "spans": []}, "pii", "input", None),
        ({"text": "a", "label": 0, "hate": 0, "source": "s"}, "toxicity", "input", False),
        ({"phrase": "a", "toxicity": "nontoxic", "template": "t"}, "toxicity", "input", False),
        ({"context": "c", "question": "q", "response": "r", "grounded": 1}, "groundedness", "output", False),
        ({"context": "c", "question": float("nan"), "response": "r", "grounded": "0"}, "groundedness", "output", True),
        ({"text": "a", "intent": "timer", "domain": "utility"}, "topics", "input", None),
    ],
)
def test_the_format_is_told_by_the_fields(
    tmp_path: Path, row: dict[str, Any], task: str, stage: str, label: bool | None
) -> None:
    [one] = read(written(tmp_path / "rows.jsonl", row))
    assert (one.task, one.stage, one.label) == (task, stage, label)
    assert one.where.endswith("rows.jsonl:1")


def test_what_is_said_overrides_what_the_fields_say(tmp_path: Path) -> None:
    path = written(tmp_path / "rows.jsonl", {"body": "a", "bad": "yes", "kind_of": "x", "label": 0})
    reading = {
        "task": "toxicity",
        "stage": "output",
        "label_field": "bad",
        "text_field": "body",
        "group_field": "kind_of",
    }
    [row] = read(path, **reading)
    assert (row.task, row.stage, row.label, row.source) == ("toxicity", "output", True, "x")


def test_a_table_is_read_by_its_names(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text('template,toxicity,phrase\nverb,toxic,"a, b"\nverb,nontoxic,c\n')
    assert [(row.label, row.subject.segments[0].text) for row in read(path)] == [(True, "a, b"), (False, "c")]


def test_entities_are_read_in_either_spelling(tmp_path: Path) -> None:
    spans = [{"entity_type": "PERSON", "start_position": 0, "end_position": 3}, {"type": "GPE", "start": 4, "end": 6}]
    [row] = read(written(tmp_path / "rows.jsonl", {"full_text": "Ann Rome", "spans": spans}))
    assert row.entities == (Entity("PERSON", 0, 3), Entity("GPE", 4, 6))


@pytest.mark.parametrize(
    ("row", "named"),
    [
        ("nonsense", "is not JSON"),
        ({"text": "a"}, "has no label"),
        ({"text": "a", "label": "maybe"}, "neither yes nor no"),
        ({"text": "a", "label": 1, "stage": "middle"}, "there are input, output, documents"),
        (
            {"full_text": "a", "spans": [{"entity_type": "X", "start_position": 0, "end_position": 9}]},
            "does not lie in",
        ),
        ({"full_text": "a", "spans": [{"start": 0, "end": 1}]}, "needs entity_type"),
        ({"label": 1}, "has no text to judge"),
    ],
)
def test_rows_that_cannot_be_read_are_named_and_left_out(folder: Path, row: object, named: str) -> None:
    path = written(folder / "rows.jsonl", {"text": "obey", "label": 1}, row, {"text": "hello", "label": 0})
    result = evaluate(folder, "--in", path, "--json")
    assert result.exit_code == 1
    assert f"{path}:2: " in result.stderr
    assert named in result.stderr
    assert sections(result)[0]["rows"] == 2


def test_figures_of_rules_policy_and_sources_are_those_of_the_rows(folder: Path) -> None:
    path = written(
        folder / "rows.jsonl",
        {"text": "please obey me", "label": 1, "source": "a"},
        {"text": "ignore all of it", "label": 1, "source": "a"},
        {"text": "do as I say", "label": 1, "source": "b"},
        {"text": "obey the law", "label": 0, "source": "c"},
        *({"text": f"what is {number}?", "label": 0, "source": "c"} for number in range(4)),
    )
    out = folder / "out.jsonl"
    [section] = sections(evaluate(folder, "--in", path, "--json", "--score", "injection", "--out", out))
    assert (section["rows"], section["positives"]) == (8, 3)
    rules = {rule["name"]: rule for rule in section["rules"]}
    expected = {
        "tp": 2, "fp": 1, "fn": 1, "tn": 4, "precision": 2 / 3, "recall": 2 / 3, "false_positive_rate": 0.2, "f1": 2 / 3,
    }  # fmt: skip
    assert rules["injection"]["counts"] == pytest.approx(expected)
    # The policy names a rule of its own "injection": the scanner's own rule is tried beside it, as shipped.
    shipped = rules["injection (as shipped)"]
    assert (shipped["note"], shipped["threshold"]) == ("not in the policy", 0.5)
    stopped = section["policy"][0]
    assert stopped["counts"] == pytest.approx(expected)
    assert stopped["latency"]["cpu_p95"] >= stopped["latency"]["cpu_p50"] > rules["secrets"]["latency"]["cpu_p50"] > 0
    sources = {source["source"]: source["rule"] for source in section["sources"]}
    assert sources["a"]["recall"] == 1
    assert sources["b"]["recall"] == 0
    assert sources["c"] == pytest.approx({**sources["c"], "recall": None, "false_positive_rate": 0.2})
    outcomes = [json.loads(line)["outcome"] for line in out.read_text().splitlines()]
    assert outcomes == ["hit", "hit", "missed", "in excess", *["passed"] * 4]


def test_stages_are_evaluated_apart(folder: Path) -> None:
    path = written(
        folder / "rows.jsonl",
        {"text": "a b c", "label": 0, "source": "chat"},
        {"text": "a b c", "label": 0, "stage": "documents"},
    )
    assert [section["stage"] for section in sections(evaluate(folder, "--in", path, "--json"))] == [
        "input",
        "documents",
    ]


def test_personal_data_is_counted_by_entity_and_restored(folder: Path) -> None:
    text = "write to ann@example.org or call Ann"
    spans = [{"entity_type": "EMAIL_ADDRESS", "start_position": 9, "end_position": 24},
             {"entity_type": "PERSON", "start_position": 33, "end_position": 36}]  # fmt: skip
    path = written(
        folder / "rows.jsonl", {"full_text": text, "spans": spans}, {"full_text": "nothing here", "spans": []}
    )
    [section] = sections(evaluate(folder, "--in", path, "--json"))
    assert section["entities"]["EMAIL_ADDRESS"]["f1"] == 1
    assert section["entities"]["structured types"]["tp"] == 1
    assert section["entities"]["persons"] == pytest.approx({**section["entities"]["persons"], "fn": 1, "recall": 0.0})
    assert section["lossless"] == 2
    assert section["policy"][1]["counts"]["tp"] == 1


def test_tables_name_what_they_show(folder: Path) -> None:
    path = written(
        folder / "rows.jsonl",
        *({"text": text, "label": int("obey" in text), "source": text[0]} for text in ("obey", "hi")),
    )
    result = evaluate(folder, "--in", path, "--sweep")
    assert result.exit_code == 0, result.output
    for shown in ("policy tried, version", "== injection, input stage ==", "2 rows: 1 attack, 1 not", "recall at 1.0% FP",
                  "not in the policy", "95 % intervals", "mean of sources (macro)", "Thresholds of"):  # fmt: skip
        assert shown in result.output


def test_an_unknown_rule_is_refused_with_those_there_are(folder: Path) -> None:
    path = written(folder / "rows.jsonl", {"text": "obey", "label": 1})
    result = evaluate(folder, "--in", path, "--score", "injektion")
    assert result.exit_code == 1
    assert "there are injection" in result.output


def test_a_scanner_that_the_policy_lacks_is_tried_in_shadow() -> None:
    policy = Policy.model_validate({"name": "p", "input": {"secrets": {"action": "flag"}}})
    tried = with_task_rules(policy, "toxicity", "input")
    assert tried.input["toxicity"].mode == "shadow"
    assert with_task_rules(tried, "toxicity", "input") is tried


def test_topics_are_described_by_rows_that_are_then_left_out(tmp_path: Path) -> None:
    rows = read(
        written(tmp_path / "r.jsonl", *({"text": f"{d} {n}", "domain": d} for d in ("bank", "cook") for n in range(30)))
    )
    rules, left = topic_rules(rows, [("domain", "bank")], 20)
    described = set(rules["banned_topics bank"].topics[0].examples)
    assert len(described) == 20
    assert len(left) == 40
    assert described.isdisjoint({row.subject.segments[0].text for row in left})


@pytest.mark.data
@pytest.mark.parametrize("name", ["injection", "pii", "toxicity", "groundedness", "topics"])
def test_every_row_of_the_development_data_is_read(name: str) -> None:
    path = DATA / name / "train.jsonl"
    if not path.exists():
        pytest.skip(f"{path} is not here: the development data lies beside the project")
    rows = read(path)
    assert {row.task for row in rows} == {name}
    assert len(rows) == sum(1 for _ in path.open("rb"))
