"""Planted secrets, and everything that is printed searched for them."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from penstock.redaction import MASK, Redaction, is_credential, secrets_of
from penstock.settings import KafkaSettings, RedisSettings, ServiceSettings, SettingsError, load_settings
from pydantic import SecretStr

PROJECT = Path(__file__).resolve().parents[2]
SERVICES = sorted(path.parent.name for path in PROJECT.glob("services/*/__main__.py"))
PLANTED = "pl4nted/S3cret@of:the?test"
ENCODED = "pl4nted%2FS3cret%40of%3Athe%3Ftest"
PARTS = ("pl4nted", "S3cret@of", "of:the")
"""No part of it is printed either, as what says that an address cannot be read does."""


def settings_of(service: str) -> type[ServiceSettings]:
    settings: type[ServiceSettings] = importlib.import_module(f"services.{service}.settings").Settings
    return settings


def variables(settings: type[ServiceSettings]) -> Iterator[tuple[str, str, Any]]:
    """Field, environment variable and what the field holds."""
    for name, field in settings.model_fields.items():
        yield name, (field.alias or name).upper(), field.annotation


def is_secret(annotation: Any) -> bool:
    return annotation is SecretStr or SecretStr in getattr(annotation, "__args__", ())


def is_text(annotation: Any) -> bool:
    return annotation is str or str in getattr(annotation, "__args__", ())


def leaks(text: str) -> list[str]:
    return [part for part in (*PARTS, ENCODED) if part in text]


@pytest.fixture
def no_environment(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """No variable of this machine takes part."""
    for service in SERVICES:
        for _, variable, _ in variables(settings_of(service)):
            monkeypatch.delenv(variable, raising=False)
    return monkeypatch


@pytest.mark.parametrize("service", SERVICES)
def test_settings_are_logged_without_secrets(service: str, no_environment: pytest.MonkeyPatch) -> None:
    planted = 0
    for name, variable, annotation in variables(settings_of(service)):
        if is_secret(annotation):
            url = f"https://hooks.example.com/{PLANTED}" if name.endswith("_url") else PLANTED
            no_environment.setenv(variable, url)
            planted += name != "redis_password"
        elif name in ("redis_url", "inference_cache_url"):
            no_environment.setenv(variable, f"rediss://user:{ENCODED}@redis.example.com:6380/0")
            planted += 1
        elif name.endswith("_url") and is_text(annotation):
            no_environment.setenv(variable, f"https://user:{ENCODED}@example.com/path?api_key={ENCODED}")
            planted += 1
    no_environment.delenv("REDIS_PASSWORD", raising=False)
    settings = load_settings(settings_of(service))
    assert planted >= 3
    assert leaks(json.dumps(settings.redacted(), default=repr)) == []
    # What a person needs is left.
    assert settings.redacted()["redis_url"] == f"rediss://{MASK}@redis.example.com:6380/0"
    known = secrets_of(settings)
    assert {PLANTED, ENCODED} <= known
    assert leaks(Redaction(known).text(f"failed: {PLANTED} and {ENCODED} of {settings.redis_url}")) == []


@pytest.mark.parametrize("service", SERVICES)
def test_an_error_of_the_settings_repeats_no_secret(service: str, no_environment: pytest.MonkeyPatch) -> None:
    """Each variable that is text, a secret or JSON gets what makes it malformed where anything can."""
    told = 0
    for _, variable, annotation in variables(settings_of(service)):
        if not (
            is_secret(annotation) or is_text(annotation) or getattr(annotation, "__origin__", None) in (list, dict)
        ):
            continue
        for value in (f"redis://user:{PLANTED}@host:port", f'[{{"secret": "{PLANTED}"', f"-----{PLANTED}"):
            no_environment.setenv(variable, value)
            try:
                load_settings(settings_of(service))
            except SettingsError as error:
                told += 1
                assert leaks(str(error)) == [], variable
                assert error.__cause__ is None
            no_environment.delenv(variable)
    assert told >= 3


@pytest.mark.parametrize(
    ("settings", "given", "remedy"),
    [
        (
            KafkaSettings,
            {"KAFKA_SECURITY_PROTOCOL": "SASL_SSL", "KAFKA_SASL_PASSWORD": PLANTED},
            "KAFKA_SASL_USERNAME and",
        ),
        (KafkaSettings, {"KAFKA_SSL_CAFILE": "/nowhere/ca.pem"}, "KAFKA_SSL_CAFILE: there is no file"),
        (RedisSettings, {"REDIS_URL": f"redis://:{ENCODED}@h:1", "REDIS_PASSWORD": PLANTED}, "leave one of them out"),
        (RedisSettings, {"REDIS_URL": "redis://h:1", "REDIS_SSL_CAFILE": __file__}, "write rediss://"),
        (RedisSettings, {"REDIS_URL": f"redis://:{PLANTED}@h:1"}, "%2F %3A %40"),
        (RedisSettings, {"REDIS_URL": "http://h:1"}, "REDIS_URL: not redis://"),
    ],
)
def test_what_cannot_work_is_told_with_the_remedy(
    settings: type[Any], given: dict[str, str], remedy: str, no_environment: pytest.MonkeyPatch
) -> None:
    for variable, value in given.items():
        no_environment.setenv(variable, value)
    with pytest.raises(SettingsError) as told:
        load_settings(settings)
    assert remedy in str(told.value)
    assert leaks(str(told.value)) == []


_PRINTS = """
import logging, sys
import structlog
from penstock.telemetry import configure_logging, get_logger
secret, *others = sys.argv[1:]
configure_logging("tests", "debug", secrets=[secret, *others])
log = get_logger("tests")
class Request:
    def __repr__(self):
        return f"Request(key={secret!r})"
