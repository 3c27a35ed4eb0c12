"""Where alerting may connect to: an allow-list, and the check of the very address that is connected to.

The configuration names receivers, and more people may write it than may reach the network that alerting stands in. An
address that comes from the configuration is used only where the operator has listed it, and a listed name may lead to
public addresses only, unless a network is listed as well: neither a name nor its owner's DNS can turn a delivery into
a request to a metadata service or a neighbour. What stands in alerting's own environment is the operator's word.
"""

from __future__ import annotations

import asyncio
import ipaddress
import re
import socket
from collections.abc import Awaitable, Callable, Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import Self

import httpx
import msgspec

__all__ = ["Address", "Destinations", "Refused", "Resolver", "SystemResolver", "is_public"]

IPAddress = IPv4Address | IPv6Address
IPNetwork = IPv4Network | IPv6Network

Resolver = Callable[[str, int], Awaitable[Sequence[str]]]
"""Returns the addresses of a name for a port, best first; raises ``OSError`` where there are none."""

_PORTS = {"http": 80, "https": 443, "smtp": 25, "smtps": 465}
_NAT64 = IPv6Network("64:ff9b::/96")
# RFC 1123 with underscores, which names inside a container network have; "*." is allowed in front of patterns only.
_NAME = re.compile(r"(?!-)[a-z0-9_-]{1,63}(?:\.[a-z0-9_-]{1,63})*")
# What the URL standard calls a host that ends in a number: resolvers read these as IPv4 addresses.
_NUMBER = re.compile(r"(?:[0-9]+|0x[0-9a-f]*)")
_GRAMMAR = (
    "each entry is a host name, a pattern such as *.example.com, an address or a network, with :port where only one "
    "port is meant, and for a name =network where it may lead into that network; for example "
    "hooks.example.com, alertmanager:9093=10.0.0.0/8, 192.168.4.7:9093"
)


class Refused(ValueError):
    """An address is no destination, or is not allowed to be one. Says why and what to do."""


