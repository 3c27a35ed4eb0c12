"""The registry of prompts: versions, moves of labels, differences, and the tests that lie beside prompts."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from penstock.audit import story
from penstock.cli.prompts import prompts
from penstock.config.files import load_files
from penstock.config.kinds import Prompt
from penstock.config.prompt_history import PromptHistory, PromptUnknown, histories, named
from penstock.config.prompt_tests import (
    PromptTest,
    PromptTestsInvalid,
    answer_failures,
    read_tests,
    rendered_failures,
)
from penstock.config.prompt_text import breaking_changes, differing_lines
from penstock.config.publish import Change, prompt_warnings
from penstock.contracts.catalogue import project_file
from penstock.contracts.envelope import event_id
from penstock.contracts.records import AdmittedRequest, ConfigEntry, Context, Message

NOON = datetime(2026, 1, 5, 12, tzinfo=UTC)


def prompt(text: str, **variables: dict[str, Any]) -> Prompt:
    return Prompt.model_validate(
        {"name": "qa", "template": [{"role": "system", "content": text}], "variables": variables}
    )


class Topic:
    """What config-prompts holds, record by record."""

    def __init__(self) -> None:
        self.records: list[ConfigEntry] = []
        self._ticks: Iterator[int] = count()

    def put(self, key: str, entry: Prompt | None, author: str = "", reason: str = "") -> None:
        tick = next(self._ticks)
        self.records.append(
            ConfigEntry(
                event_id=event_id(key, "test", tick), request_id="", tenant_id="operations",
                occurred_at=NOON + timedelta(minutes=tick), causation_id="", kind="prompts", name=key,
                version=entry.version if entry else "", content=entry.canonical if entry else "",
                deleted=entry is None, author=author, reason=reason,
            )
        )  # fmt: skip

    def history(self) -> PromptHistory:
        return named(histories(self.records), "qa")


ONE, TWO = prompt("one"), prompt("two")


@pytest.fixture
def topic() -> Topic:
    topic = Topic()
    topic.put(ONE.key, ONE, "ann", "new")
    topic.put("qa@production", ONE, "ann", "go")
    topic.put(TWO.key, TWO, "bob", "shorter")
    topic.put("qa@staging", TWO, "bob")
    topic.put("qa@production", TWO, "bob", "try")
    topic.put("qa@production", TWO, "cron", "applied again")
    return topic


def test_labels_and_versions_are_found_by_name_and_by_hash(topic: Topic) -> None:
    history = topic.history()
    assert history.find("production") == history.find("staging") == TWO
    assert history.find(ONE.version) == history.find(ONE.version[:4]) == ONE
    assert history.labels_of(TWO.version) == ["production", "staging"]
    assert (history.versions[ONE.version].author, history.versions[TWO.version].reason) == ("ann", "shorter")
    for unknown in ("canary", "ffff", ONE.version[:3], ""):
        with pytest.raises(PromptUnknown, match="its labels are production, staging"):
            history.find(unknown)
    with pytest.raises(PromptUnknown, match="did you mean qa"):
        named({"qa": history}, "qaa")


def test_rolling_back_twice_ends_where_it_began(topic: Topic) -> None:
    assert topic.history().before("production") == ONE
    topic.put("qa@production", ONE, "eve", "worse")
    assert topic.history().before("production") == TWO
    moves = topic.history().moves["production"]
    assert [(move.version, move.author) for move in moves] == [
        (ONE.version, "ann"), (TWO.version, "bob"), (ONE.version, "eve"),
    ]  # fmt: skip
    assert [move.closed_at for move in moves] == [moves[1].moved_at, moves[2].moved_at, None]


def test_a_label_without_an_earlier_version_cannot_go_back_and_a_withdrawn_one_can(topic: Topic) -> None:
    with pytest.raises(PromptUnknown, match="one version only"):
        topic.history().before("staging")
    with pytest.raises(PromptUnknown, match="it has had production, staging"):
        topic.history().before("canary")
    topic.put("qa@staging", None)
    assert "staging" not in topic.history().labels
    assert topic.history().before("staging") == TWO


def test_what_was_withdrawn_and_came_back_goes_back_beyond_that(topic: Topic) -> None:
    topic.put("qa@production", None)
    topic.put("qa@production", TWO)
    assert topic.history().before("production") == ONE
    topic.put("qa@staging", None)
    topic.put("qa@staging", TWO)
    with pytest.raises(PromptUnknown, match="one version only"):
        topic.history().before("staging")


def test_what_is_invalid_or_no_prompt_makes_no_history(topic: Topic) -> None:
    before = topic.history()
    broken = topic.records[0]
    topic.put("gone@production", None)
    topic.records.append(
        ConfigEntry(**{name: getattr(broken, name) for name in broken.__struct_fields__} | {"version": "0"})
    )
    found = histories(topic.records)
    assert list(found) == ["qa"]
    assert found["qa"].timeline() == before.timeline()


def test_versions_differ_by_lines_and_by_what_they_refuse() -> None:
    text = {"description": "What is asked."}
    old = prompt("Hello {{a}} {{b}} {{c}}", a=text, b={**text, "required": False}, c=text)
    new = prompt("Hi {{a}} {{b}} {{d}}", a={**text, "max_length": 9}, b=text, d={**text, "required": False})
    lines = differing_lines(old, new, "qa@old", "qa@new")
    assert lines[:2] == ["--- qa@old", "+++ qa@new"]
    assert {"-Hello {{a}} {{b}} {{c}}", "+Hi {{a}} {{b}} {{d}}", "-a: string", "+a: string; 9 characters at most"} <= {
        *lines
    }
    assert list(breaking_changes(old, new)) == [
        "a has max_length 9: requests with other values are refused",
        "b is required now: requests that do not give it are refused",
        "c is no variable any more: requests that give it are refused",
    ]
    assert differing_lines(old, old, "x", "y") == []
    moved = Change("prompts", "qa@production", "changed", old, new)
    assert (
        prompt_warnings([moved])[1]
        == "prompts/qa@production: b is required now: requests that do not give it are refused"
    )
    assert prompt_warnings([Change("prompts", new.key, "new", None, new)]) == []


ECHO = Prompt.model_validate(
    {
        "name": "echo",
        "template": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "{{text}}!"}],
        "variables": {"text": {"description": "d", "max_length": 5}},
    }
)


@pytest.mark.parametrize(
    ("fields", "failure"),
    [
        ({"variables": {"text": "Hey"}, "rendered": [{"role": "user", "equals": "Hey!"}]}, None),
        ({"variables": {"text": 7}, "rendered": [{"contains": ["Be brief", "7!"], "matches": "^Be.*\n7"}]}, None),
        ({"variables": {"text": "too long"}, "refused": "8 characters"}, None),
        ({"variables": {"text": "Hey"}, "rendered": [{"role": "user", "equals": "Hey"}]}, "is 'Hey!', not 'Hey'"),
        ({"variables": {"text": "Hey"}, "rendered": [{"contains": "hey"}]}, "does not contain 'hey'"),
        ({"variables": {"text": "Hey"}, "rendered": [{"not_contains": "brief"}]}, "contains 'brief'"),
        ({"variables": {"text": "Hey"}, "rendered": [{"matches": "^Hey"}]}, "matches ^Hey"),
        ({"variables": {"text": "Hey"}, "rendered": [{"max_characters": 9}]}, "has 14 characters; 9"),
        ({"variables": {"text": "Hey"}, "rendered": [{"role": "assistant"}]}, "there is no assistant message"),
        ({"variables": {"text": "too long"}, "rendered": [{"contains": "x"}]}, "the values are refused: the variable"),
        ({"variables": {"text": "too long"}, "refused": "pattern"}, "refused otherwise"),
        ({"variables": {"text": "Hey"}, "refused": "characters"}, "the values are taken"),
    ],
)
def test_expectations_on_rendered_text(fields: dict[str, Any], failure: str | None) -> None:
    failures = rendered_failures(ECHO, PromptTest.model_validate({"name": "t", **fields}))
    assert len(failures) == (failure is not None)
    assert failure is None or failure in failures[0]


@pytest.mark.parametrize(
    ("result", "failure"),
    [
        (("completed", None, "", "Ask Marit Halvorsen."), None),
        (("completed", None, "", "Ask somebody."), "the answer does not contain 'marit'"),
        (("blocked", "pii", "a card", ""), "ended as blocked (pii: a card), not as completed"),
    ],
)
def test_expectations_on_answers(result: tuple[str, str | None, str, str], failure: str | None) -> None:
    expected = PromptTest.model_validate({"name": "t", "answer": {"contains": "marit"}}).answer
    assert expected is not None
    failures = answer_failures(expected, *result)
    assert len(failures) == (failure is not None)
    assert failure is None or failure in failures[0]
    blocked = PromptTest.model_validate({"name": "t", "answer": {"status": "blocked", "code": "secrets"}}).answer
    assert blocked is not None
    assert answer_failures(blocked, "blocked", "pii", "", "") == ["the code is pii, not secrets"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("tests: []\n", ":1: tests: "),
        ("tests:\n- name: a\n", ":2: tests.0: expects nothing"),
        ("tests:\n- name: a\n  refused: x\n- name: a\n  refused: y\n", ":4: tests.1.name: 'a' is there twice"),
        ("tests:\n- name: a\n  question: q\n  refused: x\n", ":3: tests.0.question: is asked with an answer"),
        (
            "tests:\n- name: a\n  rendered:\n  - matches: '(?=x)'\n",
            "tests.0.rendered.0.matches.0: '(?=x)' is no regular",
        ),
        ("tests:\n- name: a\n  refused: x\n  variables: {a: {b: 1}}\n", "must be a text, a number"),
        ("tests:\n- name: a\n  refuses: x\n", "tests.0.refuses: extra inputs"),
        ("tests: [\n", "not YAML"),
    ],
)
def test_a_file_of_tests_is_refused_with_line_and_field(tmp_path: Path, text: str, said: str) -> None:
    file = tmp_path / "qa.tests.yaml"
    file.write_text(text, "utf-8")
    with pytest.raises(PromptTestsInvalid) as caught:
        read_tests(file)
    assert str(file) in str(caught.value)
    assert said in str(caught.value)


def run(*arguments: object) -> tuple[int, str, str]:
    result = CliRunner().invoke(prompts, [str(each) for each in arguments])
    return result.exit_code, result.stdout, result.stderr


ECHO_YAML = """- name: echo
  labels: [production]
  template: [{role: user, content: "{{text}}"}]
  variables: {text: {description: d}}
