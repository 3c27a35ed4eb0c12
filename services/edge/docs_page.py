"""The page that shows the API to people: made of its description, without a script and without anything from elsewhere."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from html import escape
from typing import Any

__all__ = ["CONTENT_SECURITY_POLICY", "page"]

CONTENT_SECURITY_POLICY = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"
_STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }
section { border-top: 1px solid #8884; margin-top: 1.5rem; }
h2 code { font-size: 1rem; }
b { display: inline-block; min-width: 4.5rem; }
pre { background: #8882; padding: .75rem; overflow-x: auto; font-size: .85rem; }
td, th { text-align: left; vertical-align: top; padding: .2rem 1rem .2rem 0; }
td:first-child { white-space: nowrap; }
:root { color-scheme: light dark; }
"""


def page(document: Mapping[str, Any]) -> str:
    """Return the HTML of an OpenAPI ``document``."""
    info = document["info"]
    operations = "".join(
        _operation(method, path, operation)
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
    )
    schemas = "".join(
        # What a link leads to stands within: browsers open details for that, and not for the details themselves.
        f"<details><summary><code>{escape(name)}</code> {_prose(schema.get('description', ''))}</summary>"
        f'<pre id="{escape(name)}">{escape(json.dumps(schema, indent=2, ensure_ascii=False))}</pre></details>'
        for name, schema in document["components"]["schemas"].items()
    )
    return (
        '<!doctype html><html lang="en"><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(info['title'])}</title><style>{_STYLE}</style>"
        f"<h1>{escape(info['title'])}</h1><p>{escape(info['description'])}</p>"
        "<p>Send an API key as <code>Authorization: Bearer psk_...</code>. "
        'For programs: <a href="/openapi.json">openapi.json</a>.</p>'
        f"{operations}<section><h2>Types</h2>{schemas}</section></html>"
    )


def _operation(method: str, path: str, operation: Mapping[str, Any]) -> str:
    parameters = "".join(
        f"<tr><td><code>{escape(one['name'])}</code></td><td>{escape(one['in'])}</td>"
        f"<td>{_prose(one['description'])}</td></tr>"
        for one in operation.get("parameters", ())
    )
    body = _content(operation["requestBody"]) if "requestBody" in operation else "none"
    answers = "".join(
        f"<tr><td>{escape(status)}</td><td>{escape(answer['description'])}</td><td>{_content(answer)}</td></tr>"
        for status, answer in operation["responses"].items()
    )
    return (
        f"<section><h2><b>{escape(method.upper())}</b> <code>{escape(path)}</code></h2>"
        f"<p>{escape(operation['summary'])}. Body: {body}.</p>"
        + (f"<table>{parameters}</table>" if parameters else "")
        + f"<details><summary>Answers</summary><table>{answers}</table></details></section>"
    )


def _prose(text: str) -> str:
    """The first paragraph of a description, with what stands in backticks as code."""
    return re.sub(r"(`+)(.+?)\1", r"<code>\2</code>", escape(re.split(r"\n\s*\n|\s(?=Attributes:)", text)[0]))


def _content(told: Mapping[str, Any]) -> str:
    links = []
    for media, content in told["content"].items():
        name = content["schema"].get("$ref", "").rpartition("/")[2]
        links.append(f'<a href="#{escape(name)}">{escape(name)}</a>' if name else f"<code>{escape(media)}</code>")
    return " or ".join(links)
