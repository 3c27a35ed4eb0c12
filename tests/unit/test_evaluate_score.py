"""penstock evaluate score: formats told apart, lines kept, figures printed, what cannot be scored named."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from penstock.cli.main import main
from sklearn.metrics import roc_auc_score

from services.evaluation.command.score_baselines import Baseline, Skipped, baselines_for
from services.evaluation.command.score_rows import Reading, Row, read_rows
from services.evaluation.evaluators.protocol import Exchange

ROOT = Path(__file__).parents[2]
INSULTS = [
    "you are a stupid idiot",
    "shut up you fucking moron",
    "i hope you die, you worthless trash",
    "what an asshole",
]
KIND = ["have a lovely day", "the meeting is at nine", "thank you for the quick reply", "the soup needs more salt"]
TOXICITY = [{"text": text, "label": int(text in INSULTS), "source": "made"} for text in (*INSULTS, *KIND)]
CONTEXT = "The bridge was opened in 1937. It is painted orange and carries six lanes of traffic."
GROUNDED = [
    {
        "context": CONTEXT,
        "question": "When was it opened?",
        "response": "The bridge was opened in 1937.",
        "grounded": 1,
    },
    {"context": CONTEXT, "question": "What colour is it?", "response": "It is painted orange.", "grounded": 1},
    {
        "context": CONTEXT,
        "question": "What colour is it?",
        "response": "It is painted green by sailors.",
        "grounded": 0,
    },
    {"context": CONTEXT, "question": "When was it opened?", "response": "The tunnel collapsed in 1951.", "grounded": 0},
]


def written(path: Path, rows: list[Any]) -> Path:
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
    return path


def score(*arguments: object, stdin: str | None = None) -> Result:
    return CliRunner().invoke(main, ["evaluate", "score", *map(str, arguments)], input=stdin)


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def read(path: Path, evaluator: str = "toxicity", subject: Any = "prompt") -> list[Row]:
    rows = list(read_rows(path, Reading(evaluator, subject)))
    assert all(isinstance(row, Row) for row in rows), rows
    return [row for row in rows if isinstance(row, Row)]


def test_toxicity_beside_its_baselines(tmp_path: Path) -> None:
    out = tmp_path / "scores.jsonl"
    train = [{"text": f"{text} {word}", "label": int(text in INSULTS)} for text in (*INSULTS, *KIND) for word in "abc"]
    result = score(
        "--evaluator", "toxicity", "--in", written(tmp_path / "in.jsonl", TOXICITY), "--out", out,
        "--train", written(tmp_path / "train.jsonl", train), "--by", "source", "--json",
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    scored = lines(out)
    assert [{name: row[name] for name in ("text", "label", "source")} for row in scored] == TOXICITY
    assert list(scored[0]) == ["text", "label", "source", "score"]
    assert min(row["score"] for row in scored[:4]) > max(row["score"] for row in scored[4:])
    report = json.loads(result.stdout)
    assert [one["name"] for one in report["scorers"]] == [
        "toxicity", "vader", "alt-profanity-check", "TF-IDF, logistic regression",
    ]  # fmt: skip
    auc = roc_auc_score([row["label"] for row in scored], [row["score"] for row in scored])
    assert report["scorers"][0]["figures"]["auc"] == pytest.approx(auc)
    assert all(one["lines_per_s"] > 0 for one in report["scorers"])
    assert report["skipped"] == {}
    assert [group["name"] for group in report["groups"][0]["groups"]] == ["made"]


def test_groundedness_prints_its_figures(tmp_path: Path) -> None:
    out = tmp_path / "scores.jsonl"
    result = score(
        "--evaluator", "groundedness", "--in", written(tmp_path / "in.jsonl", GROUNDED), "--out", out, "--details"
    )
    assert result.exit_code == 0, result.output
    for word in ("AUC", "average precision", "calibration error", "throughput", "word overlap", "1.0000"):
        assert word in result.stdout
    scored = lines(out)
    assert min(row["score"] for row in scored[:2]) > max(row["score"] for row in scored[2:])
    assert scored[3]["evaluation"]["label"] == "ungrounded"
    assert scored[3]["evaluation"]["sentences"]


def test_a_pipe_in_and_a_pipe_out() -> None:
    stdin = "".join(json.dumps(row) + "\n" for row in (*TOXICITY, {"text": "", "label": 0}))
    result = score("--evaluator", "toxicity", "--in", "-", "--out", "-", "--no-baselines", stdin=stdin)
    assert result.exit_code == 0, result.output
    scored = [json.loads(line) for line in result.stdout.splitlines()]
    assert len(scored) == 9
    assert scored[-1]["score"] == 0  # no text is no toxic text
    assert "AUC" in result.stderr
    assert "1 with nothing to judge" in result.stderr


def test_answers_are_scored_for_toxicity_where_there_is_no_prompt(tmp_path: Path) -> None:
    rows = [{"response": INSULTS[0], "label": 1}, {"prompt": KIND[0], "response": INSULTS[0], "label": 0}]
    path, out = written(tmp_path / "in.jsonl", rows), tmp_path / "out.jsonl"
    assert score("--evaluator", "toxicity", "--in", path, "--out", out, "--no-baselines").exit_code == 0
    assert [row["score"] > 0.5 for row in lines(out)] == [True, False]
    answers = score("--evaluator", "toxicity", "--subject", "answer", "--in", path, "--out", out, "--no-baselines")
    assert answers.exit_code == 0
    assert [row["score"] > 0.5 for row in lines(out)] == [True, True]


def test_a_table_of_templates(tmp_path: Path) -> None:
    path = tmp_path / "templates.csv"
    with path.open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["template", "toxicity", "phrase"])
        for term in ("gay", "muslim"):
            for number in range(25):
                table.writerow(["praise", "nontoxic", f"being {term} is great, friend {number}"])
            table.writerow(["abuse", "toxic", f"i hate all {term} people, kill them"])
    result = score(
        "--evaluator", "toxicity", "--in", path, "--by", "identity", "--by", "template", "--no-baselines", "--json"
    )
    assert result.exit_code == 0, result.output
    identity, template = json.loads(result.stdout)["groups"]
    assert sorted(group["name"] for group in identity["groups"]) == ["gay", "muslim"]
    assert {group["figures"]["rows"] for group in identity["groups"]} == {26}
    assert set(identity["gap"]) == {"lowest", "highest", "low", "high"}
    assert [group["name"] for group in template["groups"]] == ["praise", "abuse"]
    assert template["gap"] is None


def test_lines_without_labels_are_scored_only(tmp_path: Path) -> None:
    path = written(
        tmp_path / "in.jsonl", [{"question": "Open?", "answer": "I don't know."}, {"question": "", "answer": "Yes."}]
    )
    out = tmp_path / "out.jsonl"
    result = score("--evaluator", "refusal", "--in", path, "--out", out)
    assert result.exit_code == 0, result.output
    assert "no line has a label" in result.stdout
    assert [row["score"] > 0.5 for row in lines(out)] == [True, False]


def test_an_evaluator_that_says_nothing_leaves_null(tmp_path: Path) -> None:
    rows = [{"answer": "Paris", "reference": "paris", "label": 1}, {"answer": "Paris", "label": 1}]
    out = tmp_path / "out.jsonl"
    result = score("--evaluator", "exact_match", "--in", written(tmp_path / "in.jsonl", rows), "--out", out)
    assert result.exit_code == 0, result.output
    assert [row["score"] for row in lines(out)] == [1.0, None]
    assert "all labels are the same" in result.stdout


def test_a_file_with_nothing_to_judge_says_what_may_be_missing(tmp_path: Path) -> None:
    rows = [{"answer": "The tower is tall.", "ctx": "The tower is tall.", "label": one} for one in (1, 0)]
    result = score("--evaluator", "groundedness", "--in", written(tmp_path / "in.jsonl", rows), "--no-baselines")
    assert "nothing to judge in any line: does it need passages (field context)" in " ".join(result.stdout.split())


def test_a_bad_line_is_named_and_ends_the_run(tmp_path: Path) -> None:
    path = written(
        tmp_path / "in.jsonl", [TOXICITY[0], "{not json", {"text": "a", "label": "perhaps"}, {"label": 1}, "[1]"]
    )
    out = tmp_path / "out.jsonl"
    result = score("--evaluator", "toxicity", "--in", path, "--out", out, "--no-baselines")
    assert result.exit_code == 1
    assert "in.jsonl:2: is not JSON" in result.stderr
    assert "--skip-invalid" in result.stderr
    assert list(tmp_path.iterdir()) == [path]  # nor half an output
    skipped = score("--evaluator", "toxicity", "--in", path, "--out", out, "--no-baselines", "--skip-invalid")
    assert skipped.exit_code == 0
    assert len(lines(out)) == 1
    for problem in (":2: is not JSON", ":3: \"label\" is 'perhaps'", ":4: has no prompt", ":5: is no object"):
        assert problem in skipped.stderr
    assert "4 left out" in skipped.stdout


@pytest.mark.parametrize(
    ("arguments", "cause"),
    [
        (("--evaluator", "toxicty"), "did you mean toxicity"),
        (("--evaluator", "readability", "--subject", "prompt"), "scores the answer only"),
        (("--evaluator", "toxicity", "--text-field", "words"), '"words", which --text-field names'),
        (("--evaluator", "toxicity", "--label-field", "verdict"), 'no label in the field "verdict"'),
        (("--evaluator", "toxicity", "--module", "no_such_module"), None),
        (("--evaluator", "politeness", "--module", "no_such_module"), "cannot be imported"),
    ],
)
def test_wrong_use_says_what_to_do(tmp_path: Path, arguments: tuple[str, ...], cause: str | None) -> None:
    result = score(*arguments, "--in", written(tmp_path / "in.jsonl", TOXICITY[:1]), "--no-baselines")
    if cause is None:  # what is not asked for is not loaded
        assert result.exit_code == 0
    else:
        assert result.exit_code in (1, 2)
        assert cause in result.stderr


def test_files_are_not_mixed_up(tmp_path: Path) -> None:
    path = written(tmp_path / "in.jsonl", TOXICITY)
    itself = score("--evaluator", "toxicity", "--in", path, "--out", path, "--no-baselines")
    assert "cannot be written at the same time" in itself.stderr
    assert lines(path) == TOXICITY
    assert "knows them" in score("--evaluator", "toxicity", "--in", path, "--train", path).stderr
    assert "there is no line to score" in score("--evaluator", "toxicity", "--in", written(tmp_path / "e", [])).stderr
    assert "cannot be written" in score("--evaluator", "toxicity", "--in", path, "--out", tmp_path).stderr
    assert score("--evaluator", "refusal", "--in", path, "--out", "/dev/null").exit_code == 0
    assert "cannot be read" in score("--evaluator", "toxicity", "--in", tmp_path / "none.jsonl").stderr


@pytest.mark.parametrize(
    ("fields", "evaluator", "subject", "expected"),
    [
        ({"text": "a", "label": 0.7}, "toxicity", "prompt", ("a", "", True)),
        ({"prompt": "q", "response": "a", "toxic": "no"}, "toxicity", "answer", ("q", "a", False)),
        ({"question": "q", "answer": "a", "grounded": "true"}, "groundedness", "answer", ("q", "a", True)),
        ({"text": "a", "refusal": False}, "refusal", "answer", ("", "a", False)),
        (
            {"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]},
            "refusal", "answer", ("q", "a", None),
        ),
    ],
)  # fmt: skip
def test_fields_are_told_by_their_names(
    tmp_path: Path, fields: dict[str, Any], evaluator: str, subject: str, expected: tuple[str, str, bool | None]
) -> None:
    row = read(written(tmp_path / "in.jsonl", [fields]), evaluator, subject)[0]
    assert (row.exchange.question, row.exchange.answer, row.label) == expected


def test_passages_and_references_come_in_several_shapes(tmp_path: Path) -> None:
    rows = [
        {"answer": "a", "context": "one"},
        {"answer": "a", "passages": ["one", {"id": "p", "title": "T", "text": "two"}], "answers": ["x", "y"]},
    ]
    first, second = (row.exchange for row in read(written(tmp_path / "in.jsonl", rows), "refusal", "answer"))
    assert [passage.text for passage in first.passages] == ["one"]
    assert [(passage.passage_id, passage.title, passage.text) for passage in second.passages] == [
        ("1", "", "one"), ("p", "T", "two"),
    ]  # fmt: skip
    assert (first.reference, second.reference) == (None, "x")


def test_baselines_tell_insults_from_kindness() -> None:
    exchanges = [Exchange(question=text) for text in (*INSULTS, *KIND)]
    labels = [text in INSULTS for text in (*INSULTS, *KIND)]
    found = baselines_for("toxicity", "prompt", zip(exchanges * 2, labels * 2, strict=True))
    for one in found:
        assert isinstance(one, Baseline)
        scores = one.scores(exchanges)
        assert all(0 <= value <= 1 for value in scores)
        assert roc_auc_score(labels, scores) > 0.8
    untrained = baselines_for("toxicity", "prompt", None)[-1]
    assert isinstance(untrained, Skipped)
    assert "--train" in untrained.reason
    assert baselines_for("readability", "answer", None) == []


POLITENESS = '''
from services.evaluation.evaluators.own import evaluator


@evaluator("politeness", version="1", threshold=0.5)
def politeness(exchange):
    """1 where the answer is polite."""
    if exchange.answer == "Boom!":
        raise RuntimeError("no\\nidea")
    return float("please" in exchange.answer.lower())
'''


def test_an_evaluator_of_ones_own_scores_a_file(tmp_path: Path) -> None:
    """As a team does it: a module on PYTHONPATH, named by a setting, and the command in a process of its own."""
    (tmp_path / "our_evaluators.py").write_text(POLITENESS)
    rows = [
        {"answer": "Wait, please.", "label": 1},
        {"answer": "Boom!", "label": 0},
        {"answer": "Go away.", "label": 0},
    ]
    path, out = written(tmp_path / "in.jsonl", rows), tmp_path / "out.jsonl"
    environment = {**os.environ, "PYTHONPATH": str(tmp_path), "EVALUATOR_MODULES": "our_evaluators"}
    run = subprocess.run(
        [sys.executable, "-m", "penstock.cli", "evaluate", "score", "--evaluator", "politeness", "--in", path, "--out", out],
        env=environment, cwd=ROOT, capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    assert [row["score"] for row in lines(out)] == [1.0, None, 0.0]
    assert run.returncode == 1
    assert (
        f"politeness failed on 1 lines, which have no score; the first: {path}:2: RuntimeError: no idea" in run.stderr
    )
    assert "politeness 1 of the answer" in run.stdout
