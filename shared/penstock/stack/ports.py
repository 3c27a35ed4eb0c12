"""Free ports on the loopback interface."""

from __future__ import annotations

import random
import socket
import threading
import time
from collections.abc import Container, Iterable
from pathlib import Path

import psutil

from penstock.stack.errors import PortInUse

__all__ = ["HOST", "free_port", "is_free", "owner", "require_free", "wait_free"]

HOST = "127.0.0.1"
_LOWEST = 20_000
_HIGHEST = 32_000
_ATTEMPTS = 200
_POLL_S = 0.05


def free_port(taken: Container[int] = ()) -> int:
    """Return a port that nothing listens on, none of ``taken``.

    It lies below the range that the system gives to outgoing connections (Linux: from 32768). A part that is restarted
    must find its old port again, and inside that range a client that keeps reconnecting to a dead part can be given
    the part's own port as its source, connect to itself, and hold the port for good.

    Raises:
        PortInUse: no free port was found.
    """
    choose = random.SystemRandom()
    highest = min(_HIGHEST, _first_outgoing() - 1)
    for _ in range(_ATTEMPTS):
        port = choose.randint(min(_LOWEST, highest - 2_000), highest)
        if port not in taken and is_free(port):
            return port
    raise PortInUse(f"found no free port on {HOST} in {_ATTEMPTS} tries; close what listens there")


def is_free(port: int) -> bool:
    """Tell whether a server could listen on ``port`` of the loopback interface now."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        # As servers do: connections of the port's last owner that still linger (TIME_WAIT) do not count.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
            probe.listen(1)
        except OSError:
            return False
    return True


def owner(port: int) -> str | None:
    """Return "name (pid N)" of the process that listens on ``port``, or None where the system does not tell."""
    try:
        for connection in psutil.net_connections("tcp"):
            if connection.status == psutil.CONN_LISTEN and connection.laddr.port == port and connection.pid:
                return f"{psutil.Process(connection.pid).name()} (pid {connection.pid})"
    except psutil.Error:
        return None
    return None


def require_free(port: int, part: str, remedy: str) -> None:
    """Check that ``part`` can have ``port``.

    Raises:
        PortInUse: it belongs to another process; the message names port, owner and remedy.
    """
    if not is_free(port):
        who = owner(port) or "another process"
        raise PortInUse(f"{part}: port {port} on {HOST} is in use by {who}; {remedy}")


def wait_free(ports: Iterable[int], timeout_s: float, stop: threading.Event) -> None:
    """Wait until all of ``ports`` are free, ``timeout_s`` seconds have passed, or ``stop`` is set."""
    wanted = list(ports)
    deadline = time.monotonic() + timeout_s
    while not all(map(is_free, wanted)) and time.monotonic() < deadline and not stop.wait(_POLL_S):
        pass


def _first_outgoing() -> int:
    try:
        return int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    except (OSError, ValueError, IndexError):
        return 49_152  # the IANA dynamic range, which other systems use
