"""Names of OpenTelemetry's conventions, and what of a request becomes an attribute of its span."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from opentelemetry.semconv._incubating.attributes import gen_ai_attributes
from opentelemetry.semconv._incubating.metrics import gen_ai_metrics
from opentelemetry.semconv.attributes import error_attributes, server_attributes
from penstock.contracts.records import Context, Sampling, Usage
from penstock.telemetry import gen_ai, metrics

CONTEXT = Context(requested_at=datetime(2026, 1, 1, tzinfo=UTC), conversation_id="c-1", user_id="anna@example.org")


def test_names_are_those_that_the_conventions_know() -> None:
    known = {
        value
        for module in (gen_ai_attributes, gen_ai_metrics, error_attributes, server_attributes)
        for value in vars(module).values()
        if isinstance(value, str)
    }
    ours = {
        name: value
        for name, value in vars(gen_ai).items()
        if name.isupper() and isinstance(value, str) and "." in value and not name.startswith("_")
    }
    assert len(ours) > 25
    assert {name for name, value in ours.items() if value not in known} == set()


def test_metrics_have_the_names_that_the_exporter_to_prometheus_gives_them() -> None:
    assert metrics.TIME_TO_FIRST_TOKEN_SECONDS._name == "gen_ai_server_time_to_first_token_seconds"
    assert metrics.TOKEN_USAGE._name == "gen_ai_client_token_usage"
    assert metrics.OPERATION_SECONDS._labelnames == (
        "gen_ai_operation_name", "gen_ai_provider_name", "gen_ai_request_model", "error_type"
    )  # fmt: skip


def test_a_call_tells_what_was_asked_for_and_nothing_of_what_was_said() -> None:
    sampling = Sampling(temperature=0.0, stop=["my secret word"], n=2, max_completion_tokens=7, regex="[a-z]+")
    found = gen_ai.request_attributes(
        CONTEXT,
        sampling,
        backend="openai",
        model="m",
        base_url="https://user:password@models.example.org:8443/v1?key=x",
        stream=True,
    )
    assert found == {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "openai",
        "gen_ai.request.model": "m",
        "gen_ai.conversation.id": "c-1",
        "gen_ai.output.type": "text",
        "gen_ai.request.choice.count": 2,
        "gen_ai.request.max_tokens": 7,
        "gen_ai.request.stream": True,
        "gen_ai.request.temperature": 0.0,
        "server.address": "models.example.org",
        "server.port": 8443,
    }


@pytest.mark.parametrize("url", ["http://[nonsense", "http://h:notaport/v1"])
def test_an_address_that_is_none_gives_no_attribute(url: str) -> None:
    found = gen_ai.request_attributes(CONTEXT, Sampling(), backend="extractive", model="m", base_url=url)
    assert (found["gen_ai.provider.name"], "server.address" in found, "server.port" in found) == (
        "penstock",
        False,
        False,
    )


def test_an_answer_tells_tokens_that_were_used() -> None:
    usage = Usage(input_tokens=9, output_tokens=4, cached_input_tokens=3)
    found = gen_ai.response_attributes(model="m-1", finish_reasons=("stop", "length"), usage=usage, event_id="e")
    assert found == {
        "gen_ai.response.id": "e",
        "gen_ai.response.model": "m-1",
        "gen_ai.response.finish_reasons": ("stop", "length"),
        "gen_ai.usage.input_tokens": 9,
        "gen_ai.usage.output_tokens": 4,
        "gen_ai.usage.cache_read.input_tokens": 3,
    }


def test_a_reason_that_an_endpoint_made_up_is_no_label_of_its_own() -> None:
    assert [gen_ai.finish_reason(reason) for reason in ("length", "because-9f3a")] == ["length", "_OTHER"]