class Address(msgspec.Struct, frozen=True, kw_only=True):
    """A URL taken apart by the one parser that also connects to it.

    Attributes:
        url: without credentials.
        host: lower case, ASCII (IDNA), without brackets or a final dot.
        port: given or the scheme's.
        username: of the URL, decoded; empty where it has none.
        password: likewise.
    """

    url: httpx.URL
    host: str
    port: int
    username: str = ""
    password: str = ""

    @classmethod
    def parse(cls, text: str, schemes: Sequence[str]) -> Self:
        """Read a URL.

        Args:
            text: the URL; never repeated in an error, since it may be a secret.
            schemes: those that are allowed.

        Raises:
            Refused: it is no URL with such a scheme and a host in a canonical spelling.
        """
        wanted = " or ".join(f"{scheme}://" for scheme in schemes)
        try:
            url = httpx.URL(text)
            port = url.port
        except (httpx.InvalidURL, ValueError, UnicodeError):
            raise Refused(f"is no URL; write {wanted} and a host") from None
        if url.scheme not in schemes or not url.raw_host:
            raise Refused(f"must begin with {wanted} and name a host")
        if port is not None and not 0 < port < 65536:
            raise Refused("names no port from 1 to 65535 after ':'; write the one the receiver listens on, or none")
        host = url.raw_host.decode("ascii").lower().removesuffix(".")
        if _literal(host) is None and not _NAME.fullmatch(host):
            raise Refused("names a host that is neither a host name nor an address")
        if _literal(host) is None and _NUMBER.fullmatch(host.rpartition(".")[2]):
            raise Refused("spells its host as a number; write an IPv4 address as four decimal parts, or the name")
        bare = url.copy_with(userinfo=b"", host=host, fragment=None)
        return cls(url=bare, host=host, port=port or _PORTS[url.scheme], username=url.username, password=url.password)

    @property
    def tls(self) -> bool:
        """Whether the connection begins with TLS."""
        return self.url.scheme in {"https", "smtps"}

    @property
    def label(self) -> str:
        """Scheme, host and, where it is not the scheme's, port: paths of webhooks are often the credential itself."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        port = "" if self.port == _PORTS[self.url.scheme] else f":{self.port}"
        return f"{self.url.scheme}://{host}{port}"


class _Rule(msgspec.Struct, frozen=True):
    """One entry of the list: a pattern of names or a network, for one port or all."""

    pattern: str = ""
    network: IPNetwork | None = None
    port: int | None = None
    into: IPNetwork | None = None

    def names(self, host: str, port: int) -> bool:
        if not self.pattern or self.port not in {None, port}:
            return False
        if self.pattern == "*":
            return True
        return host.endswith(self.pattern[1:]) if self.pattern.startswith("*.") else host == self.pattern

    def holds(self, address: IPAddress, port: int) -> bool:
        return self.network is not None and self.port in {None, port} and _within(address, self.network)


class Destinations:
    """The places that alerting may connect to."""

    def __init__(self, entries: Sequence[str] = (), resolve: Resolver | None = None) -> None:
        """Read the list.

        Args:
            entries: ``hooks.example.com``, ``*.example.com`` (names below it), ``*`` (every name), an address or
                a network (``10.0.0.0/8``, ``[fd00::/8]:9093``), each with ``:port`` where only that port is meant. A
                name reaches public addresses, ``name=network`` also those of the network, and a network itself is
                reached under every name.
            resolve: turns names into addresses; the machine's resolver where none is given.

        Raises:
            Refused: an entry is none of these.
        """
        self._rules = tuple(_rule(entry.strip()) for entry in entries if entry.strip())
        self._resolve = resolve or SystemResolver()
        self._anywhere = False

    def anywhere(self) -> Destinations:
        """Return destinations without a bound, for addresses from the operator's own environment."""
        free = Destinations(resolve=self._resolve)
        free._anywhere = True
        return free

    def joined(self, *entries: str) -> Destinations:
        """Return destinations with entries added, for the public address that a kind of receiver has by itself."""
        wider = Destinations(entries, self._resolve)
        wider._rules = (*self._rules, *wider._rules)
        wider._anywhere = self._anywhere
        return wider

    def check(self, host: str, port: int) -> None:
        """Check what can be told without asking a name server.

        Raises:
            Refused: neither the name nor any network it could lead into is listed.
        """
        literal = _literal(host)
        if literal is not None:
            self._judge(host, literal, port)
        elif not self._anywhere and not any(
            rule.names(host, port) or (rule.network is not None and rule.port in {None, port}) for rule in self._rules
        ):
            raise Refused(f"{host}:{port} is not listed; {_remedy(host, port)}")

    async def addresses(self, host: str, port: int) -> list[str]:
        """Return the addresses of a host that may be connected to, best first. Connect to one of these, never to the
        name, which may lead elsewhere when it is asked for again.

        Raises:
            Refused: the name is not listed, or one of its addresses is not allowed: a name that leads both to a
                public and to a private place is not trusted with either.
            OSError: the name has no address.
        """
        self.check(host, port)
        literal = _literal(host)
        if literal is not None:
            return [str(literal)]
        found = list(dict.fromkeys(await self._resolve(host, port)))
        for each in found:
            self._judge(host, ipaddress.ip_address(each), port)
        return found

    def _judge(self, host: str, address: IPAddress, port: int) -> None:
        if self._anywhere or any(rule.holds(address, port) for rule in self._rules):
            return
        rules = [rule for rule in self._rules if rule.names(host, port)]
        if rules and is_public(address):
            return
        if any(rule.into is not None and _within(address, rule.into) for rule in rules):
            return
        leads = "" if str(address) == host else f"{host} leads to "
        raise Refused(f"{leads}{address}, which is not listed; {_remedy(host, port, address)}")


