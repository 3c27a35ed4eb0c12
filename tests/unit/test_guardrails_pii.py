"""Personal data of known shape: what counts, what does not, where it stands, and that a clean or hostile text costs
little.
"""

from __future__ import annotations

import itertools
import json
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from penstock.text.checksums import luhn

from services.guardrails.findings import Reference, Rule
from services.guardrails.scanners.checksums import is_payment_card
from services.guardrails.scanners.pii import PiiScanner
from services.guardrails.scanners.pii.identifiers import NUMBER_FORMATS, PRESIDIO
from services.guardrails.scanners.pii.scanner import MAX_CONFIRMATIONS

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
        ("phone=202-555-0143", "PHONE_NUMBER", "202-555-0143"),
        ("781 1704 office", "PHONE_NUMBER", "781 1704"),
        ("card 4111 1111 1111 1111 exp 12/29", "CREDIT_CARD", "4111 1111 1111 1111"),
        ("amex 378282246310005", "CREDIT_CARD", "378282246310005"),
        ("maestro 6304000000000000", "CREDIT_CARD", "6304000000000000"),
        ("cc#5555555555554444", "CREDIT_CARD", "5555555555554444"),
        ("IBAN DE89 3704 0044 0532 0130 00 please", "IBAN_CODE", "DE89 3704 0044 0532 0130 00"),
        ("my social security number is 536-90-4399", "US_SSN", "536-90-4399"),
        ("from 192.168.12.34 to the gateway", "IP_ADDRESS", "192.168.12.34"),
        ("host 2001:db8:85a3::8a2e:370:7334 answers", "IP_ADDRESS", "2001:db8:85a3::8a2e:370:7334"),
        ("mac 00:1B:44:11:3A:B7", "MAC_ADDRESS", "00:1B:44:11:3A:B7"),
        ("my website is https://jane-doe.example.com/", "URL", "https://jane-doe.example.com/"),
        ("pay to bitcoin wallet 1A1zP1eP5QGefi2DMPTfTL5SLmv7DivfNa", "CRYPTO", "1A1zP1eP5QGefi2DMPTfTL5SLmv7DivfNa"),
    ],
)
def test_contact_and_payment_data_is_found_in_place(text: str, kind: str, value: str) -> None:
    assert (kind, value) in found(text)


# The numbers are those that the formats' own documentation gives as examples.
@pytest.mark.parametrize(
    ("text", "kind", "value"),
    [
        ("NHS number 943 476 5919", "UK_NHS", "943 476 5919"),
        ("DNI 12345678Z", "ES_NIF", "12345678Z"),
        ("nino AB123456C", "UK_NINO", "AB123456C"),
        ("CPF 390.533.447-05", "BR_CPF", "390.533.447-05"),
        ("mijn BSN is 111222333", "NL_BSN", "111222333"),
        ("Steuer-ID 36 574 261 809", "DE_TAX_ID", "36 574 261 809"),
        ("n° de sécurité sociale 2 95 10 99 126 111 93", "FR_NIR", "2 95 10 99 126 111 93"),
        ("AHV 756.9217.0769.85", "CH_AHV", "756.9217.0769.85"),
        ("rodné číslo 710319/2745", "CZ_SK_BIRTH_NUMBER", "710319/2745"),
        ("CPR 211062-5629", "DK_CPR", "211062-5629"),
        ("my CNIC is 34201-0891231-8", "PK_CNIC", "34201-0891231-8"),
        ("CURP BOXW310820HNERXN09", "MX_CURP", "BOXW310820HNERXN09"),
        ("PPS number 6433435F", "IE_PPS", "6433435F"),
        ("VAT BE697449992", "EU_VAT_NUMBER", "BE697449992"),
        ("her driver's license number is F162823540116", "US_DRIVER_LICENSE", "F162823540116"),
        ("driving licence: 6940579", "US_DRIVER_LICENSE", "6940579"),
        ("passport no. C01X00T47", "PASSPORT", "C01X00T47"),
        ("account number: 12345678", "US_BANK_NUMBER", "12345678"),
    ],
)
def test_identifiers_of_many_countries_are_found(text: str, kind: str, value: str) -> None:
    assert (kind, value) in found(text)


