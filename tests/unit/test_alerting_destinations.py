"""The allow-list of destinations: what an address is, where a name may lead, and every way around it that is known."""

from __future__ import annotations

import asyncio
import ipaddress
from collections.abc import Awaitable, Callable, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.alerting.destinations import Address, Destinations, Refused, SystemResolver, is_public

SCHEMES = ("https", "http")
PUBLIC = "93.184.215.14"
NOT_PUBLIC = [
    "0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12", "192.0.2.0/24",
    "192.168.0.0/16", "198.18.0.0/15", "224.0.0.0/4", "240.0.0.0/4",
]  # fmt: skip


def leading(*addresses: str) -> Callable[[str, int], Awaitable[Sequence[str]]]:
    """A name server that answers every name with these."""

    async def resolve(host: str, port: int) -> Sequence[str]:
        return addresses

    return resolve


# Addresses that are not public, with those at the edges of their networks.
private = st.sampled_from([ipaddress.IPv4Network(text) for text in NOT_PUBLIC]).flatmap(
    lambda network: st.integers(int(network.network_address), int(network.broadcast_address))
).map(ipaddress.IPv4Address)  # fmt: skip


@pytest.mark.parametrize(
    ("text", "host", "port", "label"),
    [
        ("https://Hooks.Example.com/a/b?c=d", "hooks.example.com", 443, "https://hooks.example.com"),
        ("http://hooks.example.com.:8080/", "hooks.example.com", 8080, "http://hooks.example.com:8080"),
        ("https://bücher.example/x", "xn--bcher-kva.example", 443, "https://xn--bcher-kva.example"),
        ("https://[2001:DB8::1]:8443/", "2001:db8::1", 8443, "https://[2001:db8::1]:8443"),
        ("http://alert_manager:9093", "alert_manager", 9093, "http://alert_manager:9093"),
        ("https://user:p%40ss@example.com/#there", "example.com", 443, "https://example.com"),
        ("http://good.example@evil.example/", "evil.example", 80, "http://evil.example"),
    ],
)
def test_an_address_is_what_will_be_connected_to(text: str, host: str, port: int, label: str) -> None:
    address = Address.parse(text, SCHEMES)
    assert (address.host, address.port, address.label) == (host, port, label)
    assert not address.url.userinfo
    assert not address.url.fragment
    assert address.url.host.strip("[]") == address.host or address.url.raw_host.decode() == address.host


@pytest.mark.parametrize(
    "text",
    [
        "", "hooks.example.com", "ftp://example.com/", "https://", "https:///path", "file:///etc/passwd", "http://a b/",
        "http://example.com:0/", "http://example.com:65536/", "http://example.com:x/", "http://-example.com/",
        "http://ex\nample.com/", "http://ex\x00ample.com/", "http://[::1", "http://[fe80::1%25eth0]/", "http://*/",
        "http://2130706433/", "http://0x7f000001/", "http://017700000001/", "http://0177.0.0.1/", "http://127.1/",
        "http://127.0.0.0x1/", "http://0/", "http://127.0.0.1.1/", "http://①②⑦.0.0.1/", "http://1.2.3.08/", "gopher://x/",
    ],
)  # fmt: skip
def test_what_is_no_plain_address_is_refused_without_repeating_it(text: str) -> None:
    with pytest.raises(Refused) as refused:
        Address.parse(f"{text}hunter2" if text.count("/") == 3 else text, SCHEMES)
    assert "hunter2" not in str(refused.value)


@given(st.text(max_size=40), st.text(max_size=10), st.sampled_from(["http://", "https://", "HTTP://", "http:", ""]))
def test_any_text_is_refused_or_an_address_that_stays_the_same(host: str, path: str, scheme: str) -> None:
    try:
        address = Address.parse(f"{scheme}{host}/{path}", SCHEMES)
    except Refused:
        return
    again = Address.parse(str(address.url), SCHEMES)
    assert (again.host, again.port, again.url) == (address.host, address.port, address.url)
    assert address.host in address.label


def spellings(address: ipaddress.IPv4Address) -> list[str]:
    """The ways in which resolvers and browsers read an IPv4 address."""
    number, parts = int(address), address.packed
    return [
        str(address),
        str(number),
        hex(number),
        f"0{number:o}",
        ".".join(f"0{part:o}" for part in parts),
        ".".join(hex(part) for part in parts),
        f"{parts[0]}.{number & 0xFFFFFF}",
        f"[::ffff:{address}]",
        f"[::ffff:{number >> 16:x}:{number & 0xFFFF:x}]",
        f"[64:ff9b::{number >> 16:x}:{number & 0xFFFF:x}]",
        f"[2002:{number >> 16:x}:{number & 0xFFFF:x}::1]",
        f"[::{number >> 16:x}:{number & 0xFFFF:x}]",
    ]


