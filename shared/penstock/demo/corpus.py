"""The documents of a demo run: the documentation in Python's own standard library, or a folder of the user's."""

from __future__ import annotations

import ast
import importlib.util
import sysconfig
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

__all__ = ["CONTENT_TYPES", "CorpusError", "Source", "folder", "standard_library"]

CONTENT_TYPES = {
    ".txt": "text/plain",
    ".rst": "text/plain",
    ".md": "text/markdown",
    ".markdown": "text/markdown",
    ".html": "text/html",
    ".htm": "text/html",
}
"""Content type by file suffix: what ``--docs`` takes."""

_LARGEST_FILE = 4 * 1024 * 1024

# Enough for questions about the language and its library, and no more than one core embeds in a quarter of a minute.
_LARGEST_TOPIC = 30_000
# A topic is left out where at least this share of its paragraphs stands in smaller topics: pydoc keeps chapters beside
# their own sections, and a passage that is stored twice takes another's place among the best few.
_GATHERED = 0.4
_OF_TOOLS = frozenset({"debugger"})

_MODULES = (
    "asyncio.events", "asyncio.locks", "asyncio.queues", "asyncio.runners", "asyncio.streams", "asyncio.subprocess",
    "asyncio.taskgroups", "asyncio.tasks", "asyncio.timeouts", "bisect", "concurrent.futures._base", "copy",
    "email.header", "email.message", "email.parser", "email.policy", "email.utils", "heapq", "http.client",
    "http.server", "ipaddress", "multiprocessing.connection", "multiprocessing.managers", "multiprocessing.pool",
    "multiprocessing.process", "multiprocessing.shared_memory", "pickle", "poplib", "queue", "sched", "selectors",
    "smtplib", "socket", "socketserver", "sqlite3", "ssl", "subprocess", "threading", "urllib.error", "urllib.parse",
    "urllib.request",
)  # fmt: skip


class CorpusError(Exception):
    """There are no documents to ingest; the message names the cause and the remedy."""


@dataclass(frozen=True, slots=True)
class Source:
    """One document before it is sent."""

    document_id: str
    title: str
    source: str
    content_type: str
    content: str


def standard_library() -> list[Source]:
    """Return the language's topics (``pydoc_data``) and the docstrings of well-documented modules.

    Modules are parsed, not imported: nothing of them runs.

    Raises:
        CorpusError: this Python was installed without its ``pydoc_data``.
    """
    found = [*_topics(), *_modules(_MODULES)]
    if not found:
        raise CorpusError("this Python carries no documentation; give a folder of documents with --docs")
    return found


def folder(root: Path) -> list[Source]:
    """Return every text, Markdown, reStructuredText and HTML file under ``root``, hidden ones left out.

    Raises:
        CorpusError: ``root`` is no folder or holds no such file, or one of them is not UTF-8 or is too large.
    """
    if not root.is_dir():
        raise CorpusError(f"{root} is no folder; give one that holds {', '.join(CONTENT_TYPES)} files")
    found = []
    for path in sorted(root.rglob("*")):
        relative = path.relative_to(root)
        content_type = CONTENT_TYPES.get(path.suffix.lower())
        if content_type is None or not path.is_file() or any(part.startswith(".") for part in relative.parts):
            continue
        if (size := path.stat().st_size) > _LARGEST_FILE:
            raise CorpusError(f"{path} is {size:,} bytes, more than the {_LARGEST_FILE:,} allowed; split it")
        try:
            content = path.read_text("utf-8")
        except UnicodeDecodeError as error:
            raise CorpusError(f"{path} is not UTF-8 ({error.reason} at byte {error.start}); convert it") from error
        if content.strip():
            title = _heading(content) if content_type != "text/html" else ""
            found.append(Source(relative.as_posix(), title or path.stem, str(relative), content_type, content))
    if not found:
        raise CorpusError(f"{root} holds no document; put files named *{', *'.join(CONTENT_TYPES)} there")
    return found


def _topics() -> Iterator[Source]:
    try:
        from pydoc_data.topics import topics
    except ImportError as error:
        raise CorpusError(
            "this Python was installed without pydoc_data; install your system's full python3 package, or give a "
            "folder of documents with --docs"
        ) from error
    seen: set[str] = set()
    for name, text in sorted(topics.items(), key=lambda item: len(item[1])):
        paragraphs = {" ".join(paragraph.split()) for paragraph in text.split("\n\n")} - {""}
        if name in _OF_TOOLS or len(text) > _LARGEST_TOPIC or not paragraphs:
            continue
        if len(paragraphs & seen) / len(paragraphs) >= _GATHERED:
            continue
        seen |= paragraphs
        yield Source(f"topics/{name}", _heading(text) or name, f"pydoc_data.topics[{name!r}]", "text/plain", text)


def _heading(text: str) -> str:
    """The first line that says something, without the marks of a heading."""
    for line in text.splitlines():
        if stripped := line.strip().strip("#*=-~ ").strip('"'):
            return stripped[:120]
    return ""


def _modules(names: Iterable[str]) -> Iterator[Source]:
    library = Path(sysconfig.get_path("stdlib"))
    for name in names:
        path = library.joinpath(*name.split("."))
        path = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
        if not path.is_file():
            continue  # modules come and go between Python's versions
        tree = ast.parse(importlib.util.decode_source(path.read_bytes()))
        sections = list(_sections(tree))
        if sections:
            text = f"{name}\n\n" + "\n\n".join(sections)
            title = f"{name}: {_summary(tree)}" if _summary(tree) else name
            yield Source(f"modules/{name}", title, f"Lib/{path.relative_to(library)}", "text/plain", text)


def _summary(tree: ast.Module) -> str:
    return _heading(ast.get_docstring(tree) or "").rstrip(".")


def _sections(tree: ast.Module) -> Iterator[str]:
    """The module's docstring, then those of its public functions, classes and methods under their signatures."""
    if text := ast.get_docstring(tree):
        yield text
    yield from _definitions(tree.body, "")


def _definitions(body: Sequence[ast.stmt], owner: str) -> Iterator[str]:
    for node in body:
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) or node.name.startswith("_"):
            continue
        qualified = f"{owner}{node.name}"
        if text := ast.get_docstring(node):
            yield f"{_signature(node, qualified)}\n{text}"
        if isinstance(node, ast.ClassDef):
            yield from _definitions(node.body, f"{qualified}.")


def _signature(node: ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef, name: str) -> str:
    if isinstance(node, ast.ClassDef):
        return f"class {name}"
    arguments = [a.arg for a in (*node.args.posonlyargs, *node.args.args) if a.arg not in ("self", "cls")]
    if node.args.vararg:
        arguments.append(f"*{node.args.vararg.arg}")
    arguments += [a.arg for a in node.args.kwonlyargs]
    if node.args.kwarg:
        arguments.append(f"**{node.args.kwarg.arg}")
    return f"{name}({', '.join(arguments)})"
