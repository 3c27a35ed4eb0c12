"""Addresses on networks: e-mail, URLs and bare domains, IP and MAC addresses."""

import ipaddress
import re
from collections.abc import Iterator

from tldextract import TLDExtract

from services.guardrails.findings import Span
from services.guardrails.scanners.pii.anchors import Anchor, before, context_words, fixed

URL_SCORE = 0.35
"""Below the default threshold: most addresses in prompts are public pages, and masking them breaks the question."""
SITE_SCORE = 0.4
"""The front page of a site that not everyone knows: whose it is may say who someone is."""
PERSONAL_URL_SCORE = 0.6

# A page that says itself, or whose text says, that it is someone's own.
_OWN_PAGE = context_words(
    "my website", "my site", "my blog", "my homepage", "my home page", "my page", "my profile", "my portfolio",
    "my domain", "my channel", "my web page", "website is", "his website", "her website", "their website", "shared *",
    "homepage is", "find me at", "find me on", "follow me at", "follow me on", "shared files with", "shared with you",
    "your website", "our website", "my link", "meine website", "mon site", "mi sitio",
)  # fmt: skip
_PROFILE = re.compile(
    r"(?i)(?:https?://)?(?:[a-z]{2,3}\.)?(?:linkedin\.com/in/|(?:facebook|instagram|tiktok|threads|x|twitter"
    r"|vk)\.(?:com|net)/@?"
    r"[\w.-]{3,}/?$|t\.me/|wa\.me/\d)"
)
_VERSION = re.compile(
    r"(?i)(?<![^\W\d_])(?:versions?|releases?|firmware|build|section|upgrade[sd]?)(?![^\W\d_])[^!?\n]*$|(?:\bv\.?"
    r"|§)\s*$"
)
# Suffixes that no attribute or method of common code is called by.
_SITE_SUFFIXES = frozenset("com net org biz edu eu de fr nl es ch uk se dk fi ca au jp cz".split())
_KNOWN_SITES = frozenset(
    "google youtube facebook wikipedia wikimedia github githubusercontent gitlab bitbucket stackoverflow "
    "stackexchange python pypi npmjs nodejs "
    "microsoft azure live office bing apple icloud amazon amazonaws aws openai anthropic huggingface reddit twitter "
    "x linkedin instagram "
    "whatsapp telegram tiktok pinterest tumblr medium wordpress blogger nytimes washingtonpost theguardian bbc cnn "
    "reuters bloomberg forbes "
    "yahoo duckduckgo mozilla apache docker kubernetes debian ubuntu redhat oracle mysql postgresql redis mongodb "
    "elastic cloudflare netflix "
    "spotify paypal ebay etsy airbnb booking uber imdb archive arxiv doi w3 ietf whatwg iana icann json schema "
    "rust-lang golang go java kotlinlang "
    "swift php ruby-lang rubyonrails djangoproject readthedocs kaggle coursera edx khanacademy mit harvard stanford "
    "nasa nih who un europa nature "
    "sciencemag springer ieee acm slack zoom dropbox notion trello atlassian salesforce adobe figma stripe shopify "
    "example test localhost invalid "
    "nist cdc irs usa gov weather craigslist quora".split()
)
# Country domains that are commoner as the ending of a file or of a name in code.
_FILE_ENDINGS = frozenset(
    "py rs sh md pl so cc ps pm mm as ai io ml mk tf st ms sc la ag vi is in it am at be do id me my no so to us hr "
    "app dev zip "
    "mov bat ink br cfd data map page java kt js ts".split()
)


