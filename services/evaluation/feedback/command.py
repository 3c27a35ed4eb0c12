"""``penstock feedback`` and ``penstock annotations``: what people think of answers."""

from __future__ import annotations

from penstock.cli.main import LazyGroup, Subcommand

__all__ = ["annotating", "feedback"]

_PACKAGE = "services.evaluation.feedback"

feedback = LazyGroup(
    {
        "give": Subcommand(f"{_PACKAGE}.command_give:give", "Rate, label, correct or comment on an answer."),
        "list": Subcommand(f"{_PACKAGE}.command_give:list_", "Show what people said, and of what."),
        "export": Subcommand(f"{_PACKAGE}.command_export:export", "Write a dataset made of feedback."),
    },
    name="feedback",
    help="Give, read and export what people think of answers.",
)

annotating = LazyGroup(
    {
        "list": Subcommand(f"{_PACKAGE}.command_annotations:list_", "Show what waits for annotators."),
        "next": Subcommand(f"{_PACKAGE}.command_annotations:next_", "Show the next task, and label it."),
        "label": Subcommand(f"{_PACKAGE}.command_annotations:label", "Label a task without being asked."),
        "agreement": Subcommand(f"{_PACKAGE}.command_agreement:agreement", "Say how far annotators agree."),
    },
    name="annotations",
    help="Work off what was picked for people to look at.",
)