@pytest.mark.parametrize(
    ("text", "kind", "value"),
    [
        ("I live at 14 Lavender Row, Exeter EX4 6QT now", "STREET_ADDRESS", "14 Lavender Row, Exeter EX4 6QT"),
        ("ship to 742 Evergreen Terrace, Springfield, IL 62704", "STREET_ADDRESS",
            "742 Evergreen Terrace, Springfield, IL 62704"),
        ("wohnhaft Lindenstraße 12a, 10969 Berlin", "STREET_ADDRESS", "Lindenstraße 12a, 10969 Berlin"),
        ("12 rue de la Paix, 75002 Paris", "STREET_ADDRESS", "12 rue de la Paix, 75002 Paris"),
        ("send it to P.O. Box 149", "STREET_ADDRESS", "P.O. Box 149"),
        ("Meet me at Harjukuja 54", "STREET_ADDRESS", "Harjukuja 54"),
        ("ul. Długa 48, Gdańsk", "STREET_ADDRESS", "ul. Długa 48"),
        ("i live at 5 oak street", "STREET_ADDRESS", "5 oak street"),
        ("My zip code is 75534-030", "ZIP_CODE", "75534-030"),
        ("date of birth: 12/1/1981", "DATE_TIME", "12/1/1981"),
        ("she was born on 3 May 1981", "DATE_TIME", "3 May 1981"),
        ("geboren am 14.02.2001", "DATE_TIME", "14.02.2001"),
        ("I'm 31 y/o", "AGE", "31"),
        ("a 79 year old woman", "AGE", "79"),
        ("she works for Acme Widgets GmbH", "ORGANIZATION", "Acme Widgets GmbH"),
        ("from Hawthorne & Sons Ltd.", "ORGANIZATION", "Hawthorne & Sons Ltd"),
    ],
)  # fmt: skip
def test_addresses_birth_dates_ages_and_firms_are_found(text: str, kind: str, value: str) -> None:
    assert (kind, value) in found(text)


@pytest.mark.parametrize(
    "text",
    [
        "the meeting is on 2024-05-17 at 10:30",
        "release 3.11.7 and 2.0.16",
        "firmware version 10.4.1.2 is out",
        "order no 4556123412341234 was shipped",  # wrong check digit
        "the EAN is 4006381333931",
        "1700000000123 ms since the epoch",
        "a price of $1,234,567.89 or 1 000 000",
        "population 68 042 591, up from 66 987 244",
        "my lucky numbers are 7 13 21 34 42 and 88",
        "1 1 2 3 5 8 13 21 34 55 89 144 233 377 610 987",
        "ISBN 978-3-16-148410-0, part number 555-1234-987",
        "the phone has 12000000 pixels",
        "foo@bar and @decorator and a@b",
        "use os.path.join and argparse.ArgumentParser, see main.py and README.md",
        "pi is 3.14159265358979",
        "0x7ffdeadbeef and 100000000000",
        "123e4567-e89b-12d3-a456-426614174000",
        "2 cars drive on the road and 10 people walk down the street",
        "5 steps the right way",
        "household size was 3.07 at average age. 25 of them",
        "SELECT * FROM t WHERE id BETWEEN 10000000 AND 20000000",
        "gene rs1234567 at chr7:117559590-117559593",
        "a 30 year old whisky",
    ],
)
def test_numbers_of_other_kinds_are_let_alone(text: str) -> None:
    assert found(text) == []


def test_no_phone_number_is_seen_in_a_house_number() -> None:
    assert "PHONE_NUMBER" not in dict(found("We live at 9543 1819 St. John Street"))


def test_a_public_page_is_no_find_and_someones_site_is_one() -> None:
    for text in (
        "see https://www.python.org/ or https://en.wikipedia.org/wiki/Privacy",
        "GET http://localhost:8080/ and www.example.com",
    ):
        assert found(text) == []
    assert found("see https://kestrel-and-daughters.pl/ for more") == [("URL", "https://kestrel-and-daughters.pl/")]
    assert found("visit kestrel-and-daughters.co.uk") == [("URL", "kestrel-and-daughters.co.uk")]
    assert found("see https://kestrel-and-daughters.pl/opening-hours for more") == []
    assert found("System.Net, ASP.NET, foo.name, user.id, time.now and main.py, notes.md, google.com") == []
    assert found("look at https://www.linkedin.com/in/jane-doe-1") == [
        ("URL", "https://www.linkedin.com/in/jane-doe-1")
    ]


def test_check_digits() -> None:
    assert luhn("79927398713")
    assert not luhn("79927398710")
    assert is_payment_card("5555555555554444")
    assert not is_payment_card("5555555555554445")
    assert not is_payment_card("0000000000000000")


def test_every_format_is_one_that_its_package_has() -> None:
    from importlib import import_module

    from presidio_analyzer import predefined_recognizers

    assert all(callable(import_module(f"stdnum.{number.module}").is_valid) for number in NUMBER_FORMATS)
    assert all(hasattr(predefined_recognizers, name) for group in PRESIDIO for name in group.recognizers)


