"""Every alert that any service raises has its section in a runbook, and no section is about an alert that nobody raises."""

from __future__ import annotations

import ast
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import pytest
from click.testing import CliRunner
from penstock.cli.alerts.runbook import first_steps, sections
from penstock.cli.config import config
from penstock.contracts.records import Alert

from services.alerting.monitors import watching
from services.drift.signals import SIGNALS

PROJECT = Path(__file__).resolve().parents[2]
RUNBOOKS = PROJECT / "services" / "alerting" / "runbooks"
MAKERS = {"Alert", "Finding"}
GENERAL = re.compile(r"^(first|what to do|how it ends|by |names that|when )")
"""Sections that are about more than one alert."""


@dataclass(frozen=True)
class Raised:
    """An alert as the code makes it: its kind, and its name as a pattern, where parts of either are not constant."""

    where: str
    kind: str
    name: str

    @property
    def constant(self) -> bool:
        return "." not in self.kind + self.name

    def fits(self, kind: str, name: str) -> bool:
        return re.fullmatch(self.kind, kind) is not None and re.fullmatch(self.name, name) is not None


def text_of(node: ast.expr, constants: dict[str, str]) -> str:
    """Return an expression as a pattern: what is not constant matches anything."""
    match node:
        case ast.Constant(value=str(value)):
            return value
        case ast.JoinedStr():
            return "".join(text_of(part, constants) for part in node.values)
        case ast.Name(id=name) if name in constants:
            return constants[name]
        case ast.IfExp():
            return f"({text_of(node.body, constants)}|{text_of(node.orelse, constants)})"
        case _:
            return ".+"


def raised_in(path: Path) -> Iterator[Raised]:
    source = path.read_text("utf-8")
    if not any(f"{maker}(" in source for maker in MAKERS):
        return
    tree = ast.parse(source, str(path))
    constants = {
        target.id: node.value.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
        for target in node.targets
        if isinstance(target, ast.Name)
    }
    for folder in (path.parent, PROJECT / "services" / "alerting"):  # constants of a service's other modules
        for other in folder.glob("*.py"):
            for name, value in re.findall(r'^([A-Z_]+) = "([a-z_]+)"$', other.read_text("utf-8"), re.MULTILINE):
                constants.setdefault(name, value)
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Name) or node.func.id not in MAKERS:
            continue
        fields = {keyword.arg: keyword.value for keyword in node.keywords}
        if "kind" in fields and "name" in fields:
            where = f"{path.relative_to(PROJECT)}:{node.lineno}"
            yield Raised(where, text_of(fields["kind"], constants), text_of(fields["name"], constants))


RAISED = sorted(
    (
        raised
        for root in ("services", "shared/penstock")
        for path in (PROJECT / root).rglob("*.py")
        if "__pycache__" not in path.parts
        for raised in raised_in(path)
    ),
    key=lambda raised: raised.where,
)
EXAMPLES = re.findall(r"```yaml\n(.*?)```", (PROJECT / "infra" / "ALERTING.md").read_text("utf-8"), re.DOTALL)
PAGES = {path.stem: sections(path.read_text("utf-8")) for path in sorted(RUNBOOKS.glob("*.md"))}


def alert(kind: str, name: str, runbook: str = "") -> Alert:
    return Alert(
        event_id="e", request_id="", tenant_id="t", occurred_at=datetime(2026, 1, 5, tzinfo=UTC), causation_id="", kind=kind,
        name=name, severity="info", title="t", description="d", fingerprint="f", runbook=runbook,
    )  # fmt: skip


def test_the_code_is_read_right() -> None:
    found = {(each.kind, each.name) for each in RAISED if each.constant}
    assert {
        ("cost", "budget_threshold"),
        ("cost", "budget_exhausted"),
        ("dlq", "dead_letters"),
        ("test", "test"),
    } <= found
    assert any(each.fits("toxicity", "severe_answer") for each in RAISED if each.kind == "toxicity")


