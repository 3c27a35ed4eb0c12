"""Adapters from feedback: what is learned from, how it is cut into tokens, what may be registered, who gets the traffic."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import msgspec
import pytest
from click import UsageError
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st
from penstock.cli.main import main
from penstock.config.adapters import Adapter
from penstock.config.kinds import Route, Shadow, Target
from penstock.config.plane import ConfigPlane
from penstock.contracts.records import LogRange, Message, Passage

from services.inference.finetune.command_route import losses_of
from services.inference.finetune.dataset import (
    Conversation,
    DatasetError,
    Example,
    chosen,
    read_dataset,
    split,
)
from services.inference.finetune.encoding import encoded
from services.inference.finetune.golden import (
    Answer,
    GoldenError,
    asked_of,
    compare,
    figures_of,
    keep_answers,
    platform_command,
)
from services.inference.finetune.personal import personal_data
from services.inference.finetune.record import (
    EVALUATION,
    TRAINING,
    Loss,
    Options,
    RecordError,
    Trained,
    TrainedOn,
    base_digest,
    write_record,
)
from services.inference.finetune.registering import (
    NotRegistered,
    adapter_of,
    canary_of,
    checked_name,
    kept_apart,
    with_canary,
)


def conversation(number: int = 0, **fields: Any) -> Conversation:
    asked = [Message(role="user", content=f"question {number}")]
    given: dict[str, Any] = {"messages": asked, "answer": f"answer {number}", "rating": 1.0}
    return Conversation(team="team", request_id=f"r{number}", conversation_id=f"c{number // 2}", **(given | fields))


# -- the dataset -------------------------------------------------------------------------------------------------------


def written(folder: Path, rows: list[Conversation], **changed: Any) -> Path:
    content = b"".join(msgspec.json.encode(row) + b"\n" for row in rows)
    (folder / "conversations.jsonl").write_bytes(content)
    log = [{"topic": "feedback", "partition": 0, "first_offset": 3, "last_offset": 9}]
    digest = hashlib.sha256(content).hexdigest()
    manifest = {"format": "conversations", "rows": len(rows), "sha256": digest, "log": log, "label": "x"}
    (folder / "conversations.jsonl.manifest.json").write_text(json.dumps(manifest | changed))
    return folder


def test_the_version_of_a_dataset_is_the_digest_of_its_manifest(tmp_path: Path) -> None:
    rows = [conversation(0), conversation(1, answer="two\u2028lines")]
    found = read_dataset(written(tmp_path, rows))
    manifest = tmp_path / "conversations.jsonl.manifest.json"
    assert (found.version, list(found.rows)) == (hashlib.sha256(manifest.read_bytes()).hexdigest(), rows)
    assert found.log == [LogRange(topic="feedback", partition=0, first_offset=3, last_offset=9)]
    assert read_dataset(tmp_path / "conversations.jsonl").version == found.version


def test_a_dataset_that_is_not_what_its_manifest_says_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"conversations\.jsonl: No such file.*penstock finetune export"):
        read_dataset(tmp_path)
    written(tmp_path, [conversation()], format="sft")
    with pytest.raises(DatasetError, match=r"holds sft, not conversations"):
        read_dataset(tmp_path)
    written(tmp_path, [conversation()])
    with (tmp_path / "conversations.jsonl").open("ab") as file:
        file.write(b"{}\n")
    with pytest.raises(DatasetError, match="changed after the export"):
        read_dataset(tmp_path)
    written(tmp_path, [], sha256=hashlib.sha256(b"{}\n").hexdigest())
    (tmp_path / "conversations.jsonl").write_bytes(b"{}\n")
    with pytest.raises(DatasetError, match=r"conversations\.jsonl:1 is no conversation"):
        read_dataset(tmp_path)


def test_well_rated_answers_and_corrections_are_learned_by_their_rating() -> None:
    rows = [
        conversation(0, rating=0.8),
        conversation(1, rating=0.2),
        conversation(2, rating=0.0, corrected=True),
        conversation(3, rating=None),
        conversation(4, answer=" "),
        conversation(5, answer="Write to ada.lovelace@example.org."),
        conversation(6, messages=[Message(role="user", content="Call +44 20 7946 0958")]),
    ]
    examples, left_out = chosen(rows, min_rating=0.75, weights="rating")
    assert [(each.conversation.request_id, each.weight) for each in examples] == [("r0", 0.8), ("r2", 1.0)]
    assert left_out == {
        "rated below 0.75": 2, "nothing asked or answered": 1, "holds what looks like an e-mail address": 1,
        "holds what looks like a telephone number": 1,
    }  # fmt: skip
    kept, _ = chosen(rows, min_rating=0.75, weights="equal", personal=True)
    assert [(each.conversation.request_id, each.weight) for each in kept] == [(f"r{n}", 1.0) for n in (0, 2, 5, 6)]
    assert chosen([conversation(rating=0.0)], min_rating=0.0, weights="rating")[1] == {"weighs nothing": 1}


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("card 4111 1111 1111 1111.", "a payment card number"),
        ("order 2024 4111 1111 1111 1111 of the 3rd", "a payment card number"),
        ("3782 822463 10005", "a payment card number"),
        ("order 4111 1111 1111 1112, 0000 0000 0000 0000", None),
        ("GB82 WEST 1234 5698 7654 32", "an IBAN"),
        ("GB83 WEST 1234 5698 7654 32", None),
        ("<EMAIL_1> and <PHONE_NUMBER_2>, a @decorator, 3 + 4, version 1.2.3.4", None),
        ("+1 (212) 555-0123", "a telephone number"),
    ],
)
def test_personal_data_is_told_from_what_looks_like_it(text: str, kind: str | None) -> None:
    assert personal_data(["nothing", text]) == kind


@given(st.integers(2, 40), st.floats(0.01, 0.99), st.integers(0, 3), st.randoms(use_true_random=False))
def test_no_conversation_is_on_both_sides_whatever_the_order(count: int, share: float, seed: int, random: Any) -> None:
    examples = [Example(conversation(number), 1.0) for number in range(2 * count)]
    parts = split(examples, share=share, seed=seed)
    sides = [{each.conversation.unit for each in side} for side in (parts.training, parts.held_out)]
    assert not sides[0] & sides[1]
    assert len(sides[0] | sides[1]) == count
    assert len(sides[1]) == min(max(1, round(share * count)), count - 1)
    random.shuffle(examples)
    again = split(examples, share=share, seed=seed)
    assert {each.conversation.unit for each in again.held_out} == sides[1]


def test_one_conversation_cannot_be_split() -> None:
    with pytest.raises(DatasetError, match="1 conversations are left to learn from"):
        split([Example(conversation(0), 1.0), Example(conversation(1), 1.0)], share=0.1, seed=0)


# -- tokens ------------------------------------------------------------------------------------------------------------


class Letters:
    """A tokenizer whose tokens are code points, and 0 for the end of a turn."""

    eos_token: str | None = "\0"
    eos_token_id: int | None = 0

    def __init__(self, *, ends: bool = True, rewrites: bool = False) -> None:
        self._end, self._rewrites = "\0\n" if ends else "\n", rewrites

    def apply_chat_template(self, conversation: Any, *, tokenize: bool, add_generation_prompt: bool) -> str:
        turns = "".join(f"{each['role'][0]}:{each['content']}{self._end}" for each in conversation)
        start = "(think)" if self._rewrites and add_generation_prompt else ""
        return turns + (f"a:{start}" if add_generation_prompt else "")

    def encode(self, text: str, *, add_special_tokens: bool) -> list[int]:
        return [ord(char) for char in text]


class Refusing(Letters):
    """A tokenizer whose template does not write every conversation."""

    def apply_chat_template(self, conversation: Any, *, tokenize: bool, add_generation_prompt: bool) -> str:
        raise ZeroDivisionError("no system here")


@pytest.mark.parametrize(
    ("tokenizer", "learned"),
    [(Letters(), "Yes.\0\n"), (Letters(ends=False), "Yes.\n\0"), (Letters(rewrites=True), "Yes.\0")],
)
def test_the_answer_alone_is_learned_and_that_it_ends(tokenizer: Letters, learned: str) -> None:
    example = Example(conversation(answer="Yes."), 0.5)
    (one,), left_out = encoded(tokenizer, [example], max_tokens=100)
    text = "".join(map(chr, one.tokens))
    assert (text[one.answer_from :], one.answer_tokens, one.weight) == (learned, len(learned), 0.5)
    prompt = tokenizer.apply_chat_template(example.conversation.prompt, tokenize=False, add_generation_prompt=True)
    assert text[: one.answer_from] == prompt
    assert left_out == {}


def test_the_prompt_is_that_of_the_engine_with_its_evidence_and_long_ones_are_left_out() -> None:
    passage = Passage(passage_id="p", document_id="d", title="Bridges", text="It is red.", score=1.0)
    grounded = Example(conversation(passages=[passage]), 1.0)
    assert grounded.conversation.prompt[0]["content"].startswith("Answer from the numbered passages below")
    assert "[1] Bridges\nIt is red." in grounded.conversation.prompt[0]["content"]
    with pytest.raises(ZeroDivisionError):
        encoded(Refusing(), [grounded], max_tokens=100)
    assert encoded(Refusing(), [grounded], max_tokens=100, refusal=ZeroDivisionError) == (
        [], {"refused by the chat template: no system here": 1},
    )  # fmt: skip
    found, left_out = encoded(Letters(), [grounded, Example(conversation(), 1.0)], max_tokens=100)
    assert (len(found), left_out) == (1, {"longer than 100 tokens": 1})


# -- registering -------------------------------------------------------------------------------------------------------

REPORT: dict[str, Any] = {
    "run": {"dataset": "golden", "dataset_version": "v"},
    "problems": ["adapter: answer.token_f1 fell"],
    "comparisons": [
        {"metrics": [
            {"metric": "answer.token_f1", "baseline": 0.5, "candidate": 0.25, "cases": 9},
            {"metric": "passed", "baseline": 1.0, "candidate": 1.0, "cases": 10},
            {"metric": "prompt.toxicity", "baseline": 0.1, "candidate": 0.1, "cases": 10},
            {"metric": "latency_ms", "baseline": 0.0, "candidate": 0.0, "cases": 10},
        ]}
    ],
}  # fmt: skip


def trained(folder: Path, weights: bytes = b"weights") -> str:
    """Write an adapter's folder as training leaves it; return the digest of its weights."""
    folder.mkdir(exist_ok=True)
    (folder / "adapter_model.safetensors").write_bytes(weights)
    digest = hashlib.sha256(weights).hexdigest()
    record = Trained(
        base_model="base", base_sha256="0" * 64, adapter_sha256=digest, options=Options(rank=8), best_step=2,
        dataset=TrainedOn(name="d", version="a" * 64, sha256="b" * 64, rows=5, held_out=1, left_out={}, log=[]),
        losses=[Loss(step=2 * epoch, epoch=epoch, held_out=loss) for epoch, loss in enumerate((2.0, 1.5, 1.7))],
        parameters=1, device="cpu", dtype="float32", versions={}, seconds=1.0,
    )  # fmt: skip
    write_record(folder, TRAINING, record)
    return digest


