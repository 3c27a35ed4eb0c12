"""``penstock keys`` without a cluster: what it refuses before it looks, and how it shows keys."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import click
import pytest
from click.testing import CliRunner, Result
from penstock.cli.instants import UNTIL
from penstock.cli.key_tables import key_data, show_key, show_keys
from penstock.cli.keys import keys
from penstock.identity import mint
from penstock.identity.issuing import KeyVersion, issued, revoked, rotated

NOW = datetime(2026, 1, 5, 9, 0, tzinfo=UTC)
DAY = timedelta(days=1)
SECRET = b"the secret of an installation, of 32 bytes and more"


def run(*arguments: str, folder: Path, secret: str = "") -> Result:
    # An address at which nobody is: a command that gets as far as to look there fails in other words.
    environment = {
        "KAFKA_BOOTSTRAP": "127.0.0.1:1", "SCHEMA_REGISTRY_URL": "http://127.0.0.1:1", "PENSTOCK_KEYS_SECRET": secret,
        "PENSTOCK_STATE_DIR": str(folder),
    }  # fmt: skip
    return CliRunner().invoke(keys, list(arguments), env=environment)


@pytest.mark.parametrize(
    ("secret", "words"), [("", "PENSTOCK_KEYS_SECRET is not set"), ("too-short", "PENSTOCK_KEYS_SECRET has 9 bytes")]
)
def test_a_key_is_not_made_without_a_secret_of_the_installation(secret: str, words: str, tmp_path: Path) -> None:
    for arguments in (("create", "support"), ("rotate", "0123456789ab")):
        done = run(*arguments, folder=tmp_path, secret=secret)
        assert (done.exit_code, done.stdout) == (1, "")
        assert words in done.stderr
        assert "openssl rand -hex 32" in done.stderr
        assert "too-short" not in done.stderr


def test_where_no_stack_is_up_the_stack_is_what_is_missing_and_not_a_secret(tmp_path: Path) -> None:
    none: dict[str, str | None] = dict.fromkeys(("KAFKA_BOOTSTRAP", "SCHEMA_REGISTRY_URL", "PENSTOCK_KEYS_SECRET"))
    done = CliRunner().invoke(keys, ["create", "support"], env={**none, "PENSTOCK_STATE_DIR": str(tmp_path)})
    assert (done.exit_code, done.stdout) == (1, "")
    assert str(tmp_path) in done.stderr
    assert "penstock stack up" in done.stderr
    assert "PENSTOCK_KEYS_SECRET" not in done.stderr


@pytest.mark.parametrize("command", ["show", "rotate", "revoke"])
def test_a_key_in_the_place_of_its_id_is_not_repeated(command: str, tmp_path: Path) -> None:
    text = mint(SECRET).text
    done = run(command, text, folder=tmp_path)
    assert done.exit_code == 2
    assert "by its id" in done.stderr
    assert text not in done.output


def test_an_expiry_is_an_instant_to_come_or_a_span_from_now() -> None:
    before = datetime.now(UTC)
    assert before + 90 * DAY <= UNTIL.convert("90d", None, None) <= datetime.now(UTC) + 90 * DAY
    assert UNTIL.convert("9999-01-01", None, None) == datetime(9999, 1, 1, tzinfo=UTC)
    for text, words in (
        ("2020-01-01", "has passed"),
        ("0d", "no length"),
        ("soon", "90d"),
        ("999999w", "after the last"),
    ):
        with pytest.raises(click.BadParameter, match=words):
            UNTIL.convert(text, None, None)


def test_keys_are_shown_by_what_is_known_of_them_and_never_by_what_proves_them(
    capsys: pytest.CaptureFixture[str],
) -> None:
    minted = mint(SECRET)
    old = issued(minted, "support", NOW, description="the \x1b[2Jdesk [b]", routes=("chat", "default"))
    new, ending = rotated(old, mint(SECRET), {old.id: old}, NOW, overlap=DAY)
    gone = revoked(ending, NOW)
    show_keys([new, gone], NOW)
    listed = capsys.readouterr().out
    for text in (new.id, old.id, "in force", "revoked", "2026-01-06 09:00 UTC", "never", "chat, default", "[b]"):
        assert text in listed
    versions = [
        KeyVersion(old, NOW, "ann", "go live"), KeyVersion(ending, NOW, "bob", "monthly"), KeyVersion(gone, NOW, "eve"),
    ]  # fmt: skip
    show_key(gone, versions, NOW, new)
    shown = capsys.readouterr().out
    for text in (
        "was revoked at 2026-01-05T09:00:00Z",
        f"replaced by {new.id}",
        "made",
        "monthly",
        "expires 2026-01-06",
    ):
        assert text in shown
    data = json.dumps(key_data(gone, NOW, new))
    for output in (listed, shown, data):
        assert old.digest not in output
        assert "\x1b" not in output
