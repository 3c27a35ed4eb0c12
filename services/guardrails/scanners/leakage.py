"""What an answer must not carry out: data in the address of a link or an image."""

from __future__ import annotations

import base64
import binascii
import html
import math
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

import re2

from services.guardrails.findings import Reference, Rule, Span
from services.guardrails.scanners.known_hosts import is_below, split_host

__all__ = ["ExfiltrationScanner", "addresses", "is_allowed"]

_ADDRESS = r"(?:[a-zA-Z][a-zA-Z0-9+.-]*:|//[\w.-]+\.)"
_LINK = re2.compile(
    # Markdown: [text](address), ![text](address "title"), [label]: address
    r"!?\[(?:[^\]\n]|\\\]){0,300}\]\(\s*(?:<(" + _ADDRESS + r"[^>\n]+)>|(" + _ADDRESS + r"[^\s)]+))"
    r"|(?m:^\s{0,3}\[[^\]\n]{1,100}\]:\s*(?:<(" + _ADDRESS + r"[^>\n]+)>|(" + _ADDRESS + r"\S+)))"
    # HTML attributes, and CSS
    r"|(?i:<[a-z][a-z0-9]*\b[^>]*?[\s\"'/](?:src|srcset|href|xlink:href|action|formaction|data|poster|background|ping|cite|content|style)"
    r"\s*=\s*(?:\"[^\"]*?(" + _ADDRESS + r"[^\"]+)\"|'[^']*?(" + _ADDRESS + r"[^']+)'|(" + _ADDRESS + r"[^\s>]+)))"
    r"|(?i:\b(?:url|image-set)\(\s*[\"']?(" + _ADDRESS + r"[^\s)\"']+))|(?i:@import\s+[\"'](" + _ADDRESS + r"[^\"']+))"
    r"|(\b(?:https?|ftp|wss?)://[^\s<>\"'`)\]}]+|\bmailto:[^\s<>\"'`)\]}]+)"
)
# Fetched or followed without a click; the others wait for one.
_WAITS = re.compile(r"<\s*(?:a|area|blockquote|q|del|ins|form|button|input)\b", re.I)
_PING = re.compile(r"\bping\s*=\s*[\"']?[^\"'>]*$", re.I)
_IMAGE_LABEL = re.compile(r"!\[([^\]\n]{0,100})\](?:\[([^\]\n]{0,100})\])?(?!\()")
_LABEL = re.compile(r"\s{0,3}\[([^\]\n]{1,100})\]:")
_FENCED = re.compile(r"```.*?(?:```|\Z)|`[^`\n]+`", re.S)
_TOKEN = re.compile(r"[^\W_]+")
_RUN = re.compile(r"[A-Za-z0-9+/=_-]{24,}")
_MAIL = re.compile(r"[\w.+-]{2,64}@[\w-]+\.[\w.-]+")
_DIGITS = re.compile(r"(?:\d[ .-]?){6,}")
_WEB = frozenset({"http", "https", "ftp", "ws", "wss", ""})
LONG_DATA = 64
"""Characters of a query from which an image can carry a conversation away."""
LONG_VALUE = 96
"""Characters of one value of a link's query from which it does: campaign tags are many, but short."""
LONG_LABEL = 40
"""Characters of one label of a host name from which it is data: names that people read are shorter."""
IN_CODE = 0.55
"""What is left of a score inside a code block: nothing there is fetched until somebody runs it."""
MAX_KNOWN = 20_000
"""Characters of a conversation whose words are looked for in addresses."""


class ExfiltrationScanner:
    """Finds links and images whose address could carry data to a host that the policy does not allow: in a query, path,
    fragment or sub-domain, plain or encoded, behind a redirector, in Markdown, HTML or CSS.

    An image is fetched without a click, so it scores higher than a link; an address that the prompt or the passages
    already hold, or on an allowed host, scores 0. Allowed hosts cover their sub-domains; one that redirects is judged by
    where it leads.
    """

    name = "exfiltration"
    version = "2"
    default_threshold = 0.5

    def __init__(self) -> None:
        split_host("example.com")  # reads the suffix list now, not within the first event's time

    def scan(self, text: str, rule: Rule, reference: Reference) -> list[Span]:
        if ":" not in text and "//" not in text:
            return []
        found = []
        known: _Known | None = None
        code: list[tuple[int, int]] | None = None
        images = _image_labels(text) if "![" in text else frozenset()
        for number, (start, end, url, automatic) in enumerate(_links(text, images)):
            if number % 64 == 0:
                reference.checkpoint()
            target = _target(url, rule.allow)
            if url in reference.urls or target is None:
                continue
            if known is None:
                known = _known(reference.prompt[-MAX_KNOWN:], reference.question)
                code = [match.span() for match in _FENCED.finditer(text)] if "`" in text else []
            score = _score(target, automatic, known)
            if score and code and any(first <= start < last for first, last in code):
                score *= IN_CODE
            if score:
                found.append(Span("MARKDOWN_IMAGE" if automatic else "LINK", start, end, round(score, 4)))
        return found