@given(private, st.integers(0, 11))
def test_no_spelling_of_an_address_that_is_not_public_passes_a_list_of_all_names(
    address: ipaddress.IPv4Address, which: int
) -> None:
    def opened(text: str) -> None:
        parsed = Address.parse(text, SCHEMES)
        Destinations(["*"]).check(parsed.host, parsed.port)

    with pytest.raises(Refused):
        opened(f"http://{spellings(address)[which]}/")


@given(private, st.integers(0, 3))
async def test_no_name_leads_to_an_address_that_is_not_public(address: ipaddress.IPv4Address, which: int) -> None:
    number = int(address)
    spelled = [
        str(address),
        f"::ffff:{address}",
        f"64:ff9b::{number >> 16:x}:{number & 0xFFFF:x}",
        f"2002:{number >> 16:x}:{number & 0xFFFF:x}::1",
    ][which]
    listed = Destinations(["*", "hooks.example.com:443"], leading(PUBLIC, spelled))
    with pytest.raises(Refused, match=r"hooks\.example\.com leads to .*, which is not listed; if alerts may go there"):
        await listed.addresses("hooks.example.com", 443)


@pytest.mark.parametrize(
    "text",
    ["::", "::1", "fe80::1", "fec0::1", "fc00::1", "ff02::1", "2001:db8::1", "2001::1", "64:ff9b:1::1", "100::1"],
)
def test_ipv6_that_is_not_public(text: str) -> None:
    assert not is_public(ipaddress.ip_address(text))


@pytest.mark.parametrize("text", ["8.8.8.8", "2001:4860:4860::8888", "::ffff:8.8.8.8", "64:ff9b::808:808"])
def test_what_is_public(text: str) -> None:
    assert is_public(ipaddress.ip_address(text))


@pytest.mark.parametrize(
    ("entry", "host", "port", "found", "allowed"),
    [
        ("hooks.example.com", "hooks.example.com", 8443, PUBLIC, True),
        ("hooks.example.com", "xhooks.example.com", 443, PUBLIC, False),
        ("hooks.example.com", "hooks.example.com.evil.com", 443, PUBLIC, False),
        ("hooks.example.com:443", "hooks.example.com", 443, PUBLIC, True),
        ("hooks.example.com:443", "hooks.example.com", 8443, PUBLIC, False),
        ("Hooks.Example.com", "hooks.example.com", 443, PUBLIC, True),
        ("*.example.com", "a.b.example.com", 443, PUBLIC, True),
        ("*.example.com", "example.com", 443, PUBLIC, False),
        ("*.example.com", "notexample.com", 443, PUBLIC, False),
        ("*.example.com:443", "a.example.com", 80, PUBLIC, False),
        ("*", "any.where", 443, PUBLIC, True),
        ("*", PUBLIC, 443, PUBLIC, True),
        ("*.example.com", PUBLIC, 443, PUBLIC, False),
        ("hooks.example.com", "hooks.example.com", 443, "10.0.0.5", False),
        ("alertmanager:9093=10.0.0.0/8", "alertmanager", 9093, "10.0.0.5", True),
        ("alertmanager:9093=10.0.0.0/8", "alertmanager", 9093, "::ffff:10.0.0.5", True),
        ("alertmanager:9093=10.0.0.0/8", "alertmanager", 9094, "10.0.0.5", False),
        ("alertmanager:9093=10.0.0.0/8", "alertmanager", 9093, "172.16.0.5", False),
        ("alertmanager:9093=10.0.0.0/8", "other", 9093, "10.0.0.5", False),
        ("alertmanager=[fd00::]", "alertmanager", 9093, "fd00::", True),
        ("10.0.0.0/8", "10.1.2.3", 80, "10.1.2.3", True),
        ("10.0.0.0/8", "inside.example", 80, "10.1.2.3", True),
        ("10.0.0.0/8", "outside.example", 80, PUBLIC, False),
        ("10.0.0.0/8:9093", "10.1.2.3", 80, "10.1.2.3", False),
        ("192.168.4.7:9093", "192.168.4.7", 9093, "192.168.4.7", True),
        ("192.168.4.7:9093", "192.168.4.8", 9093, "192.168.4.8", False),
        ("[fd00::/8]:9093", "fd00::1", 9093, "fd00::1", True),
        ("[fd00::/8]:9093", "fd00::1", 9094, "fd00::1", False),
        ("fd00::/8", "fd00::1", 1, "fd00::1", True),
        ("::1", "::1", 25, "::1", True),
        ("[::1]:25", "::1", 25, "::1", True),
        (" ", "hooks.example.com", 443, PUBLIC, False),
    ],
)
async def test_what_an_entry_allows(entry: str, host: str, port: int, found: str, allowed: bool) -> None:
    listed = Destinations([entry], leading(found))
    if allowed:
        assert await listed.addresses(host, port) == [found]
    else:
        with pytest.raises(Refused, match="ALERT_ALLOWED_DESTINATIONS"):
            await listed.addresses(host, port)