@pytest.mark.parametrize(
    "raised", [each for each in RAISED if each.constant], ids=lambda each: f"{each.kind}-{each.name}"
)
def test_every_alert_has_its_section(raised: Raised) -> None:
    assert raised.kind in PAGES, f"{raised.where} raises {raised.kind}, which has no page"
    assert raised.name in PAGES[raised.kind], (
        f"{raised.where} raises {raised.name}: {raised.kind}.md has no `## {raised.name}`"
    )
    body = PAGES[raised.kind][raised.name]
    assert len(body.split()) >= 20, f"{raised.kind}.md says next to nothing on {raised.name}"


def test_names_that_are_put_together_lead_to_sections() -> None:
    for raised in RAISED:
        if not raised.constant and raised.kind in PAGES and raised.name != ".+":
            fitting = [name for name in PAGES[raised.kind] if raised.fits(raised.kind, name)]
            assert fitting, f"{raised.where} raises {raised.name}: no section of {raised.kind}.md fits"


def test_every_monitor_has_its_section_and_says_its_name() -> None:
    made = {
        name
        for raised in RAISED
        if "/monitors/" in raised.where and raised.name != ".+"
        for name in (watching.NAMES if not raised.constant else {raised.name})
        if raised.fits(raised.kind, name)
    }
    assert made == watching.NAMES
    assert all(any(name in page for page in PAGES.values()) for name in watching.NAMES)


def test_every_signal_of_drift_has_its_section() -> None:
    names = {f"{signal.name.replace('.', '_')}_shift" for signal in SIGNALS} - {"prompt_topic_shift"} | {"topic_shift"}
    assert names <= set(PAGES["drift"]), sorted(names - set(PAGES["drift"]))


def test_guardrail_signals_have_their_sections() -> None:
    names = {f"{signal.name.replace('.', '_')}_shift" for signal in SIGNALS if signal.kind == "guardrail"}
    assert names <= set(PAGES["guardrail"]), sorted(names - set(PAGES["guardrail"]))


@pytest.mark.parametrize("page", sorted(set(PAGES) - {"drift"}))
def test_no_section_is_about_an_alert_that_nobody_raises(page: str) -> None:
    raised_by_drift = {f"{signal.name.replace('.', '_')}_shift" for signal in SIGNALS}
    orphans = [
        name
        for name in PAGES[page]
        if not GENERAL.match(name)
        and name not in raised_by_drift
        and not any(raised.fits(page, name) for raised in RAISED if raised.name != ".+")
    ]
    assert orphans == []


def test_the_command_finds_the_section_wherever_the_alert_points() -> None:
    assert first_steps(alert("lag", "consumer_lag"))[0] == "services/alerting/runbooks/lag.md#consumer_lag"
    pointed = first_steps(alert("guardrail", "input_blocked_shift", "services/alerting/runbooks/cost.md"))
    assert pointed[0] == "services/alerting/runbooks/guardrail.md#input_blocked_shift"
    assert len(pointed) > 3


@pytest.mark.parametrize(
    "path", ["/etc/passwd", "services/../../../etc/hosts.md", "infra/../x.md", "services/intake/app.py"]
)
def test_a_runbooks_path_leads_nowhere_else(path: str) -> None:
    assert first_steps(alert("unheard_of", "nothing", path)) == [path]


@pytest.mark.parametrize("block", EXAMPLES)
def test_the_operators_examples_are_valid_configuration(block: str, tmp_path: Path, project: Path) -> None:
    for kind in (project / "infra" / "config").iterdir():
        if kind.is_dir() and kind.name != "alerting":
            shutil.copytree(kind, tmp_path / kind.name)
    (tmp_path / "alerting").mkdir()
    (tmp_path / "alerting" / "example.yaml").write_text(block, "utf-8")
    run = CliRunner().invoke(config, ["validate", str(tmp_path)])
    assert run.exit_code == 0, run.output