log.info("by name", headers={"Authorization": "short", "x-api-key": "short", "accept": "kept"}, smtp_password="short")
log.info("in pairs", headers=[(b"cookie", b"short"), (b"host", b"kept")], deep={"a": [{"client_secret": "short"}]})
log.info("by form", header="Bearer a.B.0123456789", url="redis://user:sh0rt@host:1/0", key="psk_abc123_0123456789ab")
log.info(f"by value: {secret}", of=Request(), texts=[secret, {"k": secret.encode()}], key={secret: 1})
try:
    raise ValueError(f"could not use {secret}")
except ValueError:
    log.exception("failed", reason=f"{secret}!")
    logging.getLogger("another.library").exception("failed with %s for %r", secret, Request())
structlog.contextvars.bind_contextvars(token="short")
said = "Authorization: Basic c2hvcnQ6c2hvcnQ= from https://u:sh0rt@host/?token=sh0rt&page=2"
logging.getLogger("another.library").warning(said)
log.info("ordinary", tokens=12, input_tokens=3, key_id="psk-abc", basic="basic authentication", error="no token given")
for other in others:
    log.warning(f"another: {other}", other=[other, {"k": other}])
"""


def test_no_line_of_the_log_holds_a_secret() -> None:
    secrets = [PLANTED, 'with "quotes" and \\ and \n', "žluťoučký kůň 🐎"]
    ran = subprocess.run(
        [sys.executable, "-c", _PRINTS, *secrets], env={"PYTHONPATH": str(PROJECT / "shared"), "PYTHONUTF8": "1"},
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    lines = [json.loads(line) for line in ran.stdout.splitlines()]
    assert len(lines) == 10
    assert ran.stderr == ""
    written = [form for secret in secrets for form in (secret, json.dumps(secret)[1:-1], repr(secret)[1:-1])]
    assert [one for one in (*written, "short", "sh0rt", "0123456789", "c2hvcnQ") if one in ran.stdout] == []
    by_name, in_pairs, by_form = lines[:3]
    assert by_name["headers"] == {"Authorization": MASK, "x-api-key": MASK, "accept": "kept"}
    assert in_pairs["headers"] == [["cookie", MASK], ["host", "kept"]]
    # Which key it was may be known.
    assert (by_form["url"], by_form["key"]) == (f"redis://{MASK}@host:1/0", f"psk_abc123_{MASK}")
    assert "page=2" in lines[6]["event"]
    ordinary = {name: lines[7][name] for name in ("tokens", "input_tokens", "key_id", "basic", "error", "token")}
    assert ordinary == {
        "tokens": 12, "input_tokens": 3, "key_id": "psk-abc", "basic": "basic authentication",
        "error": "no token given", "token": MASK,
    }  # fmt: skip


@given(st.text(min_size=8, max_size=40), st.text(max_size=20), st.text(max_size=20))
def test_a_known_secret_is_found_wherever_it_stands(secret: str, before: str, after: str) -> None:
    redaction = Redaction([secret])
    for written in (f"{before}{secret}{after}", json.dumps({"k": before + secret + after})):
        for form in (secret, json.dumps(secret)[1:-1]):
            # It may stand in the text around the mask only where the text around it makes it anew.
            assert redaction.text(written).count(form) <= written.replace(form, MASK).count(form)


@pytest.mark.parametrize(
    ("name", "credential"),
    [
        ("Authorization", True), ("Proxy-Authorization", True), ("Set-Cookie", True), ("X-Api-Key", True),
        ("kafka_sasl_password", True), ("alert-webhook-secret", True), ("OPENAI_API_KEY", True), ("x-auth-token", True),
        ("traceparent", False), ("tokens", False), ("max_tokens", False), ("key_id", False), ("Idempotency-Key", False),
        ("secrets", False), ("api_key_env", False), ("input_tokens", False), ("password_policy", False),
    ],
)  # fmt: skip
def test_credentials_are_known_by_their_names(name: str, credential: bool) -> None:
    assert is_credential(name) is credential


def test_a_long_line_holds_nobody_up() -> None:
    line = "a." * 100_000
    began = time.monotonic()
    assert Redaction().text(f"{line} amqp+x://user:{'p' * 100_000}@host") == f"{line} amqp+x://{MASK}@host"
    assert time.monotonic() - began < 5
