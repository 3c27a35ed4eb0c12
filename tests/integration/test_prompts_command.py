"""``penstock prompts`` on real Kafka: versions are published, labels moved and taken back, and all of it is on record."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from penstock.cli.config import config
from penstock.cli.prompts import prompts

FIRST = """name: {name}
template:
- {{role: system, content: "You are brief."}}
- {{role: user, content: "{{{{question}}}}"}}
variables:
  question: {{description: What is asked.}}
"""
SECOND = """name: {name}
template:
- {{role: system, content: "You answer in {{{{words}}}} words."}}
- {{role: user, content: "{{{{question}}}}"}}
variables:
  question: {{description: What is asked.}}
  words: {{description: How many., type: integer, maximum: 50}}
"""
TESTS = """tests:
- name: words are few
  variables: {{question: "Why?", words: {words}}}
  rendered: [{{role: system, contains: "7 words"}}]
"""


class Command:
    """``penstock prompts`` in this process."""

    def __init__(self, deployed: Mapping[str, str]) -> None:
        self._environment = dict(deployed)

    def __call__(self, *arguments: object, answer: str | None = None) -> Result:
        return CliRunner().invoke(prompts, [str(each) for each in arguments], input=answer, env=self._environment)

    def json(self, *arguments: object) -> Any:
        result = self(*arguments, "--json")
        assert result.exit_code == 0, result.stderr
        return json.loads(result.stdout)


@pytest.fixture(scope="module")
def command(deployed: Mapping[str, str]) -> Iterator[Command]:
    yield Command(deployed)
    # Withdraws the labels of the tests: others compare what is published with the files.
    assert CliRunner().invoke(config, ["apply"], env=dict(deployed)).exit_code == 0


def test_a_prompt_is_published_promoted_compared_rolled_back_and_rendered(command: Command, tmp_path: Path) -> None:
    name = f"prompt-{uuid.uuid4().hex[:8]}"
    first, second = tmp_path / "first.yaml", tmp_path / "second.yaml"
    first.write_text(FIRST.format(name=name))
    second.write_text(SECOND.format(name=name))

    # A version that no label points at is nobody's yet.
    [made] = command.json("publish", first, "--yes", "--author", "ann", "--reason", "new")
    old = made["version"]
    assert (made["new"], made["published"], made["labels"]) == (True, True, [])
    assert f"the prompt {name} has no label or version 'production'" in command("show", name).stderr
    assert command("promote", f"{name}@{old[:6]}", "--yes", "--author", "ann", "--reason", "first").exit_code == 0

    # Tests that lie beside the file keep a version from being published.
    beside = tmp_path / "second.tests.yaml"
    beside.write_text(TESTS.format(words=8))
    failing = command("publish", second, "--label", "staging", "--yes")
    assert (failing.exit_code, "does not contain '7 words'" in failing.stderr) == (2, True)
    beside.write_text(TESTS.format(words=7))
    [made] = command.json("publish", second, "--label", "staging", "--yes", "--author", "bob", "--reason", "shorter")
    new = made["version"]
    assert made["labels"] == [{"label": "staging", "before": None, "moved": True}]

    compared = command.json("diff", name, "staging")
    assert (compared["before"], compared["after"]) == (old, new)
    assert "-You are brief." in compared["diff"]
    assert compared["breaking"] == ["words is required now: requests that do not give it are refused"]

    dry = command("promote", f"{name}@staging", "--dry-run")
    assert (dry.exit_code, "nothing published" in dry.stdout) == (0, True)
    agreed = command("promote", f"{name}@staging", "--author", "bob", "--reason", "try it", answer="y\n")
    assert agreed.exit_code == 0, agreed.stderr
    assert "+You answer in {{words}} words." in agreed.stdout
    assert "words is required now" in agreed.stderr
    assert "the next `penstock config apply` takes this back" in agreed.stderr

    rendered = command.json("render", name, "--var", "question={{words}}?", "--var", "words=7")
    assert [message["content"] for message in rendered["messages"]] == ["You answer in 7 words.", "{{words}}?"]

    [back] = command.json("rollback", name, "--yes", "--author", "eve", "--reason", "worse")
    assert (back["version"], back["labels"]) == (old, [{"label": "production", "before": new, "moved": True}])
    [again] = command.json("rollback", name, "--to", new[:6], "--yes")
    assert again["version"] == new

    told = command.json("history", name)
    assert [version["version"] for version in told["versions"]] == [old, new]
    assert told["labels"] == {"production": new, "staging": new}
    moves = told["history"]["production"]
    assert [(move["version"], move["author"], move["reason"]) for move in moves[:3]] == [
        (old, "ann", "first"), (new, "bob", "try it"), (old, "eve", "worse"),
    ]  # fmt: skip
    assert [move["closed_at"] for move in moves] == [*(move["moved_at"] for move in moves[1:]), None]
    table = command("history", name, "--label", "production").stdout
    assert table.index("worse") < table.index("try it") < table.index("first")


def test_a_label_that_others_refer_to_is_not_moved_to_what_breaks_them(command: Command, tmp_path: Path) -> None:
    assert "judge-helpfulness" in command("list").stdout
    blind = tmp_path / "judge.yaml"
    blind.write_text("name: judge-helpfulness\ntemplate: [{role: user, content: Grade something.}]\n")
    [made] = command.json("publish", blind, "--yes")
    refused = command("promote", f"judge-helpfulness@{made['version']}", "--yes")
    assert refused.exit_code == 2
    assert "rubrics/helpfulness: prompt: 'judge-helpfulness' has no variable answer" in refused.stderr
    assert command.json("show", "judge-helpfulness")["version"] != made["version"]
