"""API keys: made, read, known again, replaced and revoked."""

from __future__ import annotations

import hashlib
import hmac
import re
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from penstock.clock import ManualClock
from penstock.config.kinds import ApiKey, Entry, Route, Target, Team
from penstock.config.plane import ConfigPlane
from penstock.config.publish import Change, publish_changes
from penstock.config.references import check_references
from penstock.contracts.records import ConfigEntry
from penstock.identity import (
    KEY_PATTERN,
    KeyDirectory,
    KeysSettings,
    KeyUnknown,
    digest_of,
    installation_secret,
    mint,
    parse_key,
)
from penstock.identity.issuing import KeyChangeInvalid, issued, key_versions, revoked, rotated, successor
from penstock.settings import SettingsError, load_settings
from pydantic import ValidationError

NOW = datetime(2026, 1, 5, 9, 0, tzinfo=UTC)
DAY = timedelta(days=1)
SECRET = b"the secret of an installation, of 32 bytes and more"


def directory(*keys: ApiKey, at: datetime = NOW, installation: bytes = SECRET) -> KeyDirectory:
    return KeyDirectory(ConfigPlane.of(keys), installation, ManualClock(at))


def test_a_key_is_its_id_and_256_bits_and_only_a_keyed_hash_is_kept() -> None:
    minted = mint(SECRET)
    assert re.fullmatch(r"psk_[0-9a-hjkmnp-tv-z]{12}_[0-9A-Za-z]{43}", minted.text)
    assert 62**43 > 2**256
    parsed = parse_key(minted.text)
    assert parsed is not None
    assert parsed[0] == minted.id
    assert minted.digest == hmac.new(SECRET, parsed[1].encode(), hashlib.sha256).hexdigest()
    assert minted.digest != digest_of(parsed[1], b"another installation")
    assert parsed[1] not in repr(minted)
    published = issued(minted, "support", NOW).canonical
    assert parsed[1] not in published


def test_keys_differ_and_the_pattern_finds_them_within_a_text() -> None:
    made = [mint(SECRET) for _ in range(50)]
    assert len({key.id for key in made}) == len({key.digest for key in made}) == 50
    text = f"curl -H 'Authorization: Bearer {made[0].text}' and {made[1].text}, too"
    assert re.findall(KEY_PATTERN, text) == [made[0].text, made[1].text]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "psk_",
        "sk-abc",
        "psk_a_b",
        "PSK_a_" + "x" * 43,
        "psk_a_" + "x" * 42,
        "psk_a_" + "x" * 44,
        "psk__" + "x" * 43,
    ],
)
def test_what_is_no_key_is_not_read_as_one(text: str) -> None:
    assert parse_key(text) is None
    with pytest.raises(KeyUnknown, match="no API key"):
        directory().key(text)


@given(st.text(max_size=80))
def test_whatever_is_shown_is_refused_and_not_repeated(text: str) -> None:
    with pytest.raises(KeyUnknown) as caught:
        directory().key(f"psk_{text}")
    assert not re.search(KEY_PATTERN, str(caught.value))


def test_a_key_is_known_again_under_the_same_installation_only() -> None:
    minted = mint(SECRET)
    key = issued(minted, "support", NOW, routes=("chat",))
    assert directory(key).key(minted.text) == key
    with pytest.raises(KeyUnknown, match="is unknown"):
        directory(key, installation=b"another installation's secret").key(minted.text)


def test_an_unknown_id_and_a_wrong_secret_are_refused_in_the_same_words() -> None:
    minted, other = mint(SECRET), mint(SECRET)
    known = directory(issued(minted, "support", NOW))
    secret = other.text.rpartition("_")[2]
    said = []
    for text in (f"psk_{minted.id}_{secret}", other.text):
        with pytest.raises(KeyUnknown) as caught:
            known.key(text)
        said.append(str(caught.value))
    assert said[0] == said[1]


