"""``penstock keys`` on real Kafka: a key is made, known again from the log, rotated and revoked."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Mapping
from typing import Any

import pytest
from click.testing import CliRunner, Result
from penstock.bus import KafkaBus, history
from penstock.cli.keys import keys
from penstock.clock import SystemClock
from penstock.config.plane import ConfigPlane
from penstock.contracts.catalogue import Catalogue
from penstock.contracts.codec import Codec
from penstock.identity import KEY_PATTERN, KeyDirectory, KeyUnknown
from penstock.settings import KafkaSettings

SECRET = "the secret of the tests' installation, 32 bytes and more"


class Command:
    """``penstock keys`` in this process."""

    def __init__(self, deployed: Mapping[str, str]) -> None:
        self._environment = {**deployed, "PENSTOCK_KEYS_SECRET": SECRET}

    def __call__(self, *arguments: object, answer: str | None = None) -> Result:
        return CliRunner().invoke(keys, [str(each) for each in arguments], input=answer, env=self._environment)

    def printed(self, *arguments: object) -> str:
        result = self(*arguments)
        assert result.exit_code == 0, result.stderr
        assert re.fullmatch(KEY_PATTERN + "\n", result.stdout)
        assert result.stdout.strip() not in result.stderr
        return result.stdout.strip()

    def json(self, *arguments: object) -> Any:
        result = self(*arguments, "--json")
        assert result.exit_code == 0, result.stderr
        return json.loads(result.stdout)


def test_a_key_is_made_known_again_rotated_and_revoked(
    deployed: Mapping[str, str], kafka_settings: KafkaSettings
) -> None:
    command = Command(deployed)
    refused = command("create", "nobody")
    assert (refused.exit_code, refused.stdout) == (1, "")
    assert "names 'nobody', which teams does not hold" in refused.stderr

    old = command.printed(
        "create", "support", "--description", "desk", "--expires", "30d", "--author", "ann", "--reason", "go live"
    )
    old_id = old.split("_")[1]
    new = command.printed("rotate", old_id, "--overlap", "1h", "--author", "bob", "--reason", "as every month")
    new_id = new.split("_")[1]
    known, _ = asyncio.run(published(kafka_settings))
    assert [known.key(key).team for key in (old, new)] == ["support", "support"]
    listed = {key["id"]: key for key in command.json("list", "--team", "support")}
    assert (listed[old_id]["replaced_by"], listed[new_id]["replaces"]) == (new_id, old_id)
    assert listed[old_id]["expires_at"] < listed[new_id]["expires_at"]

    revoked = command("revoke", old_id, "--author", "eve", "--reason", "it stood in a log", answer="y\n")
    assert revoked.exit_code == 0, revoked.stderr
    known, log = asyncio.run(published(kafka_settings))
    with pytest.raises(KeyUnknown, match="was revoked"):
        known.key(old)
    assert known.key(new).team == "support"
    shown = command.json("show", old_id)
    assert [(each["author"], each["reason"]) for each in shown["history"]] == [
        ("ann", "go live"), ("bob", "as every month"), ("eve", "it stood in a log"),
    ]  # fmt: skip
    assert (shown["state"], shown["replaced_by"]) == ("revoked", new_id)
    assert old_id.encode() in log
    for key in (old, new):
        assert key.split("_")[2].encode() not in log


async def published(settings: KafkaSettings) -> tuple[KeyDirectory, bytes]:
    """What the log says of keys now, as a service reads it and as it stands there."""
    codec = await Codec.resolve(Catalogue.load(), settings.schema_registry_url)
    async with KafkaBus(settings, client_id="keys-test") as bus:
        plane = await ConfigPlane.open(bus, codec)
        await plane.close()
        async with history(bus, ["config-keys"]) as messages:
            log = b"".join([message.value or b"" async for message in messages])
    return KeyDirectory(plane, SECRET.encode(), SystemClock()), log
