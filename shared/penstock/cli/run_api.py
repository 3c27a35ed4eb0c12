"""Where the edges of ``penstock run`` listen: a port for each, known before they start."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from penstock.stack.errors import StackError
from penstock.stack.member import ServiceSpec
from penstock.stack.ports import free_port, require_free

__all__ = ["DEFAULT_HOST", "DEFAULT_PORT", "Api", "place_edges"]

DEFAULT_HOST = "127.0.0.1"
DEFAULT_PORT = 8080
"""EDGE_HOST and EDGE_PORT as the edge has them where they are not set."""

_EDGE = "edge"
_EVERYWHERE = ("0.0.0.0", "::", "")  # compared with, not listened on


@dataclass(frozen=True, slots=True)
class Api:
    """The HTTP API of one edge.

    Attributes:
        name: of its process.
        url: scheme, host and port, as a client on this machine reaches it.
    """

    name: str
    url: str


def place_edges(
    specs: Sequence[ServiceSpec], environ: Mapping[str, str], *, check: bool
) -> tuple[list[ServiceSpec], list[Api]]:
    """Return ``specs`` with a port for each edge, and where these answer.

    The first has EDGE_PORT; with 0 it gets a free one, as every further edge does in any case: a port has one listener.

    Args:
        specs: the processes to run.
        environ: EDGE_HOST, EDGE_PORT and EDGE_SSL_CERTFILE as the edge reads them.
        check: whether EDGE_PORT must be free now, and not only once the services have been started.

    Raises:
        StackError: EDGE_PORT is none, or belongs to another process.
    """
    host = environ.get("EDGE_HOST") or DEFAULT_HOST
    wanted = _port(environ.get("EDGE_PORT") or str(DEFAULT_PORT))
    reached = DEFAULT_HOST if host in _EVERYWHERE else f"[{host}]" if ":" in host else host
    scheme = "https" if environ.get("EDGE_SSL_CERTFILE") else "http"
    placed: list[ServiceSpec] = []
    taken: list[int] = []
    apis: list[Api] = []
    for spec in specs:
        if spec.name.partition("-")[0] == _EDGE:
            if wanted and not taken:
                port = wanted
                if check and reached == DEFAULT_HOST:  # only of this address can it be told
                    require_free(port, "edge", "end it, or choose another by EDGE_PORT; EDGE_PORT=0 picks a free one")
            else:
                port = free_port(taken)
            taken.append(port)
            apis.append(Api(spec.name, f"{scheme}://{reached}:{port}"))
            spec = replace(spec, environ={**spec.environ, "EDGE_PORT": str(port)})
        placed.append(spec)
    return placed, apis


def _port(text: str) -> int:
    if not text.isdecimal() or int(text) > 65_535:
        raise StackError(f"EDGE_PORT={text!r} is no port: give a number from 1 to 65535, or 0 for a free one")
    return int(text)