def test_only_the_kinds_that_are_asked_for_are_found() -> None:
    rule = Rule("mask", 0.3, fail_closed=True, kinds=frozenset({"URL"}))
    spans = SCANNER.scan("mail a@example.org, see https://example.org/x", rule, Reference())
    assert [span.kind for span in spans] == ["URL"]


HOSTILE = ("4", "1 2 3 ", "a@b.", "1.2.3.4 ", ":", "a:", "+1 (", "AB12 ", "www.", "1-", "tel 0301234567, ",
    "live at 5 Ab ",
           "my name is ", "A B ", "Dear Mr ", "passport A1234567 ", "12 Main Street ", "é1", "X, Y and Z Inc ", "\n",
           "'s ",
           "nhs sin tfn 123456789 ", "-----")  # fmt: skip


def thread_seconds(work: Callable[[], object]) -> float:
    """The quickest of three runs, in CPU time of this thread: other processes share the machine."""
    times = []
    for _ in range(3):
        started = time.thread_time()
        work()
        times.append(time.thread_time() - started)
    return min(times)


@pytest.mark.parametrize("unit", HOSTILE)
def test_hostile_repetition_costs_linear_time(unit: str) -> None:
    text = unit * (40_000 // len(unit))
    SCANNER.scan(text, RULE, Reference())  # builds RE2's automata
    short = thread_seconds(lambda: SCANNER.scan(text[:10_000], RULE, Reference()))
    long = thread_seconds(lambda: SCANNER.scan(text, RULE, Reference()))
    assert long < 1.0
    # Four times the text: four times the work, and what the cap on confirmations and caches change. Squared, it were 16.
    assert long < max(8 * short, 0.05)


def test_costly_confirmations_are_capped_and_what_is_above_still_counts() -> None:
    numbers = "".join(f"call 0301{place:06d}, " for place in range(1, 3 * MAX_CONFIRMATIONS + 1))
    spans = SCANNER.scan(numbers, RULE, Reference())
    assert sum(span.kind == "PHONE_NUMBER" and span.score >= RULE.threshold for span in spans) == 3 * MAX_CONFIRMATIONS


def test_the_time_budget_is_asked_while_scanning() -> None:
    class Spent(Exception):
        pass

    def spent() -> None:
        raise Spent

    for text in ("1.2.3.4 " * 2_000, "Dear Mr Smith " * 2_000):
        with pytest.raises(Spent):
            SCANNER.scan(text, RULE, Reference(checkpoint=spent))


TEXTS = st.one_of(
    st.text(max_size=300),
    st.text(alphabet=st.sampled_from("0123456789 -.@:/+()abAB\u00e9\U0001f600\n,'"), max_size=300),
    st.lists(
        st.sampled_from(
            ["Dear ", "Mr. ", "John ", "Šárka ", "my name is ", "lives at ", "12 ", "Main Street", ", ", "\n", "born ",
                "1/2/1990",
             "tel ", "+49 30 901820", "DE89370400440532013000", "and ", "Ltd", "'s ", "İstanbul ", "ß", "\u2028",
             "a@b.org", "3", "-"]
        ),
        max_size=30,
    ).map("".join),
)  # fmt: skip


@settings(max_examples=300, deadline=None)
@given(TEXTS)
def test_spans_lie_inside_the_text_and_do_not_overlap(text: str) -> None:
    spans = SCANNER.scan(text, RULE, Reference())
    assert all(0 <= span.start < span.end <= len(text) and 0 <= span.score <= 1 for span in spans)
    assert all(first.end <= second.start for first, second in itertools.pairwise(spans))
    assert spans == SCANNER.scan(text, RULE, Reference())


@pytest.mark.parametrize("text", ["\ud800", "call \udfff +49 30 901820", "\x00" * 50, "a\ud83d@b.org"])
def test_what_is_no_valid_unicode_is_scanned_too(text: str) -> None:
    assert all(span.end <= len(text) for span in SCANNER.scan(text, RULE, Reference()))


@pytest.mark.data
@pytest.mark.skipif(not DATA.exists(), reason="the shared training data is not here")
def test_structured_types_reach_their_f1_on_the_development_data() -> None:
    kinds = {"CREDIT_CARD", "PHONE_NUMBER", "EMAIL_ADDRESS", "US_SSN", "IBAN_CODE", "US_DRIVER_LICENSE"}
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
    assert 2 * right / (2 * right + wrong + missed) >= 0.97