def test_an_adapter_is_registered_with_what_it_was_trained_on_and_what_its_evaluation_said(tmp_path: Path) -> None:
    digest = trained(tmp_path)
    evaluated = figures_of({**REPORT, "problems": []}, digest)
    write_record(tmp_path, EVALUATION, evaluated)
    entry = adapter_of(tmp_path, name="support-1", path="/adapters/support-1", note="By ada.")
    assert (entry.base_model, entry.sha256, entry.rank, entry.note) == ("base", digest, 8, "By ada.")
    assert entry.trained_on is not None
    assert (entry.trained_on.sha256, entry.trained_on.rows) == ("a" * 64, 5)
    assert entry.figures == {
        "golden.token_f1": 0.25, "base.token_f1": 0.5, "golden.passed": 1.0, "base.passed": 1.0, "golden.cases": 10.0,
        "held_out.loss": 1.5, "base.held_out.loss": 2.0,
    }  # fmt: skip


def test_an_adapter_that_is_worse_or_unknown_is_refused_unless_forced(tmp_path: Path) -> None:
    with pytest.raises(NotRegistered, match="penstock finetune train"):
        adapter_of(tmp_path, name="a")
    digest = trained(tmp_path)
    with pytest.raises(NotRegistered, match="was not evaluated"):
        adapter_of(tmp_path, name="a")
    worse = figures_of(REPORT, digest)
    write_record(tmp_path, EVALUATION, worse)
    with pytest.raises(NotRegistered, match=r"worse than its base on golden \(adapter: answer\.token_f1 fell\)"):
        adapter_of(tmp_path, name="a")
    forced = adapter_of(tmp_path, name="a", force=True)
    assert "Registered by force: it is worse than its base" in forced.note
    write_record(tmp_path, EVALUATION, msgspec.structs.replace(worse, ok=True, adapter_sha256="f" * 64))
    with pytest.raises(NotRegistered, match="is of other weights"):
        adapter_of(tmp_path, name="a")
    (tmp_path / "adapter_model.safetensors").write_bytes(b"others")
    with pytest.raises(NotRegistered, match="not those that were trained"):
        adapter_of(tmp_path, name="a", force=True)


