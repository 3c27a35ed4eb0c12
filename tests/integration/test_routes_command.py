"""``penstock routes`` on real Kafka: a route is made, changed, shown with its history, and rolled back."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from penstock.cli.routes import routes

TARGETS = """name: {name}
targets:
- {{backend: extractive, model: penstock-extractive-1, weight: 3}}
- {{backend: extractive, model: penstock-extractive-1, name: second}}
"""
CANARY = (
    TARGETS + "canary: {{share: 0.1, target: {{backend: extractive, model: penstock-extractive-1, name: tried}}}}\n"
)


class Command:
    """``penstock routes`` in this process."""

    def __init__(self, deployed: Mapping[str, str]) -> None:
        self._environment = dict(deployed)

    def __call__(self, *arguments: object, answer: str | None = None) -> Result:
        return CliRunner().invoke(routes, [str(each) for each in arguments], input=answer, env=self._environment)

    def json(self, *arguments: object) -> Any:
        result = self(*arguments, "--json")
        assert result.exit_code == 0, result.stderr
        return json.loads(result.stdout)


@pytest.fixture
def command(deployed: Mapping[str, str], penstock_cli: Any) -> Iterator[Command]:
    yield Command(deployed)
    assert penstock_cli(["config", "apply"], deployed).returncode == 0  # withdraws the routes of the test


def test_a_route_is_made_changed_shown_and_rolled_back(command: Command, tmp_path: Path) -> None:
    name = f"route-{uuid.uuid4().hex[:8]}"
    file = tmp_path / "route.yaml"
    unknown = command("show", name)
    assert (unknown.exit_code, f"there is no route {name}" in unknown.stderr) == (1, True)

    file.write_text(TARGETS.format(name=name))
    made = command("set", name, "--file", file, "--yes", "--author", "ann", "--reason", "new")
    assert made.exit_code == 0, made.stderr
    assert f"+ routes/{name}" in made.stdout
    assert "the next `penstock config apply` takes it back" in made.stderr

    refused = command("set", name, "--weight", "second=9", answer="n\n")
    assert refused.exit_code == 1
    assert "targets.1.weight: default -> 9" in refused.stdout
    dry = command("set", name, "--weight", "second=9", "--dry-run")
    assert (dry.exit_code, "nothing published" in dry.stdout) == (0, True)
    agreed = command("set", name, "--weight", "second=9", "--author", "bob", "--reason", "more", answer="y\n")
    assert agreed.exit_code == 0, agreed.stderr

    shown = command.json("show", name)
    first, second = shown["history"]
    assert [target["share"] for target in shown["targets"]] == [0.25, 0.75]
    assert (first["author"], first["reason"], second["author"], second["reason"]) == ("ann", "new", "bob", "more")
    assert (first["closed_at"], second["closed_at"]) == (second["published_at"], None)
    assert shown["in_force_since"] == second["published_at"]

    back = command.json("rollback", name, "--yes", "--author", "eve", "--reason", "worse")
    assert (back["published"], back["before"], back["version"]) == (True, second["version"], first["version"])
    assert back["changes"] == [{"field": "targets.1.weight", "before": 9, "after": None}]
    again = command.json("rollback", name, "--to", second["version"][:8], "--yes")
    assert again["version"] == second["version"]

    # Where a canary is on trial, it is what is taken out.
    file.write_text(CANARY.format(name=name))
    assert command("set", name, "--file", file, "--weight", "second=5", "--yes").exit_code == 0
    assert command.json("show", name)["canary"] == {"name": "tried", "share": 0.1, "taken_back": None}
    assert command("rollback", name, "--yes").exit_code == 0
    shown = command.json("show", name)
    assert shown["canary"] is None
    assert shown["history"][-1]["route"]["targets"][1]["weight"] == 5
    assert name in command("list").stdout

    file.write_text(TARGETS.format(name=name) + "policy: no-such-policy\n")
    invalid = command("set", name, "--file", file, "--yes")
    assert invalid.exit_code == 2
    assert f"routes/{name}: policy: names 'no-such-policy', which policies does not hold" in invalid.stderr
    assert command.json("show", name)["version"] == shown["version"]