async def test_nothing_is_allowed_by_itself_and_everything_to_the_operator() -> None:
    listed = Destinations(resolve=leading("169.254.169.254"))
    with pytest.raises(Refused, match=r"hooks\.example\.com:443 is not listed; if alerts may go there, add"):
        listed.check("hooks.example.com", 443)
    assert await listed.anywhere().addresses("hooks.example.com", 443) == ["169.254.169.254"]
    assert await listed.anywhere().addresses("127.0.0.1", 80) == ["127.0.0.1"]
    joined = Destinations(resolve=leading(PUBLIC)).joined("events.example.com:443")
    assert await joined.addresses("events.example.com", 443) == [PUBLIC]
    with pytest.raises(Refused):
        joined.check("other.example.com", 443)


async def test_the_remedy_that_a_refusal_names_helps() -> None:
    for host, found in (("alertmanager", "10.0.0.5"), ("alertmanager", "fd00::5"), ("10.0.0.5", ""), ("fd00::5", "")):
        with pytest.raises(Refused) as refused:
            await Destinations(["alertmanager"], leading(found)).addresses(host, 9093)
        entry = str(refused.value).split(" add ")[1].split(" to ")[0]
        assert await Destinations([entry], leading(found)).addresses(host, 9093) == [found or host]


async def test_a_name_is_resolved_once_and_by_the_machine_where_nothing_else_is_said() -> None:
    asked: list[str] = []

    async def counting(host: str, port: int) -> Sequence[str]:
        asked.append(host)
        return [PUBLIC, PUBLIC]

    assert await Destinations(["a.example"], counting).addresses("a.example", 443) == [PUBLIC]
    assert asked == ["a.example"]
    assert "127.0.0.1" in await Destinations().anywhere().addresses("localhost", 80)


class Asking:
    """An event loop's resolver that answers when told to."""

    def __init__(self) -> None:
        self.asked = 0
        self.answer = asyncio.Event()

    async def getaddrinfo(self, host: str, port: int) -> list[str]:
        self.asked += 1
        await self.answer.wait()
        if host == "none.example":
            raise OSError("no such name")
        return [PUBLIC]


class SlowResolver(SystemResolver):
    def __init__(self, asking: Asking) -> None:
        super().__init__()
        self._asking = asking

    async def _ask(self, host: str, port: int) -> list[str]:
        return await self._asking.getaddrinfo(host, port)


async def test_a_name_that_is_being_asked_for_is_not_asked_for_again() -> None:
    asking = Asking()
    listed = Destinations(["*"], SlowResolver(asking))
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01):
            await listed.addresses("slow.example", 443)
    waiting = [asyncio.create_task(listed.joined("x.example").addresses("slow.example", 443)) for _ in range(3)]
    lost = asyncio.create_task(listed.addresses("none.example", 443))
    await asyncio.sleep(0)
    asking.answer.set()
    assert await asyncio.gather(*waiting) == [[PUBLIC]] * 3
    with pytest.raises(OSError, match="no such name"):
        await lost
    assert asking.asked == 2
    assert await listed.addresses("slow.example", 443) == [PUBLIC]
    assert asking.asked == 3


@pytest.mark.parametrize(
    "entry",
    ["http://example.com", "example.com/path", "a b", "*.", "*x.com", "a.*.com", "example.com:0", "example.com:http",
     "example.com=", "example.com=there", "10.0.0.1=10.0.0.0/8", "10.0.0.0/33", "1.2", "0x7f.1", "[::1", "user@example.com"],
)  # fmt: skip
def test_an_entry_that_is_none_is_named_with_what_would_be(entry: str) -> None:
    with pytest.raises(Refused) as refused:
        Destinations([entry])
    assert repr(entry) in str(refused.value)
    assert "write" in str(refused.value) or "for example" in str(refused.value)
