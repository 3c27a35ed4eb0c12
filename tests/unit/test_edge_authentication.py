"""Who a caller of the edge is, by its Authorization header."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from penstock.clock import ManualClock
from penstock.config.plane import ConfigPlane
from penstock.identity import KeyDirectory, mint
from penstock.identity.issuing import issued, revoked

from services.edge.authentication import KeyAuthenticator
from services.edge.protocol import Caller, Unauthorised

NOW = datetime(2026, 1, 5, 9, 0, tzinfo=UTC)
SECRET = b"the secret of an installation, of 32 bytes and more"
MINTED, GONE = mint(SECRET), mint(SECRET)
DESK = KeyAuthenticator(
    KeyDirectory(
        ConfigPlane.of(
            [
                issued(MINTED, "support", NOW, routes=("chat", "default")),
                revoked(issued(GONE, "support", NOW), NOW),
            ]
        ),
        SECRET,
        ManualClock(NOW),
    )
)


@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER"])
def test_a_key_says_team_identity_and_routes(scheme: str) -> None:
    caller = DESK.caller(f"{scheme} {MINTED.text}")
    assert caller == Caller(team="support", key_id=MINTED.id, routes=("chat", "default"))
    assert caller.allows("chat")
    assert not caller.allows("slow")


@pytest.mark.parametrize(
    ("header", "words"),
    [
        (None, "has no API key"),
        ("", "holds no API key"),
        ("Bearer", "holds no API key"),
        ("Bearer  ", "holds no API key"),
        (f"Basic {MINTED.text}", "holds no API key"),
        (MINTED.text, "holds no API key"),
        ("Bearer sk-something", "no API key"),
        ("Bearer psk_é_ÿ", "no API key"),
        (f"Bearer {MINTED.text[:-1]}", "no API key"),
        (f"Bearer {MINTED.text} {MINTED.text}", "no API key"),
        (f"Bearer {mint(SECRET).text}", "is unknown"),
        (f"Bearer {GONE.text}", "was revoked at 2026-01-05T09:00:00Z"),
    ],
    ids=[
        "no header", "empty", "scheme alone", "blank", "other scheme", "no scheme", "other key", "not ASCII", "cut", "twice",
        "unknown", "revoked",
    ],
)  # fmt: skip
def test_everything_else_is_nobody_and_is_not_repeated(header: str | None, words: str) -> None:
    with pytest.raises(Unauthorised, match=words) as caught:
        DESK.caller(header)
    for minted in (MINTED, GONE):
        assert minted.text.rpartition("_")[2] not in str(caught.value)