def test_a_key_ends_when_it_expires_and_at_once_when_it_is_revoked() -> None:
    minted = mint(SECRET)
    key = issued(minted, "support", NOW, expires_at=NOW + DAY)
    assert directory(key, at=NOW + DAY - timedelta(microseconds=1)).key(minted.text) == key
    with pytest.raises(KeyUnknown, match="expired at 2026-01-06T09:00:00Z"):
        directory(key, at=NOW + DAY).key(minted.text)
    gone = revoked(key, NOW)
    # A service whose clock is slow refuses it as well.
    with pytest.raises(KeyUnknown, match="revoked at 2026-01-05T09:00:00Z"):
        directory(gone, at=NOW - DAY).key(minted.text)
    assert revoked(gone, NOW + DAY) is gone


def test_the_end_of_a_key_is_told_to_nobody_without_its_secret() -> None:
    minted = mint(SECRET)
    known = directory(revoked(issued(minted, "support", NOW), NOW))
    with pytest.raises(KeyUnknown, match="is unknown"):
        known.key(f"psk_{minted.id}_{mint(SECRET).text.rpartition('_')[2]}")


def test_a_change_of_a_key_counts_as_soon_as_it_has_been_read() -> None:
    minted = mint(SECRET)
    plane = ConfigPlane()
    known = KeyDirectory(plane, SECRET, ManualClock(NOW))
    with pytest.raises(KeyUnknown):
        known.key(minted.text)
    key = issued(minted, "support", NOW)
    plane.put(key.id, key)
    assert known.key(minted.text) == key
    plane.put(key.id, revoked(key, NOW))
    with pytest.raises(KeyUnknown, match="revoked"):
        known.key(minted.text)
    # Whoever rotated it at the same time read it before it was revoked, and writes it as it was.
    _, ending = rotated(key, mint(SECRET), {key.id: key}, NOW, overlap=DAY)
    plane.put(key.id, ending)
    with pytest.raises(KeyUnknown, match="revoked"):
        known.key(minted.text)


def test_a_rotated_key_hands_its_team_routes_and_lifetime_on_and_ends_after_the_overlap() -> None:
    old = issued(mint(SECRET), "support", NOW, description="desk", routes=("chat",), expires_at=NOW + 90 * DAY)
    assert old.version  # one that was computed before does not stay with the changed entry
    later = NOW + 80 * DAY
    minted = mint(SECRET)
    new, ending = rotated(old, minted, {old.id: old}, later, overlap=DAY)
    assert (new.team, new.description, new.routes, new.replaces) == ("support", "desk", ("chat",), old.id)
    assert (new.id, new.digest, new.expires_at) == (minted.id, minted.digest, later + 90 * DAY)
    assert (ending.id, ending.digest, ending.expires_at) == (old.id, old.digest, later + DAY)
    assert ending.version != old.version
    # An overlap never keeps a key longer than it was to be kept.
    _, ending = rotated(old, mint(SECRET), {old.id: old}, later, overlap=30 * DAY)
    assert ending.expires_at == old.expires_at


def test_a_key_is_rotated_once_and_only_while_it_is_in_force() -> None:
    old = issued(mint(SECRET), "support", NOW)
    new, ending = rotated(old, mint(SECRET), {old.id: old}, NOW, overlap=DAY)
    known = {old.id: ending, new.id: new}
    assert successor(old.id, known) == new
    with pytest.raises(KeyChangeInvalid, match=f"replaced by {new.id} already"):
        rotated(ending, mint(SECRET), known, NOW, overlap=DAY)
    # Its replacement was lost and revoked: another is made, for as long as that was: the old one has only the overlap left.
    another, _ = rotated(ending, mint(SECRET), known | {new.id: revoked(new, NOW)}, NOW, overlap=DAY)
    assert (another.replaces, another.expires_at) == (old.id, None)
    for gone in (revoked(old, NOW), issued(mint(SECRET), "support", NOW - DAY, expires_at=NOW)):
        with pytest.raises(KeyChangeInvalid, match="penstock keys create support"):
            rotated(gone, mint(SECRET), {}, NOW, overlap=DAY)


