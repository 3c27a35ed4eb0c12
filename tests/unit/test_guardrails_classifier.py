"""The adapter of ONNX text classifiers, on models that the tests build: an embedding, a mean, a linear layer."""

from __future__ import annotations

import json
import time
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.normalizers import Lowercase
from tokenizers.pre_tokenizers import Whitespace
from tokenizers.processors import TemplateProcessing
from tokenizers.trainers import WordLevelTrainer

from services.guardrails.findings import Reference, Rule, Span
from services.guardrails.scanners.classifier import ClassifierScanner

GOOD = "the weather is nice and the garden grows well today".split()
BAD = "ignore override jailbreak".split()
BINARY = {"0": "SAFE", "1": "INJECTION"}


def rule(folder: Path, **options: object) -> Rule:
    return Rule("block", 0.5, fail_closed=True, model=str(folder), **options)  # type: ignore[arg-type]


def scan(text: str, folder: Path, **options: object) -> dict[str, Span]:
    return {span.kind: span for span in ClassifierScanner().scan(text, rule(folder, **options), Reference())}


def build(folder: Path, labels: dict[str, str], max_tokens: int = 512, **config: object) -> Path:
    """Write a model that weighs each of BAD by +8 for the last label (and -8 for the first), and averages."""
    tokenizer = Tokenizer(WordLevel(unk_token="[UNK]"))
    tokenizer.normalizer, tokenizer.pre_tokenizer = Lowercase(), Whitespace()
    trainer = WordLevelTrainer(special_tokens=["[PAD]", "[UNK]", "[CLS]", "[SEP]"])
    tokenizer.train_from_iterator([" ".join(GOOD), " ".join(BAD)], trainer)
    tokenizer.post_processor = TemplateProcessing("[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)])
    folder.mkdir(exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))

    count = len(labels)
    table = np.zeros((tokenizer.get_vocab_size(), 1), np.float32)
    for word in BAD:
        table[tokenizer.token_to_id(word)] = 8
    weights = np.zeros((1, count), np.float32)
    weights[0, 0], weights[0, -1] = -1, 1
    bias = np.linspace(1, -1, count).astype(np.float32)
    nodes = [
        helper.make_node("Gather", ["table", "input_ids"], ["vectors"]),
        helper.make_node("Cast", ["attention_mask"], ["mask"], to=TensorProto.FLOAT),
        helper.make_node("Unsqueeze", ["mask", "last"], ["mask3"]),
        helper.make_node("Mul", ["vectors", "mask3"], ["kept"]),
        helper.make_node("ReduceSum", ["kept", "axis"], ["sum"], keepdims=0),
        helper.make_node("ReduceSum", ["mask3", "axis"], ["count"], keepdims=0),
        helper.make_node("Div", ["sum", "count"], ["mean"]),
        helper.make_node("Gemm", ["mean", "weights", "bias"], ["logits"]),
    ]
    ids = [helper.make_tensor_value_info(n, TensorProto.INT64, ["b", "t"]) for n in ("input_ids", "attention_mask")]
    graph = helper.make_graph(
        nodes,
        "mean",
        ids,
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["b", count])],
        [
            numpy_helper.from_array(array, name)
            for name, array in {
                "table": table,
                "weights": weights,
                "bias": bias,
                "last": np.array([2], np.int64),
                "axis": np.array([1], np.int64),
            }.items()
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.checker.check_model(model)
    onnx.save(model, str(folder / "model.onnx"))
    written = {"id2label": labels, "max_position_embeddings": max_tokens, **config}
    (folder / "config.json").write_text(json.dumps(written), "utf-8")
    return folder


@pytest.fixture
def binary(tmp_path: Path) -> Path:
    return build(tmp_path / "binary", BINARY)


def test_a_label_is_found_with_the_models_probability(binary: Path) -> None:
    text = "Ignore override jailbreak"
    found = scan(text, binary)
    assert set(found) == {"INJECTION"}
    # 5 tokens with [CLS] and [SEP], of which 3 weigh 8; logits -4.8 + 1 and 4.8 - 1.
    assert found["INJECTION"].score == pytest.approx(1 / (1 + np.exp(-7.6)))
    assert (found["INJECTION"].start, found["INJECTION"].end) == (0, len(text))
    assert scan("The weather is nice", binary)["INJECTION"].score < 0.2
    assert scan("  ", binary) == {}


def test_a_long_text_is_judged_in_windows_and_the_worst_counts(tmp_path: Path) -> None:
    folder = build(tmp_path / "short", BINARY, max_tokens=32)
    filler = " ".join(GOOD * 40)
    attack = "ignore override jailbreak " * 9
    text = f"{filler} {attack} {filler}"
    span = scan(text, folder)["INJECTION"]
    assert span.score > 0.9
    assert span.end - span.start < 400
    assert len(filler) - 200 < span.start < len(filler) + len(attack)
    assert scan(filler, folder)["INJECTION"].score < 0.2


def test_labels_of_a_multi_label_model_are_judged_one_by_one(tmp_path: Path) -> None:
    labels = {"0": "calm", "1": "insult", "2": "threat"}
    folder = build(tmp_path / "multi", labels, problem_type="multi_label_classification")
    found = scan("override", folder)
    assert set(found) == {"calm", "insult", "threat"}
    assert found["insult"].score == pytest.approx(0.5)
    assert found["threat"].score == pytest.approx(1 / (1 + np.exp(-(8 / 3 - 1))))
    softmax = scan("override", build(tmp_path / "single", labels))
    assert sum(span.score for span in softmax.values()) == pytest.approx(1)


def test_harmless_labels_are_no_finds_unless_asked_for(tmp_path: Path, binary: Path) -> None:
    assert set(scan("today", binary, kinds=frozenset({"SAFE"}))) == {"SAFE"}
    plain = build(tmp_path / "plain", {"0": "LABEL_0", "1": "LABEL_1"})
    assert set(scan("today", plain)) == {"LABEL_1"}
    assert set(scan("today", build(tmp_path / "one", {"0": "toxic"}))) == {"toxic"}


def test_the_version_names_the_models_and_a_changed_file_is_read_again(tmp_path: Path) -> None:
    folder = build(tmp_path / "model", BINARY)
    scanner = ClassifierScanner()
    assert scanner.version == "1"
    scanner.check(rule(folder))
    first = scanner.version
    assert first.startswith("1+")
    build(folder, {"0": "SAFE", "1": "MAYBE", "2": "INJECTION"})
    assert {span.kind for span in scanner.scan("today", rule(folder), Reference())} == {"MAYBE", "INJECTION"}
    assert scanner.version != first
    assert scanner.version.count("+") == 1


def test_what_does_not_fit_is_refused_with_the_remedy(tmp_path: Path, binary: Path) -> None:
    scanner = ClassifierScanner()
    with pytest.raises(ValueError, match="needs model"):
        scanner.check(Rule("block", 0.5, fail_closed=True))
    with pytest.raises(ValueError, match=r"model\.onnx does not exist.*optimum-cli"):
        scanner.check(rule(tmp_path / "nowhere"))
    config = binary / "config.json"
    for written, message in [
        ("{", "is no JSON"),
        ("[]", "is no JSON object"),
        ('{"id2label": {"0": "A", "2": "B"}}', "needs id2label"),
        ('{"id2label": {"0": "A", "1": "B", "2": "C"}}', r"shape \(1, 2\).*not \(1, 3\)"),
        (json.dumps({"id2label": BINARY, "problem_type": "regression"}), "regression"),
        (json.dumps({"id2label": BINARY, "max_position_embeddings": 2}), "no room for text"),
    ]:
        config.write_text(written, "utf-8")
        with pytest.raises(ValueError, match=message):
            scanner.check(rule(binary))
    config.write_text(json.dumps({"id2label": BINARY}), "utf-8")
    (binary / "tokenizer.json").write_text("{}", "utf-8")
    with pytest.raises(ValueError, match=r"tokenizer\.json cannot be read"):
        scanner.check(rule(binary))
    build(binary, BINARY)
    (binary / "model.onnx").write_bytes(b"no graph")
    with pytest.raises(ValueError, match=r"model\.onnx cannot be run"):
        scanner.check(rule(binary))


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.text(max_size=60))
def test_any_text_is_judged_within_bounds(binary: Path, text: str) -> None:
    scanner = SHARED.setdefault(binary, ClassifierScanner())
    spans = scanner.scan(text, rule(binary), Reference())
    assert spans == scanner.scan(text, rule(binary), Reference())
    for span in spans:
        assert 0 <= span.start <= span.end <= len(text)
        assert 0 <= span.score <= 1


SHARED: dict[Path, ClassifierScanner] = {}


def test_time_is_linear_and_the_budget_is_kept(binary: Path) -> None:
    scanner = ClassifierScanner()
    scanner.check(rule(binary))

    def seconds(count: int) -> float:
        best = float("inf")
        for _ in range(3):
            started = time.thread_time()
            scanner.scan("garden " * count, rule(binary), Reference())
            best = min(best, time.thread_time() - started)
        return best

    assert seconds(40_000) < 10 * seconds(10_000) + 0.02

    def spent() -> None:
        raise TimeoutError("spent")

    with pytest.raises(TimeoutError):
        scanner.scan("garden " * 5_000, rule(binary), Reference(checkpoint=spent))
