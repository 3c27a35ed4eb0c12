"""Addresses that are malformed, lead to where a policy does not, or deceive about where they lead."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator
from urllib.parse import SplitResult, unquote, urlsplit

from penstock.text.normalise import canonical, strip_invisible

from services.guardrails.findings import Reference, Rule, Span
from services.guardrails.scanners.addresses import ACTIVE_DATA, CODE_SCHEMES, SCHEME, addresses
from services.guardrails.scanners.known_hosts import SHORTENERS, brand_in, imitated, is_below, split_host

__all__ = ["UrlScanner"]

# What marks an address as a pattern to be filled in, or as cut short.
_TEMPLATE = re.compile(r"[{}<>$*]|\.\.\.|…|%[sd]\b|&(?:#|$)|\byour")
_CODE_AFTER_SCHEME = re.compile(
    r"[^:]+:\s*(?://)?[\w.$%]*[(=\[;{%\\]|[^:]+:(?:void|alert|eval|window|document|msgbox)\b", re.I
)
_NUMERIC_HOST = re.compile(r"(?:0x[0-9a-f]+|[0-9]+)(?:\.(?:0x[0-9a-f]+|[0-9]+)){0,3}", re.I)
_LABEL = re.compile(r"[^\W_](?:[\w-]{0,61}[^\W_])?|_[\w-]{1,62}")

_WEB = frozenset({"http", "https", "ftp", "ws", "wss"})
_LAUNCHERS = re.compile(r"ms-(?!(?:appx|settings|windows-store)\b)[a-z]+|search-ms|shell|jar|mhtml|mk")
# What servers and libraries take, and nobody is sent to: ways into an inner network or a file.
_INNER_SCHEMES = frozenset("gopher dict ldap ldaps jndi php phar expect netdoc smb tftp telnet".split())
_MISSPELT = re.compile(r"h{0,2}t{0,3}p{0,3}s{0,2}|hhtps?|htpts?|hptts?")
_LURES = frozenset(
    """account accounts alert auth authenticate bank billing bonus claim confirm confirmation gift giveaway help invoice
    login logon online payment pay prize recover recovery refund reset restore reward secure security service signin
    support suspended unlock update validate verification verify wallet webscr winner""".split()
)
_CHEAP_SUFFIXES = frozenset(
    "buzz cam cf cfd click country cyou fit ga gq icu kim link ml mov pw quest rest sbs su tk top work xyz zip".split()
)
_ODD_PORTS = frozenset({23, 445, 1337, 2222, 3389, 4444, 4445, 5555, 6666, 6667, 6969, 9001, 12345, 31337, 54321})
_DOCUMENTS = "pdf|docx?|xlsx?|pptx?|txt|rtf|jpe?g|png|gif|mp[34]|avi|csv|html?|zip"
_PROGRAMS = "exe|scr|bat|cmd|com|pif|vbs|vbe|js|jse|wsf|hta|ps1|msi|lnk|jar|apk|iso|img|dll"
_DOUBLE_EXTENSION = re.compile(rf"\.(?:{_DOCUMENTS})(?:%20|[\s_.-])*\.(?:{_PROGRAMS})$", re.I)
_SCRIPT_FILE = re.compile(r"\.(?:scr|pif|vbs|vbe|jse|wsf|hta|lnk)$", re.I)
_METADATA = frozenset({"169.254.169.254", "fd00:ec2::254", "100.100.100.200"})
LOCAL = 0.4
"""Score of an address of the reader's own machine or network: ordinary in instructions, of use to attackers."""
MANY_LABELS = 5
"""Labels before the registered name from which a host looks made to be cut off on the screen."""


class UrlScanner:
    """Finds addresses by kind: MALFORMED, DANGEROUS_SCHEME, IP_ADDRESS, PUNYCODE, HOMOGLYPH, CREDENTIALS, DENIED,
    NOT_ALLOWED, SHORTENER and SUSPICIOUS; one find for each kind that an address has.

    Hosts of the policy's `deny` score 1. Where the policy gives `allow`, those hosts and their sub-domains are never
    found and every other is NOT_ALLOWED. An ordinary address has no find at 0.5 or above; lower ones mark what is
    merely unusual (a private IP address, an international name in its ASCII form, an image in a data address).
    """

    name = "urls"
    version = "1"
    default_threshold = 0.5

    def __init__(self) -> None:
        split_host("example.com")  # reads the suffix list now, not within the first event's time

    def scan(self, text: str, rule: Rule, reference: Reference) -> list[Span]:
        if ":" not in text and "." not in text and "//" not in text:
            return []
        found: dict[tuple[int, int, str], float] = {}
        for number, (start, end, url) in enumerate(addresses(text)):
            if number % 64 == 0:
                reference.checkpoint()
            for kind, score in _judge(url, rule):
                key = (start, end, kind)
                found[key] = max(found.get(key, 0.0), score)
        return [Span(kind, start, end, score) for (start, end, kind), score in sorted(found.items())]


