"""The root of the command line. A sub-command's module is imported only when that command is used."""

from __future__ import annotations

import importlib
import os
from collections.abc import Mapping
from dataclasses import dataclass

import click

__all__ = ["COMMANDS", "LazyGroup", "Subcommand", "main", "use_running_stack"]


@dataclass(frozen=True, slots=True)
class Subcommand:
    """Where a sub-command is found ("module:attribute") and its line in the help."""

    target: str
    help: str


COMMANDS: Mapping[str, Subcommand] = {
    "stack": Subcommand("penstock.cli.stack:stack", "Start and stop Kafka, the registry, Redis and Qdrant locally."),
    "topics": Subcommand("penstock.cli.topics:topics", "Create the topics of the catalogue on the cluster."),
    "schemas": Subcommand("penstock.cli.schemas:schemas", "Check, register and compare the Avro schemas."),
    "config": Subcommand("penstock.cli.config:config", "Publish prompts, policies, prices, routes and teams."),
    "prices": Subcommand("penstock.cli.prices:prices", "Import prices, show them, find models without one."),
    "routes": Subcommand("penstock.cli.routes:routes", "Show, change and roll back what answers requests."),
    "keys": Subcommand("penstock.cli.keys:keys", "Make, list, rotate and revoke the API keys of teams."),
    "prompts": Subcommand("penstock.cli.prompts:prompts", "Publish, promote, roll back, render and test prompts."),
    "run": Subcommand("penstock.cli.run:run", "Run the services as processes of this machine."),
    "ingest": Subcommand("penstock.cli.ingest:ingest", "Send documents in, to be indexed for retrieval."),
    "send": Subcommand("penstock.cli.send:send", "Send requests and print their results."),
    "cancel": Subcommand("penstock.cli.cancel:cancel", "Say that nobody wants the answer to a request any more."),
    "tail": Subcommand("penstock.cli.tail:tail", "Follow a topic, decoded."),
    "audit": Subcommand("penstock.cli.audit:audit", "Tell the story of a request; prove that nothing left unjudged."),
    "ledger": Subcommand("penstock.cli.ledger:ledger", "Verify what was spent to the last digit, and report it."),
    "budgets": Subcommand("penstock.cli.budgets:budgets", "Show what every budget has left."),
    "alerts": Subcommand("penstock.cli.alerts:alerts", "See what fires; acknowledge, silence, test the way there."),
    "review": Subcommand("penstock.cli.review:review", "Decide what guardrails hold for a person."),
    "dlq": Subcommand("penstock.cli.dlq:dlq", "List, show and replay dead letters."),
    "retrieval": Subcommand("services.retrieval.command:retrieval", "Measure and try search; switch embedding models."),
    "guard": Subcommand(
        "services.guardrails.command:guard", "Try a policy on files; see what one in shadow would change."
    ),
    "evaluate": Subcommand(
        "services.evaluation.command:evaluate", "Score files, run golden sets, see what learns online."
    ),
    "experiments": Subcommand(
        "services.evaluation.experiments.command:experiments", "See what arms of live experiments differ in."
    ),
    "drift": Subcommand(
        "services.drift.lookback.command:drift", "Look back at what changed; pin or accept a reference."
    ),
    "feedback": Subcommand(
        "services.evaluation.feedback.command:feedback", "Give, read and export what people think of answers."
    ),
    "finetune": Subcommand(
        "services.inference.finetune.command:finetune", "Train adapters on feedback, evaluate, register and try them."
    ),
    "annotations": Subcommand(
        "services.evaluation.feedback.command:annotating", "Work off what was picked for people to look at."
    ),
}


_OWN_ADDRESSES = ("stack", "run", "guard")  # these look up the stack that their --name says, or need none


class LazyGroup(click.Group):
    """A group whose sub-commands are imported on use, so that help is instant and one broken import harms one command."""

    def __init__(self, subcommands: Mapping[str, Subcommand], **settings: object) -> None:
        super().__init__(**settings)  # type: ignore[arg-type]
        self._subcommands = subcommands

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names in the order of the table: the order in which they are used."""
        return list(self._subcommands)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import and return a sub-command.

        Raises:
            ClickException: its module, or something that imports, is missing.
        """
        if cmd_name not in self._subcommands:
            return None
        module, _, attribute = self._subcommands[cmd_name].target.partition(":")
        try:
            command = getattr(importlib.import_module(module), attribute)
        except ImportError as error:
            if (error.name or "").partition(".")[0] == "services":
                raise click.ClickException(
                    f"`penstock {cmd_name}` runs the services' own code, which the SDK's package does not hold: install "
                    "the project from its checkout with `pip install -r requirements/main.txt -e .`"
                ) from error
            raise click.ClickException(
                f"`penstock {cmd_name}` cannot be loaded: {error}; install what it needs with "
                "`pip install -r requirements/main.txt`"
            ) from error
        assert isinstance(command, click.Command)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the table's lines instead of importing each command for its own."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, one.help) for name, one in self._subcommands.items()])


@click.group(
    cls=LazyGroup,
    subcommands=COMMANDS,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Start with `penstock stack up`. Addresses come from the running stack, or from KAFKA_BOOTSTRAP, "
    "SCHEMA_REGISTRY_URL, REDIS_URL and QDRANT_URL where set.",
)
@click.version_option(package_name="penstock", prog_name="penstock")
@click.pass_context
def main(context: click.Context) -> None:
    """LLM operations on an event log: admit, guard, ground, answer, price, score and watch every request over Kafka."""
    if context.invoked_subcommand not in _OWN_ADDRESSES:
        use_running_stack()


def use_running_stack() -> None:
    """Put the addresses of the local stack that is up into the environment, beneath those that are set there."""
    try:
        from penstock.stack import Stack, StackError
    except ImportError:
        return  # the SDK alone is installed: there is no local stack to look for

    try:
        addresses = Stack.open().known_addresses()
    except StackError as error:
        raise click.ClickException(str(error)) from error
    for variable, value in addresses.items():
        os.environ.setdefault(variable, value)
