"""Where the edges of ``penstock run`` listen, told before they start."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest
from penstock.cli.run_api import DEFAULT_HOST, DEFAULT_PORT, place_edges
from penstock.stack.errors import PortInUse, StackError
from penstock.stack.member import ServiceSpec

from services.edge.settings import Settings

SPECS = [ServiceSpec(name, ["python"]) for name in ("edge", "edge-2", "intake")]


@pytest.fixture
def taken() -> Iterator[int]:
    """A port that another process' listener would hold."""
    with socket.create_server((DEFAULT_HOST, 0)) as listener:
        yield int(listener.getsockname()[1])


def test_the_first_edge_has_the_port_that_is_set_and_the_next_a_free_one() -> None:
    specs, apis = place_edges(SPECS, {"EDGE_PORT": "31871"}, check=False)
    ports = [spec.environ.get("EDGE_PORT") for spec in specs]
    assert ports[0] == "31871"
    assert ports[1] not in (None, "0", "31871")
    assert ports[2] is None
    assert [(api.name, api.url) for api in apis] == [
        ("edge", "http://127.0.0.1:31871"),
        ("edge-2", f"http://127.0.0.1:{ports[1]}"),
    ]


def test_without_settings_it_is_where_the_edge_listens_by_default() -> None:
    fields = Settings.model_fields
    assert (fields["edge_host"].default, fields["edge_port"].default) == (DEFAULT_HOST, DEFAULT_PORT)
    specs, (api,) = place_edges(SPECS[:1], {}, check=False)
    assert specs[0].environ["EDGE_PORT"] == "8080"
    assert api.url == "http://127.0.0.1:8080"


@pytest.mark.parametrize(
    ("environ", "url"),
    [
        ({"EDGE_HOST": "0.0.0.0"}, "http://127.0.0.1:31871"),
        ({"EDGE_HOST": "::1"}, "http://[::1]:31871"),
        ({"EDGE_HOST": "10.0.0.7", "EDGE_SSL_CERTFILE": "edge.pem"}, "https://10.0.0.7:31871"),
    ],
    ids=["every address", "IPv6", "TLS"],
)
def test_the_address_is_one_that_a_client_reaches(environ: dict[str, str], url: str) -> None:
    _, (api,) = place_edges(SPECS[:1], {"EDGE_PORT": "31871", **environ}, check=False)
    assert api.url == url


def test_a_port_of_another_process_is_told_before_anything_starts(taken: int) -> None:
    environ = {"EDGE_PORT": str(taken)}
    with pytest.raises(PortInUse, match=rf"port {taken} on 127\.0\.0\.1 is in use by .*EDGE_PORT"):
        place_edges(SPECS, environ, check=True)
    # Services of this stack that still run hold it: of them the supervisor tells.
    assert place_edges(SPECS, environ, check=False)[1][0].url == f"http://127.0.0.1:{taken}"
    # Without an edge nobody needs it.
    assert place_edges(SPECS[2:], environ, check=True) == (SPECS[2:], [])


def test_zero_picks_a_port_and_what_is_none_is_refused() -> None:
    _, (api,) = place_edges(SPECS[:1], {"EDGE_PORT": "0"}, check=True)
    assert int(api.url.rpartition(":")[2]) > 1024
    for text in ("http", "65536", "-1"):
        with pytest.raises(StackError, match=f"EDGE_PORT='{text}' is no port"):
            place_edges(SPECS, {"EDGE_PORT": text}, check=False)
