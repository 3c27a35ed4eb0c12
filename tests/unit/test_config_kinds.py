"""The kinds of configuration: what each accepts, refuses and hashes to."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from penstock.config.canonical import canonical_json, content_hash
from penstock.config.kinds import (
    KINDS,
    Budget,
    Policy,
    Price,
    Prompt,
    Retrieval,
    Route,
    ScannerRule,
    Target,
    Team,
    VariableError,
)
from penstock.config.prices import TIERED, TIERS
from pydantic import BaseModel, ValidationError

EXTRACTIVE = {"backend": "extractive", "model": "penstock-extractive-1"}
OPENAI = {"backend": "openai", "model": "gpt-4o-mini"}
PRICE = {"model": "m", "input_cost_per_token": "1e-7", "output_cost_per_token": "2e-7"}
BUDGET = {"name": "daily", "limit": "0.10"}
PROMPT: dict[str, Any] = {
    "name": "greet",
    "template": [{"role": "system", "content": "Greet {{name}} in {{ language }}."}],
    "variables": {
        "name": {"description": "Whom.", "max_length": 10},
        "language": {"description": "How.", "required": False, "default": "English"},
    },
}


def models(model: type[BaseModel]) -> set[type[BaseModel]]:
    found = {model}
    for info in model.model_fields.values():
        stack: list[Any] = [info.annotation]
        while stack:
            annotation = stack.pop()
            if isinstance(annotation, type) and issubclass(annotation, BaseModel):
                found |= models(annotation)
            stack += getattr(annotation, "__args__", ())
    return found


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
def test_every_field_is_described_frozen_and_closed(kind: type[BaseModel]) -> None:
    for model in models(kind):
        assert model.model_config["frozen"]
        assert model.model_config["extra"] == "forbid"
        assert [name for name, info in model.model_fields.items() if not info.description] == []


@pytest.mark.parametrize(
    ("kind", "content", "cause"),
    [
        (Team, {"name": "a team"}, "letters, digits"),
        (Team, {"name": "a", "allowed_routes": []}, "allowed_routes: is empty"),
        (Team, {"name": "a", "allowed_routes": ["*", "default"]}, "allowed_routes: .*alone"),
        (Team, {"name": "a", "budgets": [{**BUDGET, "alerts": [0.8, 0.5]}]}, "alerts: must ascend"),
        (Team, {"name": "a", "budgets": [{**BUDGET, "alerts": [0.5, 0.5]}]}, "alerts: must ascend"),
        (Team, {"name": "a", "budgets": [{**BUDGET, "alerts": [0]}]}, "greater than 0"),
        (Team, {"name": "a", "budgets": [{**BUDGET, "limit": "-1"}]}, "greater than 0"),
        (Team, {"name": "a", "budgets": [{**BUDGET, "limit": "0"}]}, "greater than 0"),
        (Team, {"name": "a", "budgets": [{**BUDGET, "limit": "NaN"}]}, "finite"),
        (Team, {"name": "a", "budgets": [{**BUDGET, "limit": "9000001"}]}, "less than or equal to 9000000"),
        (Team, {"name": "a", "budgets": [{**BUDGET, "limit": "0.0000000000001"}]}, "13 decimal places"),
        (Team, {"name": "a", "budgets": [{**BUDGET, "window": "rolling"}]}, "hours: .*a rolling window needs it"),
        (Team, {"name": "a", "budgets": [{**BUDGET, "hours": 24}]}, "hours: belongs to a rolling window"),
        (Team, {"name": "a", "budgets": [{**BUDGET, "window": "rolling", "hours": 745}]}, "less than or equal to 744"),
        (Team, {"name": "a", "budgets": [{**BUDGET, "per": "tag"}]}, "tag: .*a budget per tag needs it"),
        (Team, {"name": "a", "budgets": [{**BUDGET, "tag": "feature"}]}, "tag: belongs to a budget per tag"),
        (Team, {"name": "a", "budgets": [{**BUDGET, "match": ["ada"]}]}, "match: .*whole team has none"),
        (Team, {"name": "a", "budgets": [BUDGET, {**BUDGET, "limit": 2}]}, "budgets.1.name: 'daily' is taken"),
        (Team, {"name": "a", "budgets": [{**BUDGET, "mode": "warn"}]}, "'hard' or 'soft'"),
        (Team, {"name": "a", "toxicity_alert": 1.01}, "less than or equal to 1"),
        (Team, {"name": "a", "requests_per_minute": 0}, "greater than or equal to 1"),
        (Team, {"name": "a", "budget": 1}, "not permitted"),
        (Route, {"name": "r", "targets": []}, "at least 1 item"),
        (Route, {"name": "r", "targets": [{**OPENAI, "weight": 0}]}, "all have weight 0"),
        (Route, {"name": "r", "targets": [{**OPENAI, "model": " "}]}, "not empty, no spaces"),
        (Route, {"name": "r", "targets": [{**OPENAI, "base_url": "localhost:8000"}]}, "is no address"),
        (Route, {"name": "r", "targets": [{**OPENAI, "base_url": "http://me:secret@host/v1"}]}, "holds credentials"),
        (Route, {"name": "r", "targets": [{**EXTRACTIVE, "base_url": "http://host/v1"}]}, "inside inference"),
        (Route, {"name": "r", "targets": [{**OPENAI, "backend": "magic"}]}, "'extractive', 'openai' or 'vllm'"),
        (Route, {"name": "r", "targets": [OPENAI], "retrieval": {"score_floor": 1.2}}, "less than or equal to 1"),
        (Route, {"name": "r", "targets": [OPENAI], "deadline_s": 0}, "greater than 0"),
        (Route, {"name": "r", "targets": [OPENAI], "sampling": {"temperature": -1}}, "greater than or equal to 0"),
        (Policy, {"name": "p", "input": {"injektion": {"action": "block"}}}, "input.injektion: no such scanner"),
        (Policy, {"name": "p", "input": {"injection": {"action": "mask"}}}, "nothing can be masked"),
        (Policy, {"name": "p", "input": {"system_prompt_leak": {"action": "block"}}}, "looks at output: it belongs there"),
        (Policy, {"name": "p", "input": {"pii": {"action": "mask", "threshold": 2}}}, "less than or equal to 1"),
        (Policy, {"name": "p", "input": {"regex": {"action": "block"}}}, "needs patterns"),
        (Policy, {"name": "p", "input": {"banned_words": {"action": "block"}}}, "needs words"),
        (Policy, {"name": "p", "input": {"pii": {"action": "mask", "patterns": ["x"]}}}, "it belongs to format, regex"),
        (Policy, {"name": "p", "input": {"regex": {"action": "block", "patterns": ["(?=x)"]}}}, "no RE2 expression"),
        (Policy, {"name": "p", "input": {"regex": {"action": "block", "patterns": ["a*"]}}}, "match everything"),
        (Policy, {"name": "p", "input": {"banned_words": {"action": "block", "words": [" "]}}}, "match everything"),
        (Policy, {"name": "p", "input": {"pii": {"action": "remove"}}}, "'flag', 'pseudonymise', 'hash', 'mask'"),
        (Policy, {"name": "p", "shadows": "p"}, "a name of its own"),
        (Policy, {"name": "p", "input": {"mine": {"action": "flag", "scanner": "pij"}}}, "no such scanner as 'pij'"),
        (Policy, {"name": "p", "output": {"pii": {"action": "pseudonymise"}}}, "use mask or hash here"),
        (Policy, {"name": "p", "input": {"pii": {"action": "ask_again"}}}, "only an answer can be asked for again"),
        (Policy, {"name": "p", "documents": {"pii": {"action": "review"}}}, "not held for review"),
        (Policy, {"name": "p", "output": {"format": {"action": "block"}}}, "needs json_schema or patterns"),
        (Policy, {"name": "p", "output": {"format": {"action": "block", "json_schema": {"type": 7}}}}, "cannot be used"),
        (Policy, {"name": "p", "input": {"language": {"action": "block"}}}, "needs languages"),
        (Policy, {"name": "p", "input": {"pii": {"action": "mask", "time_budget_ms": 0}}}, "greater than 0"),
        (Prompt, {**PROMPT, "template": []}, "at least 1 item"),
        (Prompt, {**PROMPT, "variables": {}}, "uses language, name, which variables does not declare"),
        (Prompt, {**PROMPT, "template": [{"role": "user", "content": "{{name}}"}]}, "language: is declared and not used"),
        (Prompt, {**PROMPT, "template": [{"role": "user", "content": "{{na me}}"}]}, "is no placeholder"),
        (Prompt, {**PROMPT, "template": [{"role": "user", "content": "{{name"}]}, "is no placeholder"),
        (Prompt, {**PROMPT, "labels": ["0123456789abcdef"]}, "looks like a version's hash"),
        (Prompt, {**PROMPT, "variables": {**PROMPT["variables"], "name": {"description": "d", "default": "x"}}}, "required"),
        (Price, {**PRICE, "input_cost_per_token": "1e-13"}, "13 decimal places"),
        (Price, {**PRICE, "input_cost_per_token": "-1"}, "0 or more USD"),
        (Price, {**PRICE, "input_cost_per_token": "1000001"}, "less than or equal to 1000000"),
        (Price, {"model": "m"}, "input_cost_per_token: is missing: .*cost by second or request"),
        (Price, {"model": "m", "input_cost_per_token": "0"}, "output_cost_per_token: is missing: .*mode chat generates"),
        (Price, {"model": "m", "max_output_tokens": 5, "mode": "embedding"}, "input_cost_per_token: is missing"),
        (Price, {**PRICE, "input_cost_per_token_above_64k_tokens": "1"}, "not permitted"),
        (Price, {**PRICE, "model": ""}, "not empty"),
        (Price, {**PRICE, "effective_from": "2025-01-01T10:00:00"}, "timezone"),
        (Price, {**PRICE, "max_input_tokens": 0}, "greater than or equal to 1"),
    ],
)  # fmt: skip
def test_invalid_content_is_refused_with_its_cause(kind: type[BaseModel], content: dict[str, Any], cause: str) -> None:
    with pytest.raises(ValidationError, match=cause):
        kind.model_validate(content)


def test_defaults_are_those_of_the_contract() -> None:
    team = Team(name="acme")
    assert (team.allowed_routes, team.policy, team.default_route) == (("*",), "default", "default")
    assert team.budgets == ()
    budget = Budget.model_validate(BUDGET)
    assert (budget.per, budget.match, budget.window, budget.mode) == ("team", (), "day", "hard")
    assert budget.alerts == (0.5, 0.8, 1.0)
    assert Retrieval() == Retrieval(
        enabled=True, collection="default", top_k=4, score_floor=0.25, token_budget=1200, on_unavailable="continue"
    )
    target = Target.model_validate(OPENAI)
    assert (target.timeout_s, target.weight, target.base_url) == (60.0, 1, None)
    assert Policy(name="p").fail == "closed"


def test_team_allows_what_it_lists() -> None:
    assert Team(name="a").allows("anything")
    assert Team(name="a", allowed_routes=("default",)).allows("default")
    assert not Team(name="a", allowed_routes=("default",)).allows("passthrough")


def test_version_does_not_depend_on_how_a_value_is_written() -> None:
    written = [
        Price.model_validate({**PRICE, "input_cost_per_token": value})
        for value in ("1.5e-07", "0.00000015", "0.000000150", Decimal("15e-8"))
    ]
    assert len({price.version for price in written}) == 1
    assert json.loads(written[0].canonical)["input_cost_per_token"] == "0.00000015"
    assert Price.model_validate({**PRICE, "input_cost_per_token": "1.6e-07"}).version != written[0].version


def test_version_ignores_fields_at_their_default_and_labels() -> None:
    bare = Team(name="acme")
    assert bare.canonical == '{"name":"acme"}'
    assert Team(name="acme", policy="default").version == bare.version
    assert Team(name="acme", policy="strict").version != bare.version
    one = Prompt.model_validate(PROMPT)
    other = Prompt.model_validate({**PROMPT, "labels": ["canary"]})
    assert one.version == other.version
    assert one.key == f"greet@{one.version}"


@pytest.mark.parametrize(
    "entry",
    [
        Team.model_validate(
            {"name": "acme", "budgets": [BUDGET, {**BUDGET, "name": "m", "per": "model", "match": ["x"]}]}
        ),
        Route.model_validate({"name": "r", "targets": [OPENAI, {**EXTRACTIVE, "weight": 3}]}),
        Policy.model_validate({"name": "p", "input": {"regex": {"action": "block", "patterns": [r"\bX-\d+\b"]}}}),
        Prompt.model_validate(PROMPT),
        Price.model_validate({**PRICE, "effective_from": "2025-01-01"}),
    ],
    ids=lambda entry: entry.KIND,
)
def test_canonical_json_reads_back_to_the_same_entry_and_version(entry: Any) -> None:
    back = type(entry).model_validate_json(entry.canonical)
    assert back == entry
    assert back.version == entry.version == content_hash(entry.canonical)


@pytest.mark.parametrize(
    "content",
    [
        {"input_cost_per_second": "0.0007"},
        {"output_cost_per_second": "0.0007"},
        {"input_cost_per_request": "0.005"},
        {"mode": "embedding", "input_cost_per_token": "0"},
        {"mode": "rerank", "input_cost_per_token": "0"},
    ],
)
def test_price_needs_only_what_its_model_charges(content: dict[str, Any]) -> None:
    assert Price.model_validate({"model": "m", **content}).tiers[0].output == 0


def test_tiers_carry_on_what_they_do_not_change() -> None:
    price = Price.model_validate(
        {
            **PRICE,
            "input_cost_per_token_above_200k_tokens": "3e-7",
            "cache_read_input_token_cost_above_512k_tokens": "1e-8",
        }
    )
    assert [(r.above, r.input, r.cache_read, r.output) for r in price.tiers] == [
        (-1, 100_000, 100_000, 200_000), (200_000, 300_000, 300_000, 200_000), (512_000, 300_000, 10_000, 200_000),
    ]  # fmt: skip
    assert list(TIERS.values()) == sorted(TIERS.values())
    assert {f"{name}_above_{tier}_tokens" for name in TIERED for tier in TIERS} == {
        name for name in Price.model_fields if "_above_" in name
    }


def test_price_key_carries_its_date() -> None:
    def key(**extra: Any) -> str:
        return Price.model_validate({**PRICE, **extra}).key

    assert key() == "m"
    assert key(effective_from="2025-02-01") == "m@2025-02-01"
    assert key(effective_from="2025-02-01T00:00:00+01:00") == "m@2025-01-31T23:00:00+00:00"
    assert Price.model_validate({**PRICE, "effective_from": "2025-02-01"}).effective_from == datetime(
        2025, 2, 1, tzinfo=UTC
    )


def test_prompt_renders_with_values_and_defaults() -> None:
    prompt = Prompt.model_validate(PROMPT)
    assert prompt.render({"name": "Ada"}) == [("system", "Greet Ada in English.")]
    assert prompt.render({"name": "Ada", "language": "Latin"}) == [("system", "Greet Ada in Latin.")]


@given(st.text(max_size=10))
def test_prompt_values_are_never_expanded_again(value: str) -> None:
    prompt = Prompt.model_validate(PROMPT)
    assert prompt.render({"name": value}) == [("system", f"Greet {value} in English.")]
    assert prompt.render({"name": "{{name}}"}) == [("system", "Greet {{name}} in English.")]


@pytest.mark.parametrize(
    ("values", "cause"),
    [
        ({}, "needs the variable name: Whom"),
        ({"name": "a" * 11}, "has 11 characters; 10 are allowed"),
        ({"name": "a", "nmae": "b"}, "no variable nmae; it has name, language"),
    ],
)
def test_prompt_refuses_values_that_do_not_fit(values: dict[str, str], cause: str) -> None:
    with pytest.raises(VariableError, match=cause):
        Prompt.model_validate(PROMPT).render(values)


def test_a_rule_that_is_off_needs_nothing_and_one_in_shadow_needs_what_an_enforced_one_does() -> None:
    assert Policy(name="p", input={"regex": ScannerRule(action="block", mode="off")})
    with pytest.raises(ValidationError, match="needs patterns"):
        Policy(name="p", input={"regex": ScannerRule(action="block", mode="shadow")})


def test_one_scanner_serves_rules_of_several_names() -> None:
    words = {name: ScannerRule(action="flag", scanner="banned_words", words=(name,)) for name in ("falcon", "heron")}
    assert Policy(name="p", input={**words, "token_limit": ScannerRule(action="block", limit=8000)})


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.text()
    | st.decimals(allow_nan=False, allow_infinity=False, places=12),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=10,
)


@given(st.dictionaries(st.text(), json_values))
def test_canonical_json_does_not_depend_on_the_order_of_keys(value: dict[str, Any]) -> None:
    backwards = dict(reversed(list(value.items())))
    assert canonical_json(value) == canonical_json(backwards)
    assert len(content_hash(canonical_json(value))) == 16