class SystemResolver:
    """Asks the machine's resolver, off the event loop. Who asks for a name that is being asked for waits for that
    answer: a name server that hangs ties up one thread, however often its name is tried."""

    def __init__(self) -> None:
        self._asked: dict[tuple[str, int], asyncio.Future[list[str]]] = {}

    async def __call__(self, host: str, port: int) -> Sequence[str]:
        key = (host, port)
        if key not in self._asked:
            asked = asyncio.ensure_future(self._ask(host, port))
            self._asked[key] = asked
            asked.add_done_callback(lambda ended: self._ended(key, ended))
        # Who gives up waiting does not end the question for the others.
        return await asyncio.shield(self._asked[key])

    async def _ask(self, host: str, port: int) -> list[str]:
        found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
        # A scoped address (fe80::1%eth0) is link-local: judged without its zone.
        return [str(place[0]).partition("%")[0] for *_, place in found]

    def _ended(self, key: tuple[str, int], ended: asyncio.Future[list[str]]) -> None:
        self._asked.pop(key, None)
        if not ended.cancelled():
            ended.exception()  # looked at, so that it is not reported where nobody waits any more


def is_public(address: IPAddress) -> bool:
    """Tell whether an address is reached over the internet: it, or the IPv4 address it stands for, is neither private,
    loopback, link-local (where metadata services are), multicast, reserved nor unspecified."""
    real = _carried(address)
    return real.is_global and not (
        real.is_multicast
        or real.is_reserved
        or real.is_loopback
        or real.is_link_local
        or real.is_unspecified
        or (isinstance(real, IPv6Address) and real.is_site_local)
    )


def _carried(address: IPAddress) -> IPAddress:
    """The IPv4 address inside an IPv6 one: mapped (RFC 4291), 6to4 (RFC 3056) or NAT64 (RFC 6052)."""
    if isinstance(address, IPv6Address):
        if address.ipv4_mapped is not None:
            return address.ipv4_mapped
        if address.sixtofour is not None:
            return address.sixtofour
        if address in _NAT64:
            return IPv4Address(int(address) & 0xFFFFFFFF)
    return address


def _within(address: IPAddress, network: IPNetwork) -> bool:
    return address in network or _carried(address) in network


def _literal(host: str) -> IPAddress | None:
    if "%" in host:
        return None
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None


def _remedy(host: str, port: int, address: IPAddress | None = None) -> str:
    spelled = f"[{host}]" if ":" in host else host
    entry = f"{spelled}:{port}"
    if address is not None and str(address) != host:
        entry += f"={address}/{address.max_prefixlen}"
    return f"if alerts may go there, add {entry} to ALERT_ALLOWED_DESTINATIONS"


def _rule(entry: str) -> _Rule:
    target, into_sign, into_text = entry.partition("=")
    target, port = _split(target.strip().lower(), entry)
    network = _network(target)
    if network is not None:
        if into_sign:
            raise Refused(f"{entry!r} gives a network to an address; write the address alone, or a name before '='")
        return _Rule(network=network, port=port)
    name = target.removeprefix("*.")
    if target != "*" and (not _NAME.fullmatch(name) or _NUMBER.fullmatch(name.rpartition(".")[2])):
        raise Refused(f"{entry!r} is no destination; {_GRAMMAR}")
    return _Rule(target, None, port, _into(into_text, entry) if into_sign else None)


def _split(target: str, entry: str) -> tuple[str, int | None]:
    """Part a target and its port; IPv6 stands in brackets where a port follows."""
    bracketed = re.fullmatch(r"\[([^\]]*)\](?::([0-9]+))?(/[0-9]+)?", target)
    if bracketed:
        target, digits = bracketed[1] + (bracketed[3] or ""), bracketed[2]
    elif target.count(":") == 1:
        target, _, digits = target.partition(":")
    else:
        return target, None
    if digits is None:
        return target, None
    if not digits.isdecimal() or len(digits) > 5 or not 0 < int(digits) < 65536:
        raise Refused(f"{entry!r} has no port from 1 to 65535 after ':'; {_GRAMMAR}")
    return target, int(digits)


def _into(text: str, entry: str) -> IPNetwork:
    network = _network(text.strip().removeprefix("[").removesuffix("]"))
    if network is None:
        raise Refused(f"{entry!r} has no network after '='; {_GRAMMAR}")
    return network


def _network(text: str) -> IPNetwork | None:
    try:
        return ipaddress.ip_network(text, strict=False)
    except ValueError:
        return None