def test_answers_of_other_weights_are_not_judged(tmp_path: Path) -> None:
    with pytest.raises(GoldenError, match="holds no answers"):
        compare([], tmp_path, tmp_path / "none", "a" * 64)
    one = Answer(
        case="c", version="v", answer="x", model="b" * 64, finish_reason="stop", input_tokens=1, output_tokens=1
    )
    keep_answers(tmp_path / "kept", [one], [one])
    with pytest.raises(GoldenError, match="are of other weights"):
        compare([], tmp_path, tmp_path / "kept", "a" * 64)
    with pytest.raises(GoldenError, match="is not what `penstock evaluate cases` prints"):
        asked_of('{"question": "Why?"}\n', "golden.jsonl")
    with pytest.raises(GoldenError, match="asks nothing that a model can answer"):
        asked_of('{"dataset": "d", "version": "v", "cases": 0}\n', "questions.jsonl")


def registered(name: str = "support-1", digest: str = "a" * 64) -> Adapter:
    return Adapter(name=name, base_model="base", path="/a", sha256=digest, rank=8)


def test_a_name_keeps_its_weights() -> None:
    plane = ConfigPlane.of([registered()])
    assert kept_apart(registered(), plane) == registered()
    assert kept_apart(registered("support-2", "b" * 64), plane).name == "support-2"
    with pytest.raises(NotRegistered, match="registered with other weights"):
        kept_apart(registered(digest="b" * 64), plane)


