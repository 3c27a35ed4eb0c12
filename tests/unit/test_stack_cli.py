"""The command line's root: instant help, and one broken command harms no other."""

from __future__ import annotations

import subprocess
import sys

import click
import pytest
from click.testing import CliRunner
from penstock.cli.main import COMMANDS, LazyGroup, Subcommand, main


@pytest.fixture
def group() -> LazyGroup:
    return LazyGroup(
        {
            "works": Subcommand("penstock.cli.stack:env", "Works."),
            "broken": Subcommand("penstock.cli.no_such_module:command", "Is broken."),
            "renamed": Subcommand("penstock.cli.stack:no_such_command", "Has another name now."),
        }
    )


def test_help_lists_every_command_with_its_line() -> None:
    shown = CliRunner().invoke(main, ["--help"])
    assert shown.exit_code == 0
    for name, command in COMMANDS.items():
        assert f"{name} " in shown.output
        assert command.help in shown.output


def test_help_imports_no_command() -> None:
    program = (
        "import sys\n"
        "from penstock.cli.main import main\n"
        "try: main(['--help'])\n"
        "except SystemExit: pass\n"
        "print(*[name for name in sys.modules if name.startswith(('penstock.', 'rich', 'httpx', 'psutil'))])\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1].split() == ["penstock.cli", "penstock.cli.main"]


def test_a_command_that_cannot_be_imported_says_so_and_harms_no_other(group: LazyGroup) -> None:
    assert "Is broken." in CliRunner().invoke(group, ["--help"]).output
    broken = CliRunner().invoke(group, ["broken"])
    assert broken.exit_code == 1
    assert "`penstock broken` cannot be loaded: No module named 'penstock.cli.no_such_module'" in broken.output
    assert "requirements/main.txt" in broken.output
    assert CliRunner().invoke(group, ["works", "--help"]).exit_code == 0


def test_a_command_whose_module_lacks_it_is_not_blamed_on_the_installation(group: LazyGroup) -> None:
    result = CliRunner().invoke(group, ["renamed"])
    assert isinstance(result.exception, AttributeError)


def test_an_unknown_command_is_a_usage_error() -> None:
    result = CliRunner().invoke(main, ["stak"])
    assert result.exit_code == 2
    assert "No such command 'stak'" in result.output


def test_the_group_is_what_click_expects() -> None:
    context = click.Context(main)
    assert main.get_command(context, "no such") is None
    assert main.list_commands(context)[0] == "stack"