class NetworkAddresses:
    """E-mail addresses count where their domain has a public suffix (the packaged snapshot of Mozilla's list)."""

    def __init__(self) -> None:
        # An empty list of addresses keeps tldextract off the network: its bundled snapshot is used.
        self._suffixes = TLDExtract(suffix_list_urls=(), cache_dir=None)
        self._suffixes("example.org")  # reads the snapshot now, not at the first message

    def anchors(self) -> tuple[Anchor, ...]:
        return (
            Anchor("email", r"[^\s@<>()\[\]\",;:]{1,64}@[^\s@<>()\[\]\",;:]{3,255}", self._email),
            Anchor("url", r"(?i)\b(?:https?://|ftp://|www\.)[^\s<>\"'`)\]}]{3,}", self._url),
            Anchor("domain", r"\b(?:[A-Za-z0-9][A-Za-z0-9-]{0,62}\.){1,4}[A-Za-z]{2,12}\b(?:/[^\s<>\"'`)\]}]*)?", self
                ._domain),
            Anchor("ipv4", r"(?:\d{1,3}\.){3}\d{1,3}(?:/\d{1,2}\b)?", _ip),
            Anchor("ipv6", r"[0-9A-Fa-f]{0,4}:(?:[0-9A-Fa-f]{0,4}:){1,6}(?:(?:\d{1,3}\.){3}\d{1,3}|[0-9A-Fa-f]{1,4})",
                _ip),
            Anchor(
                "mac",
                r"(?i)\b((?:[0-9A-F]{2}:){5}[0-9A-F]{2}|(?:[0-9A-F]{2}-){5}[0-9A-F]{2}"
                r"|(?:[0-9A-F]{4}\.){2}[0-9A-F]{4})\b",
                fixed("MAC_ADDRESS", 0.8),
            ),
        )  # fmt: skip

    def _email(self, text: str, start: int, end: int) -> Iterator[Span]:
        while end > start and not text[end - 1].isalnum():
            end -= 1
        while start < end and text[start] in ".'`*_-/=‘“":
            start += 1
        local, _, domain = text[start:end].rpartition("@")
        if local and "." in domain and self._suffixes(domain).suffix:
            yield Span("EMAIL_ADDRESS", start, end, 1.0)

    def _url(self, text: str, start: int, end: int) -> Iterator[Span]:
        while end > start and text[end - 1] in ".,;:!?":
            end -= 1
        score = _url_score(text, start, end)
        if score == URL_SCORE and self._is_own_site(text[start:end]):
            score = SITE_SCORE
        yield Span("URL", start, end, score)

    def _is_own_site(self, url: str) -> bool:
        """Whether it is the front page of a site that not everyone knows."""
        host, _, path = url.partition("://")[2].partition("/") if "://" in url else url.partition("/")
        parts = self._suffixes(host.lower())
        known = parts.domain in _KNOWN_SITES or any(char in host for char in "@:") or not parts.suffix
        return not path and not known and not host.startswith(("api.", "docs."))

    def _domain(self, text: str, start: int, end: int) -> Iterator[Span]:
        """A domain without a scheme: where its suffix is public, and no file or part of code is written so."""
        if start and (text[start - 1].isalnum() or text[start - 1] in "@/._-:=$"):
            return
        while end > start and text[end - 1] in ".,;:!?":
            end -= 1
        host = text[start:end].partition("/")[0]
        parts = self._suffixes(host.lower())
        if not parts.suffix or not parts.domain or text[end : end + 1] in ("(", "@", "="):
            return
        personal = _url_score(text, start, end)
        bare = parts.suffix in _FILE_ENDINGS and personal < PERSONAL_URL_SCORE
        if bare:
            return
        plain = host.islower() and ("." in parts.suffix or parts.suffix in _SITE_SUFFIXES)
        if personal == URL_SCORE and plain and self._is_own_site(text[start:end]):
            personal = SITE_SCORE
        yield Span("URL", start, end, personal)


def _url_score(text: str, start: int, end: int) -> float:
    lead = before(text, start, 40)
    if _OWN_PAGE.search(lead) or _PROFILE.match(text[start:end]):
        return PERSONAL_URL_SCORE
    return URL_SCORE


def _ip(text: str, start: int, end: int) -> Iterator[Span]:
    if (start and (text[start - 1].isalnum() or text[start - 1] in "._-")) or (end < len(text) and text[end].isalnum()):
        return
    if text[end : end + 1] == "." and text[end + 1 : end + 2].isdigit():
        return  # a longer dotted number
    value = text[start:end]
    try:
        address = ipaddress.ip_address(value.partition("/")[0])
    except ValueError:
        return
    if address.version == 6 and not re.search(r"[0-9a-fA-F]", value):
        return
    if _VERSION.search(before(text, start)):
        return
    shared = address.is_unspecified or address.is_loopback or "/" in value
    yield Span("IP_ADDRESS", start, end, 0.3 if shared else 0.8)
