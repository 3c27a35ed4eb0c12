"""Credentials of known shape are found in place; code and prose about credentials are not."""

from __future__ import annotations

import itertools
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from penstock.text.patterns import MAX_MATCHES

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
    ("body", "is_found"),
    [
        ("KJE4KNLAZTODOMY3", True),  # four letters of a random key, by chance
        ("FAKEKNECPJX2AAY7", True),
        ("QLW73AVXXXXYW5IL", True),
        ("YOURACCESSKEYXXX", False),
        ("XXXXXXXXXXXXXXXX", False),
        ("IOSFODNN7EXAMPLE", False),
    ],
)
def test_a_short_word_in_a_random_key_makes_no_example_of_it(body: str, is_found: bool) -> None:
    key = "AKIA" + body
    assert found(f"why is my key {key} refused?") == ([("AWS_ACCESS_KEY", key)] if is_found else [])


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
        ("GITHUB_TOKEN", "github_pat_" + B64[:22] + "_" + B64 + B64[:27], "token {} was used"),
        ("GITLAB_TOKEN", "glpat-" + B64[:20], "PRIVATE-TOKEN: {}"),
        ("GROQ_KEY", "gsk_" + B64 + B64[:20], "{}"),
        ("HUGGINGFACE_TOKEN", "hf_" + B64 + "ab", "login with {}"),
        ("SENDGRID_KEY", "SG." + B64[:22] + "." + B64 + B64[:11], "{}"),
        ("NPM_TOKEN", "npm_" + B64 + "abcd", "//registry/:_authToken={}"),
        ("SLACK_WEBHOOK", "hooks.slack.com/services/T0AAAA000/B0BBBB111/" + B64[:24], "post to https://{}"),
        ("DISCORD_WEBHOOK", "discord.com/api/webhooks/112233445566778899/" + B64 + B64 + "ab", "https://{}"),
        ("AZURE_STORAGE_KEY", B64 + B64 + B64[:22] + "==", "DefaultEndpointsProtocol=https;AccountKey={};"),
        ("NEWRELIC_KEY", "NRAK-" + "A1B2C3D4E5F6G7H8J9K0L1M2N3P", "{}"),
        ("AIRTABLE_TOKEN", "pat" + B64[:14] + "." + HEX32 * 2, "{}"),
        ("HUBSPOT_TOKEN", "pat-na1-12345678-90ab-cdef-1234-567890abcdef", "{}"),
        ("LANGFUSE_KEY", "sk-lf-12345678-90ab-cdef-1234-567890abcdef", "{}"),
        (
            "AGE_SECRET_KEY",
            "AGE-SECRET-KEY-1" + "QPZRY9X8GF2TVDW0S3JN54KHCE6MUA7L" + "QPZRY9X8GF2TVDW0S3JN54KHCE",
            "{}",
        ),
        ("SENTRY_DSN", "https://" + HEX32 + "@o123.ingest.sentry.io/456", "dsn={}"),
        ("BASIC_AUTH", "YWRtaW46aHVudGVyMg==", "Authorization: Basic {}"),
        ("BASIC_AUTH", "admin:hunter2!", "curl -u {} https://api.example.org"),
        ("URL_CREDENTIALS", "p4ssPhrase", "redis://:{}@cache:6379/0"),
        ("CREDENTIAL", HEX32, "twilio auth token {}"),
        ("CREDENTIAL", HEX32, "the account and the token {} of it"),
        ("CREDENTIAL", "s3cr3t-Va1ue", "deploy --password s3cr3t-Va1ue now"),
        ("CREDENTIAL", "Tr0ub4dor&3", "mein Passwort ist {}"),
        ("CREDENTIAL", "hT7$kd92!xPq", 'password: "{}"'),
        ("CREDENTIAL", "Winter2024xyz", "my password is {}"),
        ("CREDENTIAL", B64, "API_KEY={}"),
    ],
)
def test_credentials_are_found_in_place(kind: str, secret: str, around: str) -> None:
    assert (kind, secret) in found(around.replace("{}", secret))


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
        "key " + "AKIA" + "IOSFODNN7EXAMPLE" + " from the manual",
        "ghp_" + "x" * 36,
        "sk-" + "your-api-key-goes-here-1234",
        "commit 9fceb02d0ae598e95dc970b74767f19372d61af8, id 123e4567-e89b-12d3-a456-426614174000",
        "sha256: " + HEX32 * 2,
        "token_id: 123e4567-e89b-12d3-a456-426614174000",
        "API_KEY=${API_KEY} TOKEN=$TOKEN",
        "password: {{ vault_password }}",
        "secret = config.secret_key",
        "Basic instructions: read the manual first",
        "a -----BEGIN PRIVATE KEY----- line starts the file",
        "password must be changed every 90 days",
        "my password is forgotten",
        "curl -u user:password123example https://example.org",
        "the token is TokenType2",
    ],
)
def test_talk_about_credentials_is_let_through(text: str) -> None:
    assert found(text) == []


@settings(max_examples=200, deadline=None)
@given(
    st.one_of(
        st.text(max_size=200),
        st.lists(
            st.sampled_from(["password", ": ", "token=", "sk-", "AKIA", "eyJ", ".", B64, HEX32, "://u:", "@h", "\n",
                "é", "'", "Basic ",
                             "-----BEGIN PRIVATE KEY-----", "--token "]),
            max_size=20,
        ).map("".join),
    )
)  # fmt: skip
def test_spans_lie_inside_the_text_and_do_not_overlap(text: str) -> None:
    spans = SCANNER.scan(text, RULE, Reference())
    assert all(0 <= span.start < span.end <= len(text) and 0 <= span.score <= 1 for span in spans)
    assert all(first.end <= second.start for first, second in itertools.pairwise(spans))
    assert spans == SCANNER.scan(text, RULE, Reference())


@pytest.mark.parametrize("unit", ["pass:", "token is a1B2c3d4e5 ", "eyJ.", "sk-", "-----BEGIN PRIVATE KEY-----",
    "://a:", "basic aaaa ",
                                  "twilio key ", "curl -u a:bcdef ", "A" * 50, "--token "])  # fmt: skip
def test_hostile_repetition_costs_linear_time(unit: str) -> None:
    text = unit * (80_000 // len(unit))
    SCANNER.scan(text, RULE, Reference())
    times = []
    for part in (text[:20_000], text):
        runs = []
        for _ in range(3):
            started = time.thread_time()
            SCANNER.scan(part, RULE, Reference())
            runs.append(time.thread_time() - started)
        times.append(min(runs))
    assert times[1] < max(8 * times[0], 0.05)
    assert times[1] < 1.0


def test_more_finds_than_can_be_masked_are_a_failure_not_a_silence() -> None:
    with pytest.raises(OverflowError, match="split the text"):
        SCANNER.scan("hf_" * 1 + (B64 + " hf_") * (MAX_MATCHES + 1), RULE, Reference())


def test_entropy_is_in_bits_per_character() -> None:
    assert entropy("aaaa") == 0
    assert entropy("abcd") == 2
    assert entropy("") == 0
