"""LiteLLM's price file: what is taken over exactly, and what is skipped rather than taken over wrongly."""

from __future__ import annotations

import json
from datetime import UTC, date, datetime
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from penstock.config.litellm import LiteLLMError, LiteLLMPrices, load_litellm
from penstock.config.prices import Price
from penstock.contracts.records import Usage
from penstock.money import charge

STEADY: dict[str, Any] = {"deadline": None, "derandomize": True}
FIXTURE = Path(__file__).parent / "data" / "litellm_prices.json"
"""Invented models in the shape of the file as it is found."""

CHAT = {
    "litellm_provider": "acme", "mode": "chat", "input_cost_per_token": 1e-06, "output_cost_per_token": 2e-06,
}  # fmt: skip


@pytest.fixture(scope="module")
def found() -> LiteLLMPrices:
    return load_litellm(FIXTURE)


def one(**fields: Any) -> Price:
    result = load_litellm(json.dumps({"m": {**CHAT, **fields}}))
    assert result.skipped == ()
    return result.prices[0]


def refused(**fields: Any) -> tuple[str, str]:
    result = load_litellm(json.dumps({"m": {**CHAT, **fields}}))
    assert result.prices == ()
    return result.skipped[0].reason, result.skipped[0].detail


def taken(found: LiteLLMPrices, model: str) -> Price:
    return next(price for price in found.prices if price.model == model)


def test_every_entry_is_taken_or_skipped_with_its_reason(found: LiteLLMPrices) -> None:
    assert [price.model for price in found.prices] == [
        "heron-large", "acme/heron-large", "heron-large-2027", "osprey-200k", "osprey-legacy", "acme/plover-1m",
        "kestrel-embed", "kestrel-rerank", "gpu/heron-8b", "search-heron", "noisy-heron",
    ]  # fmt: skip
    assert {skip.model: (skip.reason, skip.detail) for skip in found.skipped} == {
        "free-heron": ("free", "input_cost_per_token and output_cost_per_token of 0"),
        "router": ("free", "output_cost_per_token of 0"),
        "rose-paint": ("mode that is not run here", "image_generation"),
        "rose-ear": ("mode that is not run here", "audio_transcription"),
        "modeless": ("no mode", ""),
        "by-character": ("no price by token, second or request", ""),
        "half-priced": ("no price by token, second or request", "output_cost_per_token is missing"),
        "yuan-heron": (
            "price of more than 12 decimal places", "input_cost_per_token: 0.0000011428571428571428",
        ),
        "very-long-heron": ("another price above a length that has no field", "1m tokens"),
        "odd-tiers": ("tiered_pricing that has no fields", "a tier begins at 50000 tokens"),
        "wordy": ("price that is no amount", "input_cost_per_token: 'see the web page'"),
        "negative": ("price that is no amount", "input_cost_per_token: '-0.000001'"),
        "broken name": ("refused by our own rules",
                        "model: Value error, must be a model's name as its backend knows it: not empty, no spaces"),
        "not-an-entry": ("no entry", "str where a mapping belongs"),
    }  # fmt: skip
    assert found.entries == len(found.prices) + len(found.skipped)
    assert found.deprecated == {"osprey-legacy": date(2025, 6, 1), "heron-large-2027": date(2027, 1, 31)}


def test_fields_are_taken_over_to_the_last_digit(found: LiteLLMPrices) -> None:
    assert taken(found, "heron-large") == Price.model_validate(
        {
            "model": "heron-large", "litellm_provider": "acme", "mode": "chat",
            "input_cost_per_token": "0.0000025", "output_cost_per_token": "0.00001",
            "cache_read_input_token_cost": "0.00000025", "cache_creation_input_token_cost": "0.000003125",
            "output_cost_per_reasoning_token": "0.000012", "max_input_tokens": 128000, "max_output_tokens": 16384,
            "source": "https://acme.example/prices; LiteLLM price file",
        }
    )  # fmt: skip


def test_tiers_are_taken_over_in_both_of_their_forms(found: LiteLLMPrices) -> None:
    flat, listed = taken(found, "osprey-200k"), taken(found, "acme/plover-1m")
    assert flat.cache_creation_input_token_cost_above_200k_tokens == Decimal("0.0000075")
    assert charge(flat, Usage(input_tokens=200_001)).total == 200_001 * Decimal("0.000006")
    assert charge(flat, Usage(input_tokens=200_000)).total == 200_000 * Decimal("0.000003")
    costs = [charge(listed, Usage(input_tokens=n)).input_rate for n in (32_000, 32_001, 128_001, 256_001)]
    assert costs == [Decimal("0.0000001"), Decimal("0.0000002"), Decimal("0.0000004"), Decimal("0.0000008")]
    assert charge(listed, Usage(input_tokens=300_000, output_tokens=1)).output == Decimal("0.000008")