def addresses(text: str) -> frozenset[str]:
    """The addresses a text holds, as the scanner sees them."""
    if "//" not in text and "mailto:" not in text:
        return frozenset()
    return frozenset(url for _, _, url, _ in _links(text, frozenset()))


def is_allowed(url: str, hosts: frozenset[str]) -> bool:
    """Whether the address lies on one of the hosts or below it; a malformed address does not."""
    try:
        host = (urlsplit(url).hostname or "").lower()
    except ValueError:
        return False
    return bool(host) and is_below(host, hosts)


def _links(text: str, images: frozenset[str]) -> Iterator[tuple[int, int, str, bool]]:
    """(start, end, address, whether it is fetched without a click) of every link."""
    for match in _LINK.finditer(text):
        index = match.lastindex or 0
        written = match.group(index)
        whole = match.group()
        automatic = whole.startswith("!") or whole[:3].lower() in ("url", "@im", "ima")
        if whole.startswith("<"):
            automatic = _WAITS.match(whole) is None or _PING.search(whole[: -len(written)]) is not None
        elif label := _LABEL.match(whole):
            automatic = label.group(1).strip().lower() in images
        url = html.unescape(written).rstrip(".,;:!?")
        # A set of sources gives the width behind the address.
        yield match.start(), match.end(), url.partition(" ")[0] if whole.startswith("<") else url, automatic


def _image_labels(text: str) -> frozenset[str]:
    """Labels of the definitions that images take their address from."""
    return frozenset((match.group(2) or match.group(1)).strip().lower() for match in _IMAGE_LABEL.finditer(text))


def _target(url: str, allow: frozenset[str]) -> str | None:
    """The address to judge: where a redirector leads, else itself; None where the policy allows it."""
    inner = _redirected(url)
    if inner is not None and not (allow and is_allowed(inner, allow)):
        return inner if is_allowed(url, allow) or _is_bare(url, inner) else url
    return None if is_allowed(url, allow) else url


def _redirected(url: str) -> str | None:
    """The address that another one holds as a value, a path or a fragment; None where there is none."""
    place = url.lower().find("http", 8)
    if place < 0:
        return None
    try:
        parts = urlsplit(url)
        for _, value in parse_qsl(parts.query, max_num_fields=50):
            if value.lower().startswith(("http://", "https://", "//")):
                return value
    except ValueError:
        return None
    rest = unquote(url[place:])
    return rest if re.match(r"https?://", rest, re.I) else None


def _is_bare(url: str, inner: str) -> bool:
    """Whether an address holds little beside the one it leads to."""
    return len(unquote(url)) - len(inner) < LONG_DATA


@dataclass(frozen=True, slots=True)
class _Known:
    """What an address could carry out of a conversation: its longer words, by whether the user asked with them, and values
    that are telling by themselves.
    """

    words: frozenset[str]
    asked: frozenset[str]
    values: frozenset[str]


@lru_cache(maxsize=64)
def _known(prompt: str, question: str) -> _Known:
    words = {word for word in _TOKEN.findall(prompt.lower()) if len(word) >= 6}
    asked = {word for word in _TOKEN.findall(question.lower()) if len(word) >= 6} & words
    values = {mail.lower() for mail in _MAIL.findall(prompt)}
    values |= {re.sub(r"\D", "", match) for match in _DIGITS.findall(prompt)}
    values |= {word for word in words if len(word) >= 8 and any(map(str.isdigit, word)) and any(map(str.isalpha, word))}
    return _Known(frozenset(words - asked), frozenset(asked), frozenset(values))


def _score(url: str, automatic: bool, known: _Known) -> float:
    try:
        parts = urlsplit(url)
        host = (parts.hostname or "").lower()
    except ValueError:
        return 0.9
    scheme = parts.scheme.lower()
    if scheme in ("javascript", "vbscript"):
        return 1.0
    if scheme == "data":
        return 0.6 if automatic and not parts.path.lower().startswith("image/") else 0.2 if automatic else 0.9
    if scheme not in _WEB and scheme != "mailto":
        return 0.0
    data = unquote(f"{parts.query}&{parts.fragment}").strip("&")
    score = 0.4 if automatic and data else 0.1 if automatic else 0.0
    if parts.username or parts.password:
        score = max(score, 0.6)
    score = max(score, _of_data(parts, data, automatic), _of_path(parts, automatic), _of_host(host, automatic))
    return max(score, _of_shared(parts, host, data, automatic, known))


