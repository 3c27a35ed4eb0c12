"""``penstock guard``: a policy tried on files, and what a policy in shadow would have changed."""

from __future__ import annotations

from penstock.cli.main import LazyGroup, Subcommand

__all__ = ["guard"]

guard = LazyGroup(
    {
        "scan": Subcommand("services.guardrails.command.scan:scan", "Judge the lines of a file, without the stack."),
        "evaluate": Subcommand(
            "services.guardrails.command.evaluate:evaluate", "Measure a policy on labelled lines, without the stack."
        ),
        "report": Subcommand(
            "services.guardrails.command.report:report", "Say what rules and policies in shadow would have changed."
        ),
    },
    name="guard",
    help="Try a policy on files, and see what one in shadow would have changed.",
)
