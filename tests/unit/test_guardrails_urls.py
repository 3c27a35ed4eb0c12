"""Addresses: what is found for which reason, and what is ordinary."""

from __future__ import annotations

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.guardrails.findings import Reference, Rule
from services.guardrails.scanners.known_hosts import imitated, is_below
from services.guardrails.scanners.urls import UrlScanner

SCANNER = UrlScanner()


def found(text: str, **options: object) -> dict[tuple[str, str], float]:
    """Scores of the finds that count by default, by address and kind."""
    rule = Rule("block", 0.5, fail_closed=True, **options)  # type: ignore[arg-type]
    spans = SCANNER.scan(text, rule, Reference())
    return {(text[s.start : s.end], s.kind): s.score for s in spans if s.score >= SCANNER.default_threshold}


@pytest.mark.parametrize(
    "text",
    [
        "https://docs.python.org/3/library/re.html#re.compile",
        "http://localhost:8080/health http://127.0.0.1:8000 http://192.168.1.10/admin http://[::1]/",
        "[docs](https://example.com/a_(b)) and (see https://en.wikipedia.org/wiki/Python_(language)).",
        "git clone ssh://git@github.com/org/repo.git or git@github.com:org/repo.git",
        "postgresql://user:password@localhost:5432/db redis://redis:6379/0 kafka:9092 s3://bucket/key",
        "https://api.{region}.example.com/v1 https://<your-domain>/x https://... http://$HOST:9092",
        "javascript: the good parts; JavaScript:The Definitive Guide; data: the new oil; file: README.md",
        "main.py, index.html, std::vector, node.js, 1.2.3.4, 10:30, ratio 3:1, DAN:\\ hello",
        "mail ann@example.com or visit example.com, e.g. example.org/downloads.",
        "https://münchen.de https://пример.рф/путь https://例え.jp",
        "https://www.amazon.co.uk/dp/1 https://accounts.google.com/signin https://login.microsoftonline.com",
        "https://www.google-analytics.com https://apple.stackexchange.com/q https://commons.wikimedia.org/wiki/A:B",
        "https://web.archive.org/web/2020/https://example.com/",
        "https://d111111abcdef8.cloudfront.net/app.min.js https://example.com/file.tar.gz https://example.com/setup.exe",
        '<img src="data:image/png;base64,iVBORw0KGgo=">',
    ],
)
def test_ordinary_addresses_are_clean(text: str) -> None:
    assert found(text) == {}