def _of_data(parts: SplitResult, data: str, automatic: bool) -> float:
    """By length, and by what looks encoded, in query and fragment."""
    longest = max(map(len, re.split(r"[&;=]", data)), default=0)
    if (
        longest >= LONG_VALUE
        or (automatic and len(parts.query) >= LONG_DATA)
        or _has_encoded_run(parts.query + parts.fragment)
    ):
        return 0.9 if automatic else 0.7
    return 0.0


def _of_path(parts: SplitResult, automatic: bool) -> float:
    """By pieces of the path that nobody would name a page."""
    for piece in unquote(parts.path).split("/"):
        stem = piece.rpartition(".")[0] or piece
        if (
            len(stem) >= 48
            and _bits(stem) > 3.5
            and (stem.count("-") + stem.count("_") + stem.count(" ")) * 12 < len(stem)
        ):
            return 0.8 if automatic else 0.5
        if _decoded(stem):
            return 0.85 if automatic else 0.6
    return 0.0


def _of_host(host: str, automatic: bool) -> float:
    """By labels that carry data: a name is looked up, hence told, even where nothing is fetched."""
    labels = split_host(host).subdomain.split(".") if "." in host else []
    if any(len(label) > LONG_LABEL for label in labels) or any(_decoded(label) for label in labels):
        return 0.8 if automatic else 0.7
    coded = [label for label in labels if len(label) >= 16 and "-" not in label and _bits(label) > 3.3]
    if coded and any(any(map(str.isdigit, label)) for label in coded):
        return 0.7 if automatic and len(coded) > 1 else 0.45
    return 0.6 if sum(map(len, labels)) > 80 else 0.0


def _of_shared(parts: SplitResult, host: str, data: str, automatic: bool, known: _Known) -> float:
    """By what the address has in common with the conversation, plain or encoded."""
    domain = split_host(host).top_domain_under_public_suffix or ".".join(host.split(".")[-2:])
    inside = unquote(f"{host.removesuffix(domain)} {parts.path if parts.scheme == 'mailto' else ''}?{data}").lower()
    runs = re.split(r"[^A-Za-z0-9+/_-]", f"{parts.query} {parts.fragment}")
    runs += re.split(r"[/.=]", parts.path)
    hidden = " ".join(filter(None, map(_decoded, runs)))
    carried = f"{inside} {hidden.lower()}"
    digits = re.sub(r"\D", "", carried)
    whole = f"{carried} {unquote(parts.path).lower()}"
    if any(value in whole or (value.isdigit() and value in digits) for value in known.values):
        return 0.9 if automatic else 0.75
    weight = sum(word in carried for word in known.words) + 0.5 * sum(word in carried for word in known.asked)
    if weight >= 2:
        return 0.9 if automatic else 0.7
    # A page is often named by the words of a question, seldom by those of the instructions or of the conversation before.
    path = unquote(parts.path).lower()
    shared = sum(word in path for word in known.words)
    return 0.75 if shared >= 4 and automatic else 0.55 if shared >= 5 else 0.0


def _decoded(run: str) -> str | None:
    """What a run of base64, base32 or hexadecimal holds, where that is text of some length; else None."""
    if len(run) < 16 or len(run) > 4096 or (run.isalpha() and (run.islower() or run.isupper()) and len(run) < 24):
        return None
    for decode in (_from_hex, _from_base64, _from_base32):
        try:
            plain = decode(run).decode("utf-8")
        except (ValueError, binascii.Error):
            continue
        letters = sum(char.isalnum() or char in " .,:@-_=" for char in plain)
        if len(plain) >= 8 and plain.isprintable() and letters >= 0.9 * len(plain) and len(set(plain)) > 4:
            return plain
    return None


def _from_hex(run: str) -> bytes:
    return bytes.fromhex(run)


def _from_base64(run: str) -> bytes:
    body = run.rstrip("=").translate({ord("-"): "+", ord("_"): "/"})
    if len(body) % 4 == 1:
        raise ValueError("no whole bytes")
    return base64.b64decode(body + "=" * (-len(body) % 4), validate=True)


def _from_base32(run: str) -> bytes:
    body = run.rstrip("=").upper()
    return base64.b32decode(body + "=" * (-len(body) % 8))


def _has_encoded_run(data: str) -> bool:
    """Whether a run of 24 or more signs looks like base64 or hexadecimal: letters of both cases or digits among letters."""
    for match in _RUN.finditer(data):
        run = match.group()
        if run.count("-") * 8 > len(run):
            continue  # words of a slug
        if any(map(str.isdigit, run)) and any(map(str.isalpha, run)) and _bits(run) > 3:
            return True
        if any(map(str.isupper, run[1:])) and any(map(str.islower, run)) and _bits(run) > 4:
            return True
    return False


def _bits(value: str) -> float:
    """Shannon entropy of the characters, bits per character; 0 for the empty text."""
    size = len(value)
    return -sum(n / size * math.log2(n / size) for n in Counter(value).values())
