"""``penstock retrieval``: how well passages are found, and what they are found in."""

from __future__ import annotations

from penstock.cli.main import LazyGroup, Subcommand

__all__ = ["retrieval"]

retrieval = LazyGroup(
    {
        "evaluate": Subcommand(
            "services.retrieval.quality.command_evaluate:evaluate",
            "Measure search on a question set; compare ways to search; fail where it became worse.",
        ),
        "search": Subcommand(
            "services.retrieval.command.search:search", "Show which passages a question would be given."
        ),
        "status": Subcommand(
            "services.retrieval.command.collections:status", "Show the collections and which one answers."
        ),
        "switch": Subcommand("services.retrieval.command.collections:switch", "Let the next embedding model answer."),
        "drop": Subcommand(
            "services.retrieval.command.collections:drop", "Remove the collection of a model that was replaced."
        ),
        "cache": Subcommand(
            "services.retrieval.command.cache:cache", "Figures of the semantic cache; remove answers from it."
        ),
    },
    name="retrieval",
    help="Measure and look into search; see and switch the collections that it searches.",
)
