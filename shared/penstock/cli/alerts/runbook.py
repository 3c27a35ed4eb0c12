"""The page that says what to do about an alert, as far as a terminal needs it."""

from __future__ import annotations

from pathlib import PurePosixPath

from penstock.contracts.catalogue import CatalogueError, project_file
from penstock.contracts.records import Alert

__all__ = ["first_steps", "sections"]

_MOST_LINES = 24


def first_steps(alert: Alert) -> list[str]:
    """Return the page's place, then its section on the alert, else how the page begins; the place alone where the project
    is not at hand. The page is the one that the alert names, or its kind's where that one has the section."""
    pages = list(dict.fromkeys([alert.runbook, f"services/alerting/runbooks/{alert.kind}.md"]))
    texts = {page: found for page in pages if (found := _sections_of(page)) is not None}
    named = next((page for page, found in texts.items() if alert.name in found), None)
    page = named or next(iter(texts), pages[0] or pages[1])
    found = texts.get(page, {})
    body = found.get(alert.name) or next((each for title, each in found.items() if title.startswith("first")), "")
    steps = body.strip().splitlines()
    if len(steps) > _MOST_LINES:
        steps = [*steps[:_MOST_LINES], "..."]
    return [f"{page}#{alert.name}" if named else page, *([""] if steps else []), *steps]


def _sections_of(page: str) -> dict[str, str] | None:
    path = PurePosixPath(page.partition("#")[0])
    # The path is the alert's: it may lead nowhere but to a page of the project.
    if path.is_absolute() or ".." in path.parts or path.suffix != ".md" or path.parts[:1] != ("services",):
        return None
    try:
        return sections(project_file(str(path)).read_text("utf-8"))
    except (CatalogueError, OSError):
        return None


def sections(text: str) -> dict[str, str]:
    """Return the bodies of a page's sections, of the second and third level, by their titles in small letters."""
    found: dict[str, str] = {}
    title = None
    for line in text.splitlines():
        if line.startswith(("## ", "### ")):
            title = line.lstrip("#").strip().strip("`").lower()
            found[title] = ""
        elif title is not None:
            found[title] += f"{line}\n"
    return found
