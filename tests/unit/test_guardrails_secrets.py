"""Credentials of known shape are found in place; code and prose about credentials are not."""

from __future__ import annotations

import pytest

from services.guardrails.findings import Reference, Rule
from services.guardrails.scanners.secrets import SecretsScanner, entropy

RULE = Rule("block", SecretsScanner.default_threshold, fail_closed=True)
SCANNER = SecretsScanner()
# Put together here, so that no scanner of repositories takes this file for a leak.
HEX32 = "0123456789abcdef" * 2
B64 = "aB3dE5fG7hJ9kL1mN2pQ4rS6tU8vW0xY"


def found(text: str) -> list[tuple[str, str]]:
    return [
        (span.kind, text[span.start : span.end])
        for span in SCANNER.scan(text, RULE, Reference())
        if span.score >= RULE.threshold
    ]


@pytest.mark.parametrize(
    ("kind", "secret", "around"),
    [
        ("AWS_ACCESS_KEY", "AKIA" + "IOSFODNN7ABCDEFG", "key {} here"),
        ("AWS_SECRET_KEY", B64 + "zZ9/yY8+", "aws_secret_access_key = {}"),
        ("GITHUB_TOKEN", "ghp_" + B64 + "1234", "token: {}"),
        ("OPENAI_API_KEY", "sk-proj-" + B64, "use {} now"),
        ("ANTHROPIC_API_KEY", "sk-ant-api03-" + B64, "{}"),
        ("SLACK_TOKEN", "xoxb-" + "1234567890-abcdefghij", "{}"),
        ("GOOGLE_API_KEY", "AIza" + B64 + "abc", "{}"),
        ("STRIPE_KEY", "sk_live_" + B64[:24], "{}"),
        ("JWT", "eyJhbGciOiJIUzI1NiJ9." + "eyJzdWIiOiIxMjM0NTY3ODkwIn0." + B64, "cookie={}"),
        ("BEARER_TOKEN", B64, "Authorization: Bearer {}"),
        ("URL_CREDENTIALS", "s3cr3tPa55", "postgres://admin:{}@db.internal:5432/app"),
        ("DATABRICKS_TOKEN", "dapi" + HEX32, "{}"),
        ("CREDENTIAL", "hT7$kd92!xPq", 'password: "{}"'),
        ("CREDENTIAL", "Winter2024xyz", "my password is {}"),
        ("CREDENTIAL", B64, "API_KEY={}"),
    ],
)
def test_credentials_are_found_in_place(kind: str, secret: str, around: str) -> None:
    assert (kind, secret) in found(around.format(secret))


def test_a_private_key_is_found_whole() -> None:
    block = "-----BEGIN RSA PRIVATE KEY-----\n" + (B64 + "\n") * 12 + "-----END RSA PRIVATE KEY-----"
    [(kind, value)] = found(f"here it is:\n{block}\nthanks!")
    assert kind == "PRIVATE_KEY"
    assert B64 * 1 in value
    assert "END RSA PRIVATE KEY" in value


@pytest.mark.parametrize(
    "text",
    [
        "how do I reset my password in the settings?",
        'password = os.environ["DB_PASSWORD"]',
        "api_key: your-api-key-here-123",
        "token = tokenizer.encode(text)[0]",
        "the secret is out, everyone knows",
        "use sk-learn-like-transformers for this task",
        "postgres://user:${PASSWORD}@host/db",
        "the bearer of this letter may enter the building",
    ],
)
def test_talk_about_credentials_is_let_through(text: str) -> None:
    assert found(text) == []


def test_entropy_is_in_bits_per_character() -> None:
    assert entropy("aaaa") == 0
    assert entropy("abcd") == 2
    assert entropy("") == 0
