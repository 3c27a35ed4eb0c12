"""Hosts that people trust, and ways to be mistaken for one."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache

from tldextract import TLDExtract
from tldextract.tldextract import ExtractResult

__all__ = ["SHORTENERS", "imitated", "is_below", "split_host"]

SHORTENERS = frozenset(
    """adf.ly bit.do bit.ly bitly.com bl.ink buff.ly clck.ru cli.gs cutt.ly db.tt dlvr.it dub.sh fb.me geni.us
    gg.gg goo.gl goo.su hyperurl.co ibm.co is.gd j.mp lc.chat lnkd.in lnk.to mcaf.ee n9.cl ow.ly pic.gd po.st qr.ae
    qr.net rb.gy rebrand.ly reurl.cc rotf.lol s.id s2r.co shorte.st short.gy short.io shorturl.at shrtco.de snip.ly
    soo.gd su.pr t.co t.cn t.ly tiny.cc tiny.one tinyurl.com tr.im u.to url.ie urlzs.com v.gd vk.cc vo.la wp.me x.co
    y2u.be yourls.org zpr.io zws.im""".split()
)
"""Services whose addresses hide where they lead."""

_BRANDS = frozenset(
    """adobe airbnb alibaba aliexpress amazon americanexpress anthropic apple bankofamerica barclays binance blockchain
    booking capitalone chase citibank cloudflare coinbase commerzbank craigslist dhl discord docker docusign dropbox
    ebay facebook fedex github gitlab godaddy google hsbc huggingface icloud instagram intuit kraken linkedin lloyds
    mastercard metamask microsoft microsoftonline mozilla natwest netflix office365 openai oracle outlook paypal
    pinterest postbank python reddit revolut roblox salesforce santander shopify sparkasse spotify stackoverflow
    steamcommunity steampowered stripe telegram tiktok twitter usps walmart wellsfargo whatsapp wikimedia wikipedia wordpress
    yahoo youtube zendesk""".split()
)
# Names one letter away from a brand that are words or brands of their own.
_OTHERS = frozenset(
    "cooking looking bookings goggle googles apples stripes striped python3 githubs cloudflared".split()
)
_LOOKALIKES = (("rn", "m"), ("vv", "w"), ("cl", "d"))
_DIGITS = str.maketrans("013457", "oieast")
_DIGIT_ONE_AS_L = str.maketrans("013457", "oleast")
SUBSTITUTED_FROM = 7
"""Letters of a brand from which another letter in one place still reads as the brand; shorter ones are too near to words."""
ONE_OFF_FROM = 6
"""Letters from which a letter that lacks, is doubled or swapped does."""


@lru_cache(maxsize=1)
def _extract() -> TLDExtract:
    # An empty list of addresses keeps tldextract off the network: its bundled public suffix list is used.
    return TLDExtract(suffix_list_urls=(), cache_dir=None)


def split_host(host: str) -> ExtractResult:
    """Sub-domain, registered label and public suffix of a host name."""
    return _extract().extract_str(host)


def is_below(host: str, parents: frozenset[str]) -> bool:
    """Whether a host is one of ``parents`` or a sub-domain of one; a parent may begin with ``*.``."""
    labels = host.lower().rstrip(".").split(".")[-12:]
    return any(name in parents or "*." + name in parents for name in (".".join(labels[i:]) for i in range(len(labels))))


def imitated(label: str) -> tuple[str, float] | None:
    """The brand that a registered label reads like without being it, and how surely; None where there is none.

    Look-alike signs (`paypa1`, `rnicrosoft`) score 0.9, one letter missing, added, swapped or replaced 0.7.
    """
    label = label.lower()
    if label in _BRANDS or len(label) > 24:
        return None
    for reading in _readings(label):
        if reading in _BRANDS:
            return reading, 0.9
    if label in _OTHERS:
        return None
    for brand in _near(label):
        return brand, 0.7
    return None


def brand_in(words: list[str]) -> str | None:
    """The first of the words that is a brand, look-alike signs included."""
    for word in words:
        if word in _BRANDS:
            return word
        for reading in _readings(word):
            if reading in _BRANDS:
                return reading
    return None


def _readings(label: str) -> Iterator[str]:
    for digits in (_DIGITS, _DIGIT_ONE_AS_L):
        plain = label.translate(digits)
        if plain != label:
            yield plain
        for signs, letter in _LOOKALIKES:
            if signs in plain:
                yield plain.replace(signs, letter)


@lru_cache(maxsize=1)
def _without_one() -> dict[str, str]:
    """Every brand with one letter left out, and the brand."""
    return {brand[:i] + brand[i + 1 :]: brand for brand in _BRANDS for i in range(len(brand))}


def _near(label: str) -> Iterator[str]:
    """Brands that one edit (insertion, deletion, transposition or replacement) leads to."""
    shorter = _without_one()
    if (brand := shorter.get(label)) and len(brand) >= ONE_OFF_FROM:
        yield brand
    for i in range(len(label)):
        cut = label[:i] + label[i + 1 :]
        plural = i == len(label) - 1 and label[i] == "s"
        if cut in _BRANDS and len(cut) >= ONE_OFF_FROM and not plural:
            yield cut
        brand = shorter.get(cut)
        if brand and len(brand) == len(label):
            swapped = sorted(brand) == sorted(label)
            if len(brand) >= (ONE_OFF_FROM if swapped else SUBSTITUTED_FROM):
                yield brand