def _judge(url: str, rule: Rule) -> Iterator[tuple[str, float]]:
    """(kind, score) of everything that one address is found for."""
    if strip_invisible(url) != url:
        yield "SUSPICIOUS", 0.9
        url = strip_invisible(url)
    lowered = url.lower()
    written = SCHEME.match(lowered)
    scheme = written.group() if written else ""
    if scheme in CODE_SCHEMES:
        if _CODE_AFTER_SCHEME.match(url):
            yield "DANGEROUS_SCHEME", 1.0
        return
    if scheme == "data":
        yield "DANGEROUS_SCHEME", 0.9 if ACTIVE_DATA.match(url) else 0.2 if "image/" in lowered[:16] else 0.5
        return
    if _LAUNCHERS.fullmatch(scheme):
        yield "DANGEROUS_SCHEME", 0.9
        return
    if scheme in _INNER_SCHEMES and "//" in lowered:
        yield "DANGEROUS_SCHEME", 0.9 if "jndi" in scheme or scheme.startswith(("php", "expect", "phar")) else 0.7
        return
    if _MISSPELT.fullmatch(scheme) and scheme not in ("http", "https") and "//" in lowered:
        yield "MALFORMED", 0.6
        return
    if scheme == "file":
        if lowered.startswith("file:/"):
            yield "DANGEROUS_SCHEME", 0.7
        return
    if (scheme in ("http", "https") and not lowered.startswith(f"{scheme}://")) or lowered.startswith(
        ("http//", "https//", "http;//", "https;//")
    ):
        if _bare(lowered):
            yield "MALFORMED", 0.7
        return
    if lowered.startswith("\\\\"):
        yield "SUSPICIOUS", 0.6  # a share of another machine: opening it sends the reader's credentials
        return
    if not lowered.startswith(f"{scheme}://") or not scheme:
        if "\\" in lowered[: len(scheme) + 3]:
            return  # a label before an escaped sign
        url = "http://" + url
        scheme = "http"
    parts = _split(url)
    if parts is None or not parts.hostname:
        if not _TEMPLATE.search(lowered) and _authority(url):
            yield "MALFORMED", 0.7
        elif (
            scheme in _WEB and not _TEMPLATE.search(lowered) and lowered.startswith((f"{scheme}:///", f"{scheme}://?"))
        ):
            yield "MALFORMED", 0.6
        return
    yield from _of_host(parts, rule)


def _bare(address: str) -> bool:
    """Whether what follows a scheme without its `://` names a host."""
    return re.match(r"https?[:;\s/\\]*(?:www\.|[\w-]+\.)[a-z]{2,}", address) is not None


def _authority(url: str) -> str:
    return url.partition("://")[2].partition("/")[0]


def _split(url: str) -> SplitResult | None:
    try:
        parts = urlsplit(url)
        _ = parts.port, parts.hostname
    except ValueError:
        return None
    return parts


def _of_host(parts: SplitResult, rule: Rule) -> Iterator[tuple[str, float]]:
    host = (parts.hostname or "").rstrip(".")
    if rule.deny and is_below(host, rule.deny):
        yield "DENIED", 1.0
    if rule.allow:
        if is_below(host, rule.allow):
            return
        yield "NOT_ALLOWED", 0.8
    template = _TEMPLATE.search(parts.netloc) is not None
    user = unquote(parts.username or "")
    if user or parts.password:
        if re.fullmatch(r"(?:www\.)?[\w-]+(?:\.[\w-]+)*\.[a-z]{2,}", user, re.I) and parts.scheme in _WEB:
            yield "SUSPICIOUS", 0.95
        if parts.password:
            placeholder = template or (
                user.lower() in ("user", "username") and parts.password.lower().startswith("pass")
            )
            yield "CREDENTIALS", 0.3 if placeholder else 0.8
        elif parts.scheme in ("http", "https"):
            yield "CREDENTIALS", 0.5
    address = _address(host)
    if address is not None:
        yield from _of_address(address, host, parts)
        return
    if template:
        return
    if host == "localhost" or host.endswith(".localhost"):
        yield "IP_ADDRESS", LOCAL
        return
    if _NUMERIC_HOST.fullmatch(host):
        yield "MALFORMED", 0.7  # no IP address, and no name either
        return
    if not _is_well_formed(host):
        yield ("SUSPICIOUS", 0.8) if "%" in host else ("MALFORMED", 0.6)
        return
    yield from _of_name(host, parts)


