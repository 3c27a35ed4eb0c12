"""penstock guard scan: every line judged, its own fields kept, bad lines named, nothing lost."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from hypothesis import given
from hypothesis import strategies as st
from penstock.cli.main import main

from services.guardrails.command.lines import BadLine, Line, plain
from services.guardrails.command.subject import subject_of
from services.guardrails.masking import restore

POLICY = """
name: tried
input:
  secrets: {action: block}
  pii: {action: mask}
  words: {scanner: banned_words, action: flag, words: [falcon], mode: shadow}
output:
  system_prompt_leak: {action: block}
  pii: {action: mask}
documents:
  injection: {action: block}
"""
KEY = "AKIA" + "QYLPMN5HHHFPZAM2"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "policies").mkdir()
    (tmp_path / "policies" / "tried.yaml").write_text(POLICY)
    return tmp_path


def scan(folder: Path, content: bytes, *options: str, policy: str = "tried") -> tuple[Result, list[dict[str, Any]]]:
    source, target = folder / "in.jsonl", folder / "out.jsonl"
    source.write_bytes(content)
    arguments = [
        "guard",
        "scan",
        "--policy",
        policy,
        "--config",
        str(folder),
        "--in",
        str(source),
        "--out",
        str(target),
    ]
    result = CliRunner().invoke(main, [*arguments, *options])
    written = target.read_bytes().splitlines() if target.exists() else []
    return result, [json.loads(line) for line in written]


def line(**fields: object) -> bytes:
    return json.dumps(fields, ensure_ascii=False).encode() + b"\n"


def test_a_line_keeps_its_fields_as_they_are_written_and_gets_a_verdict(folder: Path) -> None:
    content = b'{"id": 12345678901234567890, "weight": 1.500, "text": "mail ann@example.org", "tags": {"a": [null]}}\n'
    result, [verdict] = scan(folder, content)
    assert result.exit_code == 0, result.output
    assert b'"id":12345678901234567890,"weight":1.500' in (folder / "out.jsonl").read_bytes()
    assert verdict["tags"] == {"a": [None]}
    assert verdict["action"] == "mask"
    assert verdict["masked"] == "mail <EMAIL_ADDRESS_1>"
    assert verdict["scores"] == {"secrets": 0.0, "pii": 1.0, "words": 0.0}
    [finding] = verdict["findings"]
    assert finding == {
        "kind": "EMAIL_ADDRESS", "start": 5, "end": 20, "score": 1.0, "scanner": "pii", "action": "mask",
    }  # fmt: skip
    assert verdict["latency_ms"] > 0
    assert "errors" not in verdict
    assert "pseudonyms" not in verdict


def test_offsets_count_code_points(folder: Path) -> None:
    text = "🙂 é mail 👩‍👩‍👧 ann@example.org"
    _, [verdict] = scan(folder, line(text=text))
    [finding] = verdict["findings"]
    assert text[finding["start"] : finding["end"]] == "ann@example.org"


def test_own_fields_of_the_same_name_are_kept_apart(folder: Path) -> None:
    _, [verdict] = scan(folder, line(full_text="hello", masked="{{GREETING}}", action=7))
    assert verdict["masked"] == "hello"
    assert verdict["action"] == "allow"
    assert verdict["own"] == {"masked": "{{GREETING}}", "action": 7}


def test_conversations_are_judged_message_by_message(folder: Path) -> None:
    messages = [
        {"role": "system", "content": "You help."},
        {"role": "user", "content": [{"type": "text", "text": "I am ann@example.org"}, {"type": "image_url"}]},
        {"role": "assistant", "content": None},
        {"role": "user", "content": f"my key is {KEY}"},
    ]
    _, [verdict] = scan(folder, line(messages=messages))
    assert verdict["action"] == "block"
    found = {(finding["kind"], finding["message"], finding["start"]) for finding in verdict["findings"]}
    assert found == {("EMAIL_ADDRESS", 1, 5), ("AWS_ACCESS_KEY", 3, 10)}
    assert [message["content"] for message in verdict["masked"]] == [
        "You help.", "I am <EMAIL_ADDRESS_1>", "", "my key is <AWS_ACCESS_KEY_1>",
    ]  # fmt: skip


def test_an_answer_is_judged_against_what_it_was_made_from(folder: Path) -> None:
    secret = "You are the assistant of the northern branch and never mention the merger with the southern branch."
    leak, fine = line(answer=secret, system_prompt=secret), line(answer=secret, system_prompt="Be kind.")
    _, verdicts = scan(folder, leak + fine, "--stage", "output")
    assert [verdict["action"] for verdict in verdicts] == ["block", "allow"]


def test_rules_in_shadow_are_noted_and_nothing_follows(folder: Path) -> None:
    _, [verdict] = scan(folder, line(text="the falcon flies"))
    assert (verdict["action"], verdict["would_action"], verdict["scores"]["words"]) == ("allow", "flag", 1.0)
    [finding] = verdict["findings"]
    assert finding["rule"] == "words"
    assert finding["enforced"] is False


@pytest.mark.parametrize(
    ("bad", "named"),
    [
        (b"not json", "is not JSON"),
        (b'["x"]', "is a list where an object belongs"),
        (b'{"nothing": 1}', "has no text to judge"),
        (b'{"text": 7}', '"text" holds no text'),
        (b'{"text": "\\ud83d"}', "half of a surrogate pair"),
        (b'{"x": [NaN, "\\ud83d"], "text": "a"}', "half of a surrogate pair"),
        (b'{"text": "\xff"}', "is not UTF-8 (byte 11 is 0xff)"),
        (b'{"messages": []}', "holds no message"),
        (b'{"messages": [{"role": "wizard", "content": "x"}]}', "has the role 'wizard'"),
        (b'{"text": "a", "deep": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", "nested too deeply"),
    ],
)
def test_a_bad_line_is_named_and_the_others_go_on(folder: Path, bad: bytes, named: str) -> None:
    rejects = folder / "rejects"
    result, verdicts = scan(
        folder, line(text="one") + b"\n" + bad + b"\n" + line(text="two"), "--rejects", str(rejects)
    )
    assert [verdict["text"] for verdict in verdicts] == ["one", "two"]
    assert result.exit_code == 1
    assert f"{folder / 'in.jsonl'}:3: " in result.output
    assert named in result.output
    assert rejects.read_bytes() == bad + b"\n"


def test_python_s_nan_is_passed_on(folder: Path) -> None:
    result, [verdict] = scan(folder, b'\xef\xbb\xbf{"text": "a", "x": NaN, "y": [Infinity]}\r\n')
    assert result.exit_code == 0
    assert repr([verdict["x"], verdict["y"]]) == "[nan, [inf]]"


def test_pseudonyms_restore_what_was_masked_and_the_action_stays(folder: Path) -> None:
    text = f"PERSON_1 wrote from ann@example.org to bob@example.org and ann@example.org, <EMAIL_ADDRESS_1>, {KEY}"
    _, [verdict] = scan(folder, line(text=text.removesuffix(KEY)), "--pseudonyms")
    assert verdict["action"] == "mask"
    assert {finding["action"] for finding in verdict["findings"]} == {"mask"}
    assert "ann@" not in verdict["masked"]
    assert restore(verdict["masked"], verdict["pseudonyms"]) == text.removesuffix(KEY)


def test_several_processes_give_the_same_in_the_same_order(folder: Path) -> None:
    content = b"".join(line(id=number, text=f"mail user{number}@example.org") for number in range(100)) + b"bad\n"
    result, alone = scan(folder, content)
    assert result.exit_code == 1
    result, together = scan(folder, content, "--jobs", "2")
    assert result.exit_code == 1
    for verdict in (*alone, *together):
        del verdict["latency_ms"]
    assert together == alone
    assert [verdict["id"] for verdict in together] == list(range(100))


def test_a_policy_that_is_not_there_lists_those_that_are(folder: Path) -> None:
    result, _ = scan(folder, line(text="a"), policy="treid")
    assert result.exit_code == 1
    assert "did you mean tried? there are tried" in result.output


def test_an_invalid_policy_is_named_with_its_line_and_nothing_is_written(folder: Path) -> None:
    broken = folder / "broken.yaml"
    broken.write_text("name: broken\ninput:\n  pij: {action: mask}\n")
    result, verdicts = scan(folder, line(text="a"), policy=str(broken))
    assert result.exit_code == 1
    assert f"{broken}:3" in result.output
    assert verdicts == []
    # Another file of the folder does not stand in the way of one that is valid, but is named where one is looked for.
    (folder / "policies" / "broken.yaml").write_text(broken.read_text())
    assert scan(folder, line(text="a"))[0].exit_code == 0
    result, _ = scan(folder, line(text="a"), policy="broken")
    assert "broken.yaml:3" in result.output


def test_the_input_is_never_written_over(folder: Path) -> None:
    source = folder / "in.jsonl"
    source.write_bytes(line(text="a"))
    same = ["guard", "scan", "--policy", "tried", "--config", str(folder), "--in", str(source), "--out", str(source)]
    result = CliRunner().invoke(main, same)
    assert result.exit_code == 1
    assert "cannot be written at the same time" in result.output
    assert source.read_bytes() == line(text="a")


def test_scan_reads_and_writes_streams_and_asks_no_stack(folder: Path) -> None:
    """A process of its own, with addresses at which nothing listens: they must not matter."""
    run = subprocess.run(
        [sys.executable, "-m", "penstock.cli", "guard", "scan", "--policy", "tried", "--config", str(folder), "--in", "-",
         "--out", "-"],
        input=line(text="hello") * 3, capture_output=True, check=True,
        env={"PATH": "", "PYTHONPATH": "shared:.", "KAFKA_BOOTSTRAP": "127.0.0.1:1", "HOME": str(folder)},
        cwd=Path(__file__).parents[2],
    )  # fmt: skip
    assert [json.loads(out)["action"] for out in run.stdout.splitlines()] == ["allow"] * 3
    assert run.stderr == b""


def test_without_the_services_the_command_says_what_to_install(tmp_path: Path) -> None:
    shared = Path(__file__).parents[2] / "shared"
    block = (
        "import sys; sys.modules['services'] = None; sys.path.insert(0, sys.argv.pop(1)); "
        "from penstock.cli.main import main; main(prog_name='penstock')"
    )
    run = subprocess.run(
        [sys.executable, "-c", block, str(shared), "guard", "scan"],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        check=False,
    )
    assert run.returncode == 1
    assert "requirements/main.txt" in run.stderr
    assert "Traceback" not in run.stderr


@given(st.binary(max_size=60))
def test_any_bytes_are_fields_or_a_named_problem(raw: bytes) -> None:
    try:
        fields = Line("f:1", raw, len(raw)).fields()
    except BadLine as error:
        assert str(error)
    else:
        assert {name: repr(plain(value)) for name, value in fields.items()} == {
            name: repr(value) for name, value in json.loads(raw).items()
        }


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
NAMES = st.sampled_from(["text", "messages", "answer", "question", "context", "passages", "system_prompt", "x"])


@given(st.dictionaries(NAMES, JSON, max_size=4), st.sampled_from(["input", "output", "documents"]))
def test_any_fields_are_a_subject_or_a_named_problem(fields: dict[str, Any], stage: str) -> None:
    try:
        subject = subject_of(fields, stage)
    except BadLine as error:
        assert str(error)
    else:
        assert all(isinstance(segment.text, str) for segment in subject.segments)
        assert subject.segments