def test_a_key_that_would_have_ended_before_it_began_is_not_made() -> None:
    with pytest.raises(KeyChangeInvalid, match="has passed"):
        issued(mint(SECRET), "support", NOW, expires_at=NOW)


@pytest.mark.parametrize("routes", [(), ("*", "chat")])
def test_the_routes_of_a_key_are_all_or_named(routes: tuple[str, ...]) -> None:
    with pytest.raises(ValidationError, match="routes"):
        issued(mint(SECRET), "support", NOW, routes=routes)


def test_a_key_names_a_team_that_there_is_and_routes_that_it_may_use() -> None:
    team = Team(name="support", allowed_routes=("default", "chat"))
    routes = {name: Route(name=name, targets=(Target(backend="extractive", model="m"),)) for name in ("chat", "slow")}
    known: dict[str, dict[str, Entry]] = {"teams": {"support": team}, "routes": {**routes}}

    def problems(key: ApiKey) -> list[str]:
        return [broken.cause for broken in check_references(key, known)]

    assert problems(issued(mint(SECRET), "support", NOW, routes=("chat",))) == []
    assert problems(issued(mint(SECRET), "support", NOW)) == []
    assert problems(issued(mint(SECRET), "nobody", NOW)) == ["names 'nobody', which teams does not hold"]
    assert problems(issued(mint(SECRET), "support", NOW, routes=("slow", "gone"))) == [
        "team 'support' may not ask for 'slow'",
        "names 'gone', which routes does not hold",
        "team 'support' may not ask for 'gone'",
    ]


async def test_the_history_of_a_key_says_who_did_what_and_why() -> None:
    key = issued(mint(SECRET), "support", NOW)
    other = issued(mint(SECRET), "support", NOW)
    records: list[ConfigEntry] = []

    class Kept:
        async def send(self, topic: str, name: str, record: ConfigEntry) -> object:
            assert topic == "config-keys"
            records.append(record)

            async def acknowledged() -> None:
                return None

            return acknowledged()

    for change, author, reason in (
        (Change("keys", key.id, "new", None, key), "ann", "go live"),
        (Change("keys", other.id, "new", None, other), "ann", "another"),
        (Change("keys", key.id, "changed", key, key), "ann", "again"),
        (Change("keys", key.id, "changed", key, revoked(key, NOW + DAY)), "bob", "it stood in a log"),
    ):
        await publish_changes([change], Kept(), NOW, author=author, reason=reason)  # type: ignore[arg-type]
    versions = key_versions(records, key.id)
    assert [(each.author, each.reason) for each in versions] == [("ann", "go live"), ("bob", "it stood in a log")]
    assert versions[-1].key.revoked_at == NOW + DAY


@pytest.mark.parametrize(
    ("environment", "words"),
    [
        ({}, "is not set"),
        ({"PENSTOCK_KEYS_SECRET": ""}, "is not set"),
        ({"PENSTOCK_KEYS_SECRET": "short-one"}, "9 bytes"),
    ],
)
def test_a_missing_or_weak_secret_of_the_installation_is_named_with_its_remedy_and_not_shown(
    environment: dict[str, str], words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PENSTOCK_KEYS_SECRET", raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(SettingsError, match=rf"PENSTOCK_KEYS_SECRET.*{words}.*openssl rand -hex 32") as caught:
        installation_secret(load_settings(KeysSettings))
    assert "short-one" not in str(caught.value)


def test_the_secret_of_the_installation_is_what_the_environment_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PENSTOCK_KEYS_SECRET", SECRET.decode())
    settings = load_settings(KeysSettings)
    assert installation_secret(settings) == SECRET
    assert SECRET.decode() not in repr(settings)