- name: echo
  labels: [canary]
  template: [{role: user, content: "Say {{text}}"}]
  variables: {text: {description: d}}
"""


def test_tests_lie_beside_the_prompts_and_are_run_for_the_versions_they_name(tmp_path: Path) -> None:
    folder = tmp_path / "prompts"
    folder.mkdir()
    (folder / "echo.yaml").write_text(ECHO_YAML, "utf-8")
    beside = folder / "echo.tests.yaml"
    beside.write_text(
        "labels: [canary]\ntests:\n- {name: t, variables: {text: x}, rendered: [{equals: Say x}]}\n", "utf-8"
    )
    assert set(load_files(tmp_path).kinds["prompts"]) >= {"echo@production", "echo@canary"}
    code, out, _ = run("test", folder)
    assert (code, "1 passed, 0 failed, 0 unasked" in out, "without tests: echo@" in out) == (0, True, True)

    beside.write_text("tests:\n- {name: t, variables: {text: x}, rendered: [{equals: Say x}]}\n", "utf-8")
    code, out, _ = run("test", beside)
    assert (code, "1 passed, 1 failed, 0 unasked" in out, "is 'x', not 'Say x'" in out) == (1, True, True)

    beside.write_text("prompt: other\ntests:\n- {name: t, refused: x}\n", "utf-8")
    code, _, err = run("test", folder)
    assert (code, "is for none of the prompts in echo.yaml" in err) == (2, True)
    (folder / "alone.tests.yaml").write_text("tests:\n- {name: t, refused: x}\n", "utf-8")
    code, _, err = run("test", folder)
    assert (code, "there are no prompts beside it" in err) == (2, True)
    assert run("test", folder, "--answers")[0] == 2


def test_a_prompt_of_a_file_is_rendered_without_a_cluster(tmp_path: Path) -> None:
    file, values = tmp_path / "echo.yaml", tmp_path / "values.yaml"
    file.write_text(ECHO_YAML, "utf-8")
    values.write_text("text: 7\n", "utf-8")
    assert run("render", "echo@canary", "--file", file, "--variables", values)[:2] == (0, "[user]\nSay 7\n")
    escaped = run("render", "echo@production", "--file", file, "--var", "text=\x1b[2J")
    assert escaped[:2] == (0, "[user]\n\\x1b[2J\n")
    for arguments, code, said in (
        (("echo",), 1, "holds several versions of echo"),
        (("other",), 1, "holds no version of other"),
        (("echo@canary",), 2, "needs the variable text"),
        (("echo@canary", "--var", "text"), 2, "write NAME=VALUE"),
        (("@canary",), 2, "is no NAME"),
    ):
        exit_code, _, err = run("render", *arguments, "--file", file)
        assert (exit_code, said in err) == (code, True)


def test_the_prompts_that_ship_pass_their_tests() -> None:
    code, out, err = run("test")
    assert (code, " 0 failed" in out) == (0, True), out + err


def test_the_examples_of_the_page_are_valid_and_pass_their_tests(tmp_path: Path) -> None:
    shutil.copytree(project_file("infra/config"), tmp_path / "config")
    page = (project_file("infra/config").parent / "PROMPTS.md").read_text("utf-8")
    shown = re.findall(r"```yaml\n# infra/config/(\S+)\n(.*?)```", page, re.S)
    assert [name.partition("/")[0] for name, _ in shown] == ["prompts", "prompts", "experiments"]
    for name, text in shown:
        file = tmp_path / "config" / name
        file.parent.mkdir(exist_ok=True)
        # The page publishes it under staging before the experiment asks for that label.
        file.write_text(
            text + ("labels: [production, staging]\n" if name == "prompts/order-status.yaml" else ""), "utf-8"
        )
    assert load_files(tmp_path / "config").warnings == ()
    code, out, err = run("test", tmp_path / "config" / "prompts" / "order-status.yaml")
    assert (code, "2 passed, 0 failed, 1 unasked" in out) == (0, True), out + err


@pytest.mark.parametrize(
    ("label", "said"), [("staging", f"prompt qa@{TWO.version} (staging);"), (TWO.version, f"prompt qa@{TWO.version};")]
)
def test_the_story_of_a_request_names_the_version_that_it_was_rendered_with(label: str, said: str) -> None:
    admitted = AdmittedRequest(
        event_id="e", request_id="r", tenant_id="support", occurred_at=NOON, causation_id="",
        context=Context(requested_at=NOON, prompt_name="qa", prompt_version=TWO.version, prompt_label=label),
        messages=[Message(role="system", content="two")],
    )  # fmt: skip
    [chapter] = story([("requests-admitted", 0, 0, admitted)])
    assert said in chapter.headline
