"""Prices applied to calls: against a table worked out by hand, and against fractions computed another way."""

from __future__ import annotations

import decimal
from decimal import Decimal
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from penstock.config.prices import TIERED, TIERS, Price
from penstock.contracts.records import Usage
from penstock.money import Amounts, charge, worst_case

STEADY: dict[str, Any] = {"deadline": None, "derandomize": True}
PICO = Fraction(1, 10**12)
CHAT = {"input_cost_per_token": "0.000003", "output_cost_per_token": "0.000015"}
CACHED = {**CHAT, "cache_read_input_token_cost": "0.0000003", "cache_creation_input_token_cost": "0.00000375"}
TIER = {
    **CACHED,
    "input_cost_per_token_above_200k_tokens": "0.000006",
    "output_cost_per_token_above_200k_tokens": "0.0000225",
    "cache_read_input_token_cost_above_200k_tokens": "0.0000006",
}
GPU = {"input_cost_per_second": "0.000694444444"}  # 2.50 USD an hour


def price(**fields: Any) -> Price:
    return Price.model_validate({"model": "m", **fields})


@pytest.mark.parametrize(
    ("fields", "usage", "compute_us", "shares", "saved"),
    [
        pytest.param(CHAT, {}, 0, ("0", "0", "0"), "0", id="nothing"),
        pytest.param(CHAT, {"input_tokens": 1000, "output_tokens": 100}, 9, ("0.003", "0.0015", "0"), "0", id="plain"),
        pytest.param({**CHAT, "input_cost_per_token": "0.000000000001"}, {"input_tokens": 7}, 0,
                     ("0.000000000007", "0", "0"), "0", id="the smallest rate"),
        pytest.param(CHAT, {"input_tokens": 10, "cached_input_tokens": 4, "cache_write_input_tokens": 3,
                            "output_tokens": 10, "reasoning_tokens": 10}, 0, ("0.00003", "0.00015", "0"), "0",
                     id="no rates of their own"),
        pytest.param(CACHED, {"input_tokens": 1000, "cached_input_tokens": 600, "cache_write_input_tokens": 300}, 0,
                     ("0.001605", "0", "0"), "0.00162", id="cached and written"),  # 100*3e-6 + 600*3e-7 + 300*3.75e-6
        pytest.param(CACHED, {"input_tokens": 100, "cached_input_tokens": 600, "cache_write_input_tokens": 300}, 0,
                     ("0.00003", "0", "0"), "0.00027", id="more cached than there are"),
        pytest.param(CACHED, {"input_tokens": 100, "cached_input_tokens": 60, "cache_write_input_tokens": 300}, 0,
                     ("0.000168", "0", "0"), "0.000162", id="more written than there are"),
        pytest.param({**CHAT, "output_cost_per_reasoning_token": "0.00002"}, {"output_tokens": 10, "reasoning_tokens": 4},
                     0, ("0", "0.00017", "0"), "0", id="reasoning"),
        pytest.param({**CHAT, "output_cost_per_reasoning_token": "0"}, {"output_tokens": 10, "reasoning_tokens": 40}, 0,
                     ("0", "0", "0"), "0", id="more reasoning than there is"),
        pytest.param(TIER, {"input_tokens": 200_000, "output_tokens": 2}, 0, ("0.6", "0.00003", "0"), "0",
                     id="at the tier's length"),
        pytest.param(TIER, {"input_tokens": 200_001, "output_tokens": 2}, 0, ("1.200006", "0.000045", "0"), "0",
                     id="one above: the whole call"),
        pytest.param(TIER, {"input_tokens": 300_000, "cached_input_tokens": 200_000,
                            "cache_write_input_tokens": 100_000}, 0,
                     ("0.495", "0", "0"), "1.08", id="a tier without a rate for writing has the one below it"),
        pytest.param({**TIER, "input_cost_per_token_above_272k_tokens": "0.00001"},
                     {"input_tokens": 272_001, "cached_input_tokens": 1, "output_tokens": 1}, 0,
                     ("2.7200006", "0.0000225", "0"), "0.0000094", id="the second tier keeps what it does not change"),
        pytest.param({**CHAT, "input_cost_per_request": "0.005"}, {"input_tokens": 1}, 0, ("0.000003", "0", "0.005"), "0",
                     id="by request"),
        pytest.param(GPU, {"input_tokens": 5000, "output_tokens": 5000}, 2_500_000, ("0", "0", "0.00173611111"), "0",
                     id="by second"),
        pytest.param({**GPU, "output_cost_per_second": "0.000305555556"}, {}, 3_600_000_000, ("0", "0", "3.6"), "0",
                     id="an hour of both rates"),
        pytest.param({"input_cost_per_second": "0.000000000001"}, {}, 500_000, ("0", "0", "0"), "0",
                     id="half to even: down"),
        pytest.param({"input_cost_per_second": "0.000000000001"}, {}, 1_500_000, ("0", "0", "0.000000000002"), "0",
                     id="half to even: up"),
        pytest.param({"input_cost_per_second": "0.000000000001"}, {}, 500_001, ("0", "0", "0.000000000001"), "0",
                     id="above half"),
        pytest.param({"input_cost_per_token": "0.0000001", "mode": "embedding"}, {"input_tokens": 512}, 0,
                     ("0.0000512", "0", "0"), "0", id="embedding"),
        pytest.param({**CACHED, **GPU}, {"input_tokens": -5, "output_tokens": -5, "cached_input_tokens": -1,
                                         "cache_write_input_tokens": -9, "reasoning_tokens": -9}, -7, ("0", "0", "0"), "0",
                     id="counts below zero lower no cost"),
        pytest.param({**CHAT, "cache_read_input_token_cost": "0.000004"}, {"input_tokens": 2, "cached_input_tokens": 1}, 0,
                     ("0.000007", "0", "0"), "0", id="a cache that is dearer saves nothing"),
    ],
)  # fmt: skip
def test_calls_cost_what_their_price_says(
    fields: dict[str, str], usage: dict[str, int], compute_us: int, shares: tuple[str, str, str], saved: str
) -> None:
    amounts = charge(price(**fields), Usage(**usage), compute_us)
    assert (amounts.input, amounts.output, amounts.compute) == tuple(map(Decimal, shares))
    assert amounts.prefix_cache_saved == Decimal(saved)
    assert amounts.total == sum(map(Decimal, shares))
    for amount in (*shares_of(amounts), amounts.total, amounts.prefix_cache_saved, amounts.input_rate):
        assert amount.as_tuple().exponent == -12