def _address(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """The IP address that a browser would read a host as, in any notation; None for a name."""
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        pass
    if not _NUMERIC_HOST.fullmatch(host) or len(host) > 60:
        return None
    try:
        pieces = [
            int(piece, 16 if piece[:2].lower() == "0x" else 8 if piece[0] == "0" and len(piece) > 1 else 10)
            for piece in host.split(".")
        ]
        value = sum(piece << 8 * (3 - index) for index, piece in enumerate(pieces[:-1])) + pieces[-1]
        return ipaddress.IPv4Address(value)
    except ValueError:
        return None


def _of_address(
    address: ipaddress.IPv4Address | ipaddress.IPv6Address, host: str, parts: SplitResult
) -> Iterator[tuple[str, float]]:
    if str(address) in _METADATA:
        yield "IP_ADDRESS", 0.95
        return
    if ":" not in host and host != str(address):
        yield "IP_ADDRESS", 0.9
        return
    local = address.is_loopback or address.is_unspecified or _is_private(address)
    yield "IP_ADDRESS", LOCAL if local else 0.6
    if not local:
        yield from _of_path(parts, lure=False)


def _is_private(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
    return address.is_link_local or any(
        address in network for network in _PRIVATE if network.version == address.version
    )


# RFC 1918 and RFC 4193; the ranges for documentation are not among them: an answer sends people to what it writes.
_PRIVATE = tuple(map(ipaddress.ip_network, ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "fc00::/7")))


def _is_well_formed(host: str) -> bool:
    """RFC 1123 labels, letters of any script."""
    return len(host) <= 253 and all(_LABEL.fullmatch(label) for label in host.split("."))


def _of_name(host: str, parts: SplitResult) -> Iterator[tuple[str, float]]:
    shown = host
    if "xn--" in host:
        decoded = _decoded(host)
        if decoded is None:
            yield "MALFORMED", 0.6
            return
        yield "PUNYCODE", 0.4
        shown = decoded
    if not shown.isascii():
        score = _homoglyph(shown)
        if score:
            yield "HOMOGLYPH", score
            if shown != host:
                yield "PUNYCODE", score
        shown = _folded(shown)
    if shown in SHORTENERS or shown.removeprefix("www.") in SHORTENERS:
        yield "SHORTENER", 0.55
        return
    split = split_host(shown)
    if not split.suffix:
        split = split_host(f"{shown}.com") if "." in shown else split  # a suffix for private or reserved use
    words = [word for word in re.split(r"[-._]", f"{split.subdomain}.{split.domain}") if word]
    own = [word for word in re.split(r"[-_]", split.domain) if word]
    lures = sum(word in _LURES for word in words)
    cheap = split.suffix.rpartition(".")[2] in _CHEAP_SUFFIXES
    score = 0.3 if cheap else 0.0
    look = imitated(split.domain) or next(filter(None, map(imitated, own if len(own) > 1 else ())), None)
    if look:
        score = max(score, look[1])
    beyond = brand_in([word for word in words if word != split.domain] if len(own) == 1 else words)
    if brand_in([split.domain]) != beyond and beyond:
        if re.search(
            rf"(?:^|[.-]){re.escape(beyond)}[.-](?:com|net|org|co|gov|de|uk)(?:[.-]|$)",
            f"{split.subdomain}.{split.domain}",
        ):
            score = max(score, 0.9)
        elif lures or (cheap and beyond in own):
            score = max(score, 0.8)
        else:
            score = max(score, 0.4 if beyond in own and len(own) > 1 else 0.0)
    if cheap and (lures or brand_in([split.domain])):
        score = max(score, 0.7)
    if lures >= 2 and split.domain.count("-") >= 1:
        score = max(score, 0.6)
    if split.subdomain.count(".") + 1 >= MANY_LABELS:
        score = max(score, 0.5)
    if parts.port in _ODD_PORTS:
        score = max(score, 0.6)
    if score:
        yield "SUSPICIOUS", score
    yield from _of_path(parts, lure=cheap)


def _of_path(parts: SplitResult, lure: bool) -> Iterator[tuple[str, float]]:
    path = unquote(parts.path[-200:])
    if _DOUBLE_EXTENSION.search(path):
        yield "SUSPICIOUS", 0.85
    elif _SCRIPT_FILE.search(path) or (lure and any(word in _LURES for word in re.split(r"[^a-z]+", path.lower()))):
        yield "SUSPICIOUS", 0.6


def _decoded(host: str) -> str | None:
    """The Unicode form of a host with `xn--` labels; None where one is no punycode (RFC 3492)."""
    try:
        return ".".join(
            label[4:].encode("ascii").decode("punycode") if label.startswith("xn--") else label
            for label in host.split(".")
        )
    except (UnicodeError, ValueError, OverflowError, IndexError):
        return None


def _folded(host: str) -> str:
    # Look-alike letters are folded in a word that is foreign in a Latin text, so the host is read in one.
    return canonical(
        "the address of this link on the network reads as follows in latin letters and signs " * 3 + host
    ).rpartition(" ")[2]


def _homoglyph(host: str) -> float:
    """How surely a host beyond ASCII is written to be taken for another: by mixed scripts, or by reading like a brand."""
    best = 0.0
    for label in host.split("."):
        if label.isascii():
            continue
        folded = _folded(label)
        latin = any("a" <= char <= "z" for char in label)
        if folded.isascii() and folded != label:
            accents = latin and all(ord(char) < 0x250 for char in label)
            brand = brand_in([folded, *folded.split("-")])
            best = max(best, 0.95 if brand else 0.0 if accents else 0.9 if latin else 0.6)
        elif latin and any("\u0370" <= char <= "\u052f" for char in label):
            best = max(best, 0.9)
    return best