@pytest.mark.parametrize(
    ("text", "place", "kind"),
    [
        ("[x](javascript:alert(1))", "javascript:alert(1)", "DANGEROUS_SCHEME"),
        ('<a href="java&#x09;script:alert(1)">', "java&#x09;script:alert(1)", "DANGEROUS_SCHEME"),
        ("<a href=&#106;avascript:alert(1)>", "&#106;avascript:alert(1)", "DANGEROUS_SCHEME"),
        ("vbscript:msgbox(1)", "vbscript:msgbox(1)", "DANGEROUS_SCHEME"),
        ("data:text/html;base64,PHNjcmlwdD4=", "data:text/html;base64,PHNjcmlwdD4=", "DANGEROUS_SCHEME"),
        ("open file:///etc/passwd now", "file:///etc/passwd", "DANGEROUS_SCHEME"),
        ("(http://93.184.216.34/login)", "http://93.184.216.34/login", "IP_ADDRESS"),
        ("http://3232235777/", "http://3232235777/", "IP_ADDRESS"),
        ("http://0x7f.1/", "http://0x7f.1/", "IP_ADDRESS"),
        ("http://169.254.169.254/latest/", "http://169.254.169.254/latest/", "IP_ADDRESS"),
        ("https://xn--pypal-4ve.com", "https://xn--pypal-4ve.com", "PUNYCODE"),
        ("https://xn--pypal-4ve.com", "https://xn--pypal-4ve.com", "HOMOGLYPH"),
        ("https://pаypal.com", "https://pаypal.com", "HOMOGLYPH"),
        ("https://аррӏе.com", "https://аррӏе.com", "HOMOGLYPH"),
        ("https://admin:hunter2@db.example.com/", "https://admin:hunter2@db.example.com/", "CREDENTIALS"),
        ("https://paypal.com@evil.example/", "https://paypal.com@evil.example/", "SUSPICIOUS"),
        ("see bit.ly/3abc.", "bit.ly/3abc", "SHORTENER"),
        ("www.paypa1.com", "www.paypa1.com", "SUSPICIOUS"),
        ("https://rnicrosoft.com/login", "https://rnicrosoft.com/login", "SUSPICIOUS"),
        ("https://facebok.com", "https://facebok.com", "SUSPICIOUS"),
        ("https://paypal.com.secure-login.ru/", "https://paypal.com.secure-login.ru/", "SUSPICIOUS"),
        ("https://secure-paypal-login.com", "https://secure-paypal-login.com", "SUSPICIOUS"),
        ("http://host.example:4444/x", "http://host.example:4444/x", "SUSPICIOUS"),
        ("https://host.example/invoice.pdf.exe", "https://host.example/invoice.pdf.exe", "SUSPICIOUS"),
        ("https://a.b.c.d.e.f.example.com", "https://a.b.c.d.e.f.example.com", "SUSPICIOUS"),
        ("http:/example.com", "http:/example.com", "MALFORMED"),
        ("http://a..example.com", "http://a..example.com", "MALFORMED"),
        ("http://example.com:99999/", "http://example.com:99999/", "MALFORMED"),
        ("http://[::1/", "http://[::1/", "MALFORMED"),
        ("htps://example.com/a", "htps://example.com/a", "MALFORMED"),
        ("https;//example.com/a", "https;//example.com/a", "MALFORMED"),
        ("http://300.1.2.3/", "http://300.1.2.3/", "MALFORMED"),
        ("gopher://host.example:70/x", "gopher://host.example:70/x", "DANGEROUS_SCHEME"),
        ("${jndi:ldap://host.example/a}", "jndi:ldap://host.example/a", "DANGEROUS_SCHEME"),
        ("\\\\files.example.net\\share\\a.docx", "\\\\files.example.net\\share\\a.docx", "SUSPICIOUS"),
    ],
)
def test_addresses_that_deceive_or_do_harm(text: str, place: str, kind: str) -> None:
    assert (place, kind) in found(text)


def test_the_policys_hosts() -> None:
    text = "https://docs.example.org/a http://example.org.evil.test bad.example/x"
    assert found(text, deny=frozenset({"bad.example"})) == {("bad.example/x", "DENIED"): 1.0}
    allowed = found(text, allow=frozenset({"example.org"}))
    assert set(allowed) == {("http://example.org.evil.test", "NOT_ALLOWED"), ("bad.example/x", "NOT_ALLOWED")}
    assert is_below("a.b.example.org", frozenset({"*.example.org"}))


@pytest.mark.parametrize("label", ["google", "goggle", "apples", "stripes", "looking", "booking", "wikimedia", "micro"])
def test_words_and_other_brands_imitate_nobody(label: str) -> None:
    assert imitated(label) is None


PARTS = r"http:// https:\\ javascript: data: www. .com xn-- @ : / ? # [ ] ( ) %41 0x 999 paypal".split()


@settings(max_examples=300, deadline=None)
@given(
    st.lists(
        st.one_of(
            st.text(max_size=20),
            st.sampled_from(PARTS),
        ),
        max_size=12,
    ).map("".join)
)
def test_any_text_is_judged_within_bounds(text: str) -> None:
    rule = Rule("block", 0.5, fail_closed=True)
    spans = SCANNER.scan(text, rule, Reference())
    assert spans == SCANNER.scan(text, rule, Reference())
    for span in spans:
        assert 0 <= span.start < span.end <= len(text)
        assert 0 < span.score <= 1


@pytest.mark.parametrize(
    "unit", ["a.", "http://", "https://a.com ", "x.com/(", "](", "href=", "://:@", "xn--", "a-", "http://a.b@", "é."]
)
def test_time_is_linear(unit: str) -> None:
    def seconds(count: int) -> float:
        rule, text, best = Rule("block", 0.5, fail_closed=True), unit * count, float("inf")
        for _ in range(3):
            started = time.thread_time()
            SCANNER.scan(text, rule, Reference())
            best = min(best, time.thread_time() - started)
        return best

    assert seconds(16_000) < 10 * seconds(4_000) + 0.02