def test_older_max_tokens_bounds_the_answer_and_of_an_embedder_the_prompt(found: LiteLLMPrices) -> None:
    assert taken(found, "osprey-legacy").max_output_tokens == 4096
    embedder = taken(found, "kestrel-embed")
    assert (embedder.max_input_tokens, embedder.max_output_tokens) == (8192, None)
    assert one(max_tokens=5, max_output_tokens=7).max_output_tokens == 7


def test_models_by_the_second_and_by_the_request_need_no_price_by_token(found: LiteLLMPrices) -> None:
    assert charge(taken(found, "gpu/heron-8b"), Usage(input_tokens=9), 2_000_000).total == Decimal("0.0014")
    assert charge(taken(found, "search-heron"), Usage()).total == Decimal("0.005")


def test_fields_without_a_counterpart_are_counted(found: LiteLLMPrices) -> None:
    assert found.left_out["input_cost_per_token_batches"] == 2
    assert found.left_out["search_context_cost_per_query"] == 1
    assert found.left_out["cache_creation_input_token_cost of 0"] == 1
    assert not any("rose" in name or "image" in name for name in found.left_out)  # of skipped models nothing counts


def test_rate_of_0_beside_others_is_no_free_token(found: LiteLLMPrices) -> None:
    priced = one(cache_creation_input_token_cost=0, cache_read_input_token_cost=0.0)
    assert priced.cache_creation_input_token_cost is None
    assert charge(priced, Usage(input_tokens=10, cached_input_tokens=5)).input == Decimal("0.00001")
    free = load_litellm(json.dumps({"m": {**CHAT, "cache_read_input_token_cost": 0}}), include_free=True)
    assert charge(free.prices[0], Usage(input_tokens=10, cached_input_tokens=5)).input == Decimal("0.000005")


def test_free_models_are_taken_when_asked_for() -> None:
    result = load_litellm(FIXTURE, include_free=True, models=["free-heron", "router"])
    assert [price.output_cost_per_token for price in result.prices] == [Decimal(0), Decimal(0)]


@pytest.mark.parametrize(
    ("value", "exact"),
    [
        ("1e-07", "0.0000001"),
        ("3.7500000000000005e-07", "0.000000375"),
        ("9.499999999999999e-07", "0.00000095"),
        ("2.9999990000000002e-06", "0.000002999999"),
        ('"0.0000025"', "0.0000025"),
        ('" 2.5e-6 "', "0.0000025"),
        ("1", "1"),
        ("1e-12", "0.000000000001"),
    ],
)
def test_numbers_keep_their_digits_and_lose_binary_noise(value: str, exact: str) -> None:
    text = json.dumps({"m": CHAT}).replace("1e-06", value)
    assert load_litellm(text).prices[0].input_cost_per_token == Decimal(exact)


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ("1.1428571428571428e-06", "price of more than 12 decimal places"),
        ("1e-13", "price of more than 12 decimal places"),
        ("4.9e-13", "price of more than 12 decimal places"),
        ("NaN", "price that is no amount"),
        ("Infinity", "price that is no amount"),
        ("true", "price that is no amount"),
        ('"free"', "price that is no amount"),
        ("[1e-6]", "price that is no amount"),
        ('{"usd": 1e-6}', "price that is no amount"),
        ("-1e-6", "price that is no amount"),
        ("1e+100", "price that is no amount"),
        ("2000000", "refused by our own rules"),
        ("null", "no price by token, second or request"),
    ],
)
def test_what_is_no_exact_amount_is_skipped(value: str, reason: str) -> None:
    text = json.dumps({"m": CHAT}).replace("1e-06", value)
    result = load_litellm(text)
    assert result.prices == ()
    assert result.skipped[0].reason == reason


@settings(**STEADY)
@given(st.decimals(min_value=Decimal("1e-12"), max_value=1, places=12))
def test_a_float_written_and_read_is_the_price_it_was(cost: Decimal) -> None:
    # What json.dump makes of the nearest double has up to 17 digits; the price has 12 places.
    assert one(input_cost_per_token=float(cost)).input_cost_per_token == cost


@settings(**STEADY)
@given(st.floats(min_value=1e-11, max_value=1))
def test_no_price_is_changed_by_more_than_the_noise(cost: float) -> None:
    result = load_litellm(json.dumps({"m": {**CHAT, "input_cost_per_token": cost}}))
    written = Fraction(repr(cost))
    for price in result.prices:
        assert price.input_cost_per_token is not None
        assert abs(Fraction(price.input_cost_per_token) - written) <= written / 10**9
    assert bool(result.prices) == (abs(Fraction(round(written * 10**12), 10**12) - written) <= written / 10**9)