def shares_of(amounts: Amounts) -> tuple[Decimal, Decimal, Decimal]:
    return amounts.input, amounts.output, amounts.compute


# -- against fractions -----------------------------------------------------------------------------------------------

small_rates = st.integers(0, 50).map(lambda n: Decimal(n).scaleb(-12))
rates = small_rates | st.decimals(min_value=0, max_value=Decimal("0.01"), places=12)
wide_rates = rates | st.decimals(min_value=0, max_value=10**6, places=12)
lengths = st.sampled_from([0, 1, 2, *(n + d for n in TIERS.values() for d in (-1, 0, 1))]) | st.integers(0, 2_000_000)


@st.composite
def prices(draw: st.DrawFn, rate: st.SearchStrategy[Decimal] = rates) -> Price:
    own = st.none() | rate
    names = [f"{name}_above_{tier}_tokens" for name in TIERED for tier in TIERS]
    optional = [
        "cache_read_input_token_cost", "cache_creation_input_token_cost", "output_cost_per_reasoning_token",
        "input_cost_per_request", "input_cost_per_second", "output_cost_per_second", *draw(st.sets(st.sampled_from(names))),
    ]  # fmt: skip
    fields: dict[str, Any] = {name: draw(own) for name in optional}
    # A price file's own limits may be wrong in either direction: nothing may follow from them.
    fields |= {name: draw(st.none() | st.integers(1, 300_000)) for name in ("max_input_tokens", "max_output_tokens")}
    return price(input_cost_per_token=draw(rate), output_cost_per_token=draw(rate), **fields)


def oracle(priced: Price, usage: Usage, compute_us: int) -> tuple[Fraction, Fraction, Fraction]:
    """The shares of a call as fractions, token by token class, read from the fields by their LiteLLM names."""

    def cost(name: str, otherwise: Fraction) -> Fraction:
        found = getattr(priced, name)
        for tier, above in TIERS.items():
            if usage.input_tokens > above and (own := getattr(priced, f"{name}_above_{tier}_tokens")) is not None:
                found = own
        return otherwise if found is None else Fraction(found)

    plain, output = cost("input_cost_per_token", Fraction(0)), cost("output_cost_per_token", Fraction(0))
    cached = min(usage.cached_input_tokens, usage.input_tokens)
    written = min(usage.cache_write_input_tokens, usage.input_tokens - cached)
    thought = min(usage.reasoning_tokens, usage.output_tokens)
    reasoning = priced.output_cost_per_reasoning_token
    prompt = (
        (usage.input_tokens - cached - written) * plain
        + cached * cost("cache_read_input_token_cost", plain)
        + written * cost("cache_creation_input_token_cost", plain)
    )
    answer = (usage.output_tokens - thought) * output + thought * (output if reasoning is None else Fraction(reasoning))
    a_second = Fraction(priced.input_cost_per_second or 0) + Fraction(priced.output_cost_per_second or 0)
    timed = round(a_second * Fraction(compute_us, 10**6) / PICO) * PICO
    return prompt, answer, timed + Fraction(priced.input_cost_per_request or 0)


