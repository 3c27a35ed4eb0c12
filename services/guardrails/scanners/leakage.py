"""What an answer must not carry out: the system prompt, and data in the address of a link or an image."""

import math
import re
from collections import Counter
from urllib.parse import unquote, urlsplit

import re2

from services.guardrails.findings import Reference, Rule, Span

_TOKEN = re.compile(r"[^\W_]+")
ORDER = 5
"""Words in a row that count as quoted: shorter runs are common in any answer about the same matter."""
MIN_QUOTED = 8
"""Words of the answer that must stand in quoted runs: one shared phrase is no leak."""


class SystemPromptLeakScanner:
    """Finds stretches of the answer that quote the system prompt.

    The score is the share of the system prompt's word 5-grams that the answer repeats, or the share of the answer made
    of them where that is higher and the answer is not short; a quoted stretch of 25 words scores 1.
    """

    name = "system_prompt_leak"
    version = "1"
    default_threshold = 0.3

    def scan(self, text: str, rule: Rule, reference: Reference) -> list[Span]:
        if not reference.system_prompt or not text:
            return []
        secret = _TOKEN.findall(reference.system_prompt.lower())
        grams = {tuple(secret[i : i + ORDER]) for i in range(len(secret) - ORDER + 1)}
        if len(grams) < MIN_QUOTED - ORDER + 1:
            return []
        places = [(match.group(), match.start(), match.end()) for match in _TOKEN.finditer(text.lower())]
        words = [word for word, _, _ in places]
        hits = [i for i in range(len(words) - ORDER + 1) if tuple(words[i : i + ORDER]) in grams]
        if not hits:
            return []
        quoted = sorted({j for i in hits for j in range(i, i + ORDER)})
        if len(quoted) < MIN_QUOTED:
            return []
        repeated = len({tuple(words[i : i + ORDER]) for i in hits}) / len(grams)
        score = max(repeated, len(quoted) / len(words) if len(words) >= 2 * MIN_QUOTED else 0.0, len(quoted) / 25)
        # Lower-casing may change lengths in a few scripts; then the places are unknown and the find covers the text.
        if len(text.lower()) != len(text):
            return [Span("SYSTEM_PROMPT", 0, len(text), min(1.0, score))]
        spans = []
        first = previous = quoted[0]
        for j in [*quoted[1:], -1]:
            if j != previous + 1:
                spans.append(Span("SYSTEM_PROMPT", places[first][1], places[previous][2], min(1.0, score)))
                first = j
            previous = j
        return spans


_LINK = re2.compile(
    r"!?\[[^\]\n]{0,300}\]\(\s*<?([a-zA-Z][a-zA-Z0-9+.-]*:[^\s)>]+)"
    r"|(?i)<(?:img|a|iframe|script|link|source|video|audio|object|embed|form)\b[^>]*?(?:src|href|action|data)\s*=\s*[\"']?([a-zA-Z][a-zA-Z0-9+.-]*:[^\s\"'>]+)"
    r"|(?m)^\s{0,3}\[[^\]\n]{1,100}\]:\s*<?([a-zA-Z][a-zA-Z0-9+.-]*:[^\s>]+)"
    r"|\b(https?://[^\s<>\"'`)\]}]+)"
)
_RUN = re.compile(r"[A-Za-z0-9+/=_]{24,}")
LONG_DATA = 64
"""Characters of a query from which an image can carry a conversation away."""
LONG_VALUE = 96
"""Characters of one value of a link's query from which it does: campaign tags are many, but short."""


class ExfiltrationScanner:
    """Finds links and images whose address could carry data to a host that the policy does not allow.

    An image is fetched without a click, so it scores higher than a link; an address that the prompt or the passages
    already hold, or on an allowed host, scores 0. Allowed hosts cover their sub-domains.
    """

    name = "exfiltration"
    version = "1"
    default_threshold = 0.5

    def scan(self, text: str, rule: Rule, reference: Reference) -> list[Span]:
        if ":" not in text:
            return []
        found = []
        words: set[str] | None = None
        for match in _LINK.finditer(text):
            url = next(group for group in match.groups() if group is not None)
            whole = match.group()
            automatic = whole.startswith("!") or (whole[:1] == "<" and whole[:2].lower() != "<a")
            if url.rstrip(".,;:!?") in reference.urls or is_allowed(url, rule.allow):
                continue
            if words is None:
                words = {word for word in _TOKEN.findall(reference.prompt.lower()) if len(word) >= 6}
            score = _score(url, automatic, words)
            if score:
                kind = "MARKDOWN_IMAGE" if automatic else "LINK"
                found.append(Span(kind, match.start(), match.end(), score))
        return found


def is_allowed(url: str, hosts: frozenset[str]) -> bool:
    """Whether the address lies on one of the hosts or below it; a malformed address does not."""
    try:
        host = (urlsplit(url).hostname or "").lower()
    except ValueError:
        return False
    return any(host == allowed or host.endswith("." + allowed) for allowed in hosts)


def _score(url: str, automatic: bool, prompt_words: set[str]) -> float:
    try:
        parts = urlsplit(url)
    except ValueError:
        return 0.9
    if parts.scheme.lower() in ("javascript", "vbscript"):
        return 1.0
    if parts.scheme.lower() == "data":
        return 0.6 if automatic else 0.9
    if parts.scheme.lower() not in ("http", "https", "ftp", "ws", "wss"):
        return 0.0
    data = unquote(f"{parts.query}&{parts.fragment}").strip("&")
    longest = max(map(len, re.split(r"[&;=]", data)), default=0)
    carried = unquote(f"{parts.hostname or ''}{parts.path}?{data}").lower()
    score = 0.4 if automatic and data else 0.1 if automatic else 0.0
    if parts.username or parts.password:
        score = max(score, 0.6)
    if (
        longest >= LONG_VALUE
        or (automatic and len(parts.query) >= LONG_DATA)
        or _has_encoded_run(parts.query + parts.fragment)
    ):
        score = max(score, 0.9 if automatic else 0.7)
    if any(len(piece) >= 48 and _bits(piece) > 3.5 for piece in parts.path.split("/")):
        score = max(score, 0.8 if automatic else 0.5)
    # Words of the prompt inside the address are the plain form of exfiltration.
    shared = sum(word in carried for word in prompt_words)
    if data and shared >= 2:
        score = max(score, 0.9 if automatic else 0.7)
    if any(len(label) > 40 for label in (parts.hostname or "").split(".")):
        score = max(score, 0.7)
    return score


def _has_encoded_run(data: str) -> bool:
    """Whether a run of 24 or more signs looks like base64 or hexadecimal: letters of both cases or digits among letters."""
    for match in _RUN.finditer(data):
        run = match.group()
        if any(map(str.isdigit, run)) and any(map(str.isalpha, run)) and _bits(run) > 3:
            return True
        if any(map(str.isupper, run[1:])) and any(map(str.islower, run)) and _bits(run) > 4:
            return True
    return False


def _bits(value: str) -> float:
    size = len(value)
    return -sum(n / size * math.log2(n / size) for n in Counter(value).values())


def addresses(text: str) -> frozenset[str]:
    """The addresses a text holds, as the scanner sees them."""
    if "://" not in text:
        return frozenset()
    return frozenset(
        next(group for group in match.groups() if group is not None).rstrip(".,;:!?") for match in _LINK.finditer(text)
    )
