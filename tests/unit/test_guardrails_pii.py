"""Personal data: what counts, what does not, where it stands, and that a clean or hostile text costs little."""

from __future__ import annotations

import itertools
import json
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.guardrails.findings import Reference, Rule
from services.guardrails.scanners.checksums import is_payment_card, luhn
from services.guardrails.scanners.pii import PiiScanner

RULE = Rule("mask", PiiScanner.default_threshold, fail_closed=True)
DATA = Path(__file__).parents[3] / "shared/data/pii/train.jsonl"
SCANNER = PiiScanner()


def found(text: str) -> list[tuple[str, str]]:
    return [
        (span.kind, text[span.start : span.end])
        for span in SCANNER.scan(text, RULE, Reference())
        if span.score >= RULE.threshold
    ]


@pytest.mark.parametrize(
    ("text", "kind", "value"),
    [
        ("write to jane.doe+x@mail.example.co.uk, please", "EMAIL_ADDRESS", "jane.doe+x@mail.example.co.uk"),
        ("<a href='mailto:bob@example.org'>", "EMAIL_ADDRESS", "bob@example.org"),
        ("call me on +49 30 901820", "PHONE_NUMBER", "+49 30 901820"),
        ("my phone is (202) 555-0143 ext 12", "PHONE_NUMBER", "(202) 555-0143 ext 12"),
        ("tel. 0171 946 0000", "PHONE_NUMBER", "0171 946 0000"),
        ("card 4111 1111 1111 1111 exp 12/29", "CREDIT_CARD", "4111 1111 1111 1111"),
        ("amex 378282246310005", "CREDIT_CARD", "378282246310005"),
        ("maestro 6304000000000000", "CREDIT_CARD", "6304000000000000"),
        ("IBAN DE89 3704 0044 0532 0130 00 please", "IBAN_CODE", "DE89 3704 0044 0532 0130 00"),
        ("my social security number is 536-90-4399", "US_SSN", "536-90-4399"),
        ("from 192.168.12.34 to the gateway", "IP_ADDRESS", "192.168.12.34"),
        ("host 2001:db8:85a3::8a2e:370:7334 answers", "IP_ADDRESS", "2001:db8:85a3::8a2e:370:7334"),
        ("NHS number 943 476 5919", "UK_NHS", "943 476 5919"),
        ("pay to bitcoin wallet 1A1zP1eP5QGefi2DMPTfTL5SLmv7DivfNa", "CRYPTO", "1A1zP1eP5QGefi2DMPTfTL5SLmv7DivfNa"),
        ("DNI 12345678Z", "ES_NIF", "12345678Z"),
        ("nino AB123456C", "UK_NINO", "AB123456C"),
    ],
)
def test_personal_data_is_found_in_place(text: str, kind: str, value: str) -> None:
    assert (kind, value) in found(text)


@pytest.mark.parametrize(
    "text",
    [
        "the meeting is on 2024-05-17 at 10:30",
        "release 3.11.7 and 2.0.16",
        "order no 4556123412341234 was shipped",  # wrong check digit
        "1700000000123 ms since the epoch",
        "a price of $1,234,567.89 or 1 000 000",
        "foo@bar and @decorator and a@b",
        "use os.path.join and argparse.ArgumentParser",
        "pi is 3.14159265358979",
        "0x7ffdeadbeef and 100000000000",
        "We live at 9543 1819 St. John Street",
    ],
)
def test_numbers_of_other_kinds_are_let_alone(text: str) -> None:
    assert found(text) == []


def test_check_digits() -> None:
    assert luhn("79927398713")
    assert not luhn("79927398710")
    assert is_payment_card("5555555555554444")
    assert not is_payment_card("5555555555554445")
    assert not is_payment_card("0000000000000000")


@pytest.mark.parametrize("unit", ["4", "1 2 3 ", "a@b.", "1.2.3.4 ", ":", "a:", "+1 (", "AB12 ", "www.", "1-"])
def test_hostile_repetition_is_bounded(unit: str) -> None:
    text = unit * (60_000 // len(unit))
    started = time.perf_counter()
    SCANNER.scan(text, RULE, Reference())
    assert time.perf_counter() - started < 4


@given(st.text(alphabet=st.sampled_from("0123456789 -.@:/+()abAB\u00e9\U0001f600"), max_size=200))
def test_spans_lie_inside_the_text_and_do_not_overlap(text: str) -> None:
    spans = SCANNER.scan(text, RULE, Reference())
    assert all(0 <= span.start < span.end <= len(text) and 0 <= span.score <= 1 for span in spans)
    assert all(first.end <= second.start for first, second in itertools.pairwise(spans))


@pytest.mark.data
@pytest.mark.skipif(not DATA.exists(), reason="the shared training data is not here")
def test_structured_types_reach_their_f1_on_the_development_data() -> None:
    kinds = {"CREDIT_CARD", "PHONE_NUMBER", "EMAIL_ADDRESS", "US_SSN", "IBAN_CODE"}
    right = wrong = missed = 0
    for line in DATA.read_text("utf-8").split("\n"):
        if not line:
            continue
        row = json.loads(line)
        gold = {(s["entity_type"], s["entity_value"]) for s in row["spans"] if s["entity_type"] in kinds}
        seen = {pair for pair in found(row["full_text"]) if pair[0] in kinds}
        right += len(gold & seen)
        wrong += len(seen - gold)
        missed += len(gold - seen)
    assert 2 * right / (2 * right + wrong + missed) >= 0.96