@st.composite
def usages(draw: st.DrawFn, most_input: int = 2_000_000, most_output: int = 200_000) -> Usage:
    """Any report of a backend, consistent or not."""
    return Usage(
        input_tokens=min(draw(lengths), most_input),
        output_tokens=draw(st.integers(0, most_output)),
        cached_input_tokens=draw(lengths),
        cache_write_input_tokens=draw(lengths),
        reasoning_tokens=draw(st.integers(0, 2 * most_output)),
    )


@settings(max_examples=400, **STEADY)
@given(prices(wide_rates), usages(), st.integers(0, 10**10))
def test_charge_equals_an_independent_computation(priced: Price, usage: Usage, compute_us: int) -> None:
    with decimal.localcontext(decimal.Context(prec=5)):  # a context of the process must change nothing
        amounts = charge(priced, usage, compute_us)
    shares = shares_of(amounts)
    assert tuple(map(Fraction, shares)) == oracle(priced, usage, compute_us)
    assert Fraction(amounts.total) == sum(map(Fraction, shares))
    assert all(share >= 0 and share.as_tuple().exponent == -12 for share in (*shares, amounts.total))


@settings(max_examples=1000, **STEADY)
@given(prices(), usages(), lengths, st.integers(0, 200_000), st.integers(0, 10**10), st.integers(0, 10**10))
@example(price(**TIER), Usage(input_tokens=200_001), 200_001, 0, 0, 0)
@example(price(**CHAT, input_cost_per_token_above_128k_tokens="0"), Usage(input_tokens=128_000), 128_001, 0, 0, 0)
def test_no_call_within_its_bounds_costs_more_than_the_worst_case(
    priced: Price, usage: Usage, room: int, more: int, compute_us: int, spare_us: int
) -> None:
    seconds = (compute_us + spare_us) / 1_000_000
    bound = worst_case(priced, usage.input_tokens + room, usage.output_tokens + more, seconds)
    assert charge(priced, usage, compute_us).total <= bound
    assert bound.as_tuple().exponent == -12


@settings(**STEADY)
@given(prices(small_rates), usages(), st.integers(0, 10**7))
def test_rounding_never_lifts_a_call_over_its_tightest_bound(priced: Price, usage: Usage, compute_us: int) -> None:
    bound = worst_case(priced, usage.input_tokens, usage.output_tokens, compute_us / 1_000_000)
    assert charge(priced, usage, compute_us).total <= bound


@settings(**STEADY)
@given(
    prices(), st.integers(0, 10**6), st.integers(0, 10**5), st.integers(0, 10**4), st.tuples(*[st.integers(0, 999)] * 3)
)
def test_wider_bounds_never_lower_the_worst_case(
    priced: Price, prompt: int, answer: int, seconds: int, more: tuple[int, int, int]
) -> None:
    narrow = worst_case(priced, prompt, answer, seconds)
    assert narrow <= worst_case(priced, prompt + more[0], answer + more[1], seconds + more[2])


def test_the_worst_case_of_a_plain_price_is_reached() -> None:
    priced = price(**CHAT, input_cost_per_request="0.01")
    usage = Usage(input_tokens=1234, output_tokens=56)
    assert worst_case(priced, 1234, 56, 30.0) == charge(priced, usage).total == Decimal("0.014542")


def test_the_worst_case_counts_the_dearest_class_of_every_token() -> None:
    assert worst_case(price(**CACHED), 1000, 0, 0) == Decimal("0.00375")
    assert worst_case(price(**CHAT, output_cost_per_reasoning_token="0.00002"), 0, 10, 0) == Decimal("0.0002")
    assert worst_case(price(**GPU), 10**6, 10**6, 2.5) == Decimal("0.00173611111")


def test_a_price_files_own_maxima_lower_no_bound() -> None:
    # The file says 1,000; the model takes 5,000: what was reserved must cover it.
    priced = price(**CHAT, max_input_tokens=1000, max_output_tokens=10)
    usage = Usage(input_tokens=5000, output_tokens=100)
    assert charge(priced, usage).total <= worst_case(priced, 5000, 100, 0)


@pytest.mark.parametrize("seconds", [float("inf"), float("nan")])
def test_a_call_without_an_end_has_no_worst_case(seconds: float) -> None:
    with pytest.raises(ValueError, match=r"inf|nan"):
        worst_case(price(**GPU), 1, 1, seconds)