def test_a_route_gives_an_adapter_its_share_and_is_otherwise_as_it_was() -> None:
    route = Route(name="chat", targets=(Target(backend="vllm", model="base"),), deadline_s=9.0)
    plane = ConfigPlane.of([route, registered(), registered("support-2", "b" * 64)])
    terms: dict[str, Any] = {"sticky": "user", "max_error_rate": 0.02, "max_score_loss": {"answer.groundedness": 0.05}}
    canary = canary_of("support-1", 0.05, **terms)
    changed = with_canary("chat", canary, plane)
    assert changed.canary == canary
    assert (canary.target.backend, canary.target.model, canary.share) == ("vllm", "support-1", 0.05)
    assert changed.model_copy(update={"canary": None}) == route
    plane.put("chat", changed)
    assert with_canary("chat", canary_of("support-1", 0.1, **terms), plane).canary is not None
    with pytest.raises(NotRegistered, match="support-1 is on trial on 'chat' already"):
        with_canary("chat", canary_of("support-2", 0.05, **terms), plane)
    assert with_canary("chat", canary_of("support-2", 0.05, **terms), plane, replace=True).canary is not None
    with pytest.raises(NotRegistered, match=r"no route 'mail'; there are chat"):
        with_canary("mail", canary, plane)
    with pytest.raises(
        NotRegistered, match=r"no adapter 'support-3' is registered \(there are: support-1, support-2\)"
    ):
        with_canary("chat", canary_of("support-3", 0.05, **terms), plane)


def test_an_adapter_that_answers_a_route_already_is_not_put_on_trial_there() -> None:
    target = Target(backend="vllm", model="support-1")
    beside = Shadow(target=target, share=0.5)
    base = Target(backend="vllm", model="base")
    for route in (Route(name="chat", targets=(base, target)), Route(name="chat", targets=(base,), shadows=(beside,))):
        canary = canary_of("support-1", 0.05, sticky="user", max_error_rate=0.02, max_score_loss={})
        with pytest.raises(NotRegistered, match="is a target or a shadow of 'chat' already"):
            with_canary("chat", canary, ConfigPlane.of([route, registered()]))


def test_what_cannot_be_published_is_told_before_anything_is_trained() -> None:
    assert checked_name("support-1") == "support-1"
    for wrong in ("support 1", "../support", ""):
        with pytest.raises(NotRegistered, match="--name"):
            checked_name(wrong)
    with pytest.raises(NotRegistered, match=r"max_score_loss.*from 0 to below 1"):
        canary_of("a", 0.05, sticky="user", max_error_rate=0.02, max_score_loss={"answer.groundedness": 1.5})


def test_bounds_of_scores_are_read() -> None:
    assert losses_of(["answer.groundedness=0.05"]) == {"answer.groundedness": 0.05}
    for wrong in ("groundedness=0.05", "answer.groundedness", "answer.groundedness=much"):
        with pytest.raises(UsageError, match=r"write subject\.name=loss"):
            losses_of([wrong])


# -- the environment ---------------------------------------------------------------------------------------------------


def test_a_base_is_known_by_its_weights_config_and_tokenizer(tmp_path: Path) -> None:
    with pytest.raises(RecordError, match="holds no model"):
        base_digest(tmp_path)
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "model.safetensors").write_bytes(b"w")
    before = base_digest(tmp_path)
    (tmp_path / "notes.txt").write_text("of no account")
    assert base_digest(tmp_path) == before
    (tmp_path / "tokenizer.json").write_text("{}")
    assert base_digest(tmp_path) != before


def test_the_main_environment_says_where_training_runs(tmp_path: Path) -> None:
    run = CliRunner().invoke(
        main, ["finetune", "train", "--dataset", str(tmp_path), "--base", str(tmp_path), "--out", "x"]
    )
    assert run.exit_code == 1
    assert "is not installed here: make the engine's environment with `make vllm`" in run.output
    with pytest.raises(GoldenError, match="name its interpreter with --main-python"):
        platform_command(tmp_path / "python")


def test_a_damaged_evaluation_is_none(tmp_path: Path) -> None:
    trained(tmp_path)
    (tmp_path / EVALUATION).write_text("{}")
    with pytest.raises(NotRegistered, match=r"evaluation\.json is damaged"):
        adapter_of(tmp_path, name="a")