@pytest.mark.parametrize(
    ("tiers", "detail"),
    [
        ([{"range": [0, 32000]}, {"range": [32000, 128000], "output_cost_per_reasoning_token": 1e-6}], None),
        ([{"range": [10, 32000]}], "a tier begins at 10 tokens"),
        ([{"range": [0, 32000]}, {"range": [128000, 256000]}], "a tier begins at 128000 tokens"),
        ([{"max_results_range": [0, 5], "input_cost_per_query": 1}], "not by the prompt's length"),
        ("by weekday", "not by the prompt's length"),
        ([{"range": [0, 32000], "output_cost_per_reasoning_token": 1e-6},
          {"range": [32000, 128000], "output_cost_per_reasoning_token": 2e-6}], "reasoning_token differs by tier"),
    ],
)  # fmt: skip
def test_tiers_that_have_no_fields_skip_the_model(tiers: Any, detail: str | None) -> None:
    if detail is None:
        assert one(tiered_pricing=tiers).output_cost_per_reasoning_token == Decimal("0.000001")
        return
    reason, said = refused(tiered_pricing=tiers)
    assert reason == "tiered_pricing that has no fields"
    assert detail in said


def test_limits_that_are_no_counts_are_left_out() -> None:
    values: list[Any] = ["8k", 0, -1, True, [], 1.5]
    for value in values:
        assert one(max_input_tokens=value).max_input_tokens is None
    assert one(max_input_tokens="8192").max_input_tokens == 8192
    assert one(max_input_tokens=8192.0).max_input_tokens == 8192


def test_only_models_that_are_asked_for_are_read() -> None:
    by_name = load_litellm(FIXTURE, models=["heron-*", "acme/*"])
    assert [price.model for price in by_name.prices] == [
        "heron-large", "acme/heron-large", "heron-large-2027", "acme/plover-1m",
    ]  # fmt: skip
    assert by_name.skipped == ()
    assert load_litellm(FIXTURE, models=["Heron-*"]).prices == ()
    by_provider = load_litellm(FIXTURE, providers=["kestrel"])
    assert {price.model for price in by_provider.prices} == {"kestrel-embed", "kestrel-rerank"}


def test_prices_can_be_dated_and_renamed() -> None:
    begins = datetime(2027, 1, 1, tzinfo=UTC)
    result = load_litellm(
        FIXTURE, models=["acme/heron-large"], effective_from=begins, rename=lambda name: name.partition("/")[2]
    )
    assert [price.key for price in result.prices] == ["heron-large@2027-01-01"]


def test_two_models_of_one_name_are_an_error() -> None:
    with pytest.raises(LiteLLMError, match="heron-large and acme/heron-large would both be named heron-large"):
        load_litellm(FIXTURE, models=["*heron-large"], rename=lambda name: name.rpartition("/")[2])


def test_model_that_stands_twice_with_two_prices_is_skipped() -> None:
    entry, other = json.dumps(CHAT), json.dumps({**CHAT, "input_cost_per_token": 3e-06})
    result = load_litellm(f'{{"m": {entry}, "m": {other}, "n": {entry}, "n": {entry}}}')
    assert [price.model for price in result.prices] == ["n"]
    assert result.skipped[0].reason == "stands in the file twice"


@pytest.mark.parametrize(
    ("text", "cause"),
    [
        ("<!DOCTYPE html>", "is no JSON: .* as a raw file"),
        ("", "is no JSON"),
        ('{"m": {"input_cost_per_token": 1e-6}', "is no JSON"),
        ("[1, 2]", "is not LiteLLM's price file"),
        ('{"message": "not found"}', "is not LiteLLM's price file"),
        ("{}", "is not LiteLLM's price file"),
        ("[" * 100_000, "is no JSON"),
        ('{"m": {"max_tokens": ' + "9" * 5000 + "}}", "is no JSON"),
    ],
)
def test_file_that_is_none_is_told_with_the_remedy(text: str, cause: str) -> None:
    with pytest.raises(LiteLLMError, match=cause):
        load_litellm(text)


def test_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(LiteLLMError, match=r"prices\.json cannot be read: No such file"):
        load_litellm(tmp_path / "prices.json")


def test_byte_order_mark_is_no_obstacle(tmp_path: Path) -> None:
    (tmp_path / "p.json").write_text(json.dumps({"m": CHAT}), "utf-8-sig")
    assert [price.model for price in load_litellm(tmp_path / "p.json").prices] == ["m"]
