"""YAML as plain data that remembers the line of every value, with numbers as exact as they were written."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from typing import Any

import yaml
from yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

__all__ = ["Document", "FieldPath", "YamlError", "read_yaml"]

FieldPath = tuple[str | int, ...]
"""Keys and indexes from the top of a document to a value."""


class YamlError(Exception):
    """The text is no usable YAML; ``line`` (from 1) says where."""

    def __init__(self, line: int, cause: str, remedy: str) -> None:
        super().__init__(f"line {line}: {cause}")
        self.line = line
        self.cause = cause
        self.remedy = remedy


@dataclass(frozen=True, slots=True)
class Document:
    """Data and the line (from 1) of every path in it."""

    data: Any
    lines: Mapping[FieldPath, int]

    def line(self, path: FieldPath) -> int:
        """Return the line of ``path``, or of the nearest thing around it that exists."""
        while path not in self.lines and path:
            path = path[:-1]
        return self.lines.get(path, 1)


def read_yaml(text: str) -> Document:
    """Parse one YAML document.

    Numbers with a fraction become :class:`decimal.Decimal` from their own digits: a price of 1.5e-07 never passes
    through a binary float.

    Raises:
        YamlError: the text is malformed, holds several documents, repeats a key, or refers to itself.
    """
    loader = yaml.SafeLoader(text)
    try:
        root = loader.get_single_node()
        lines: dict[FieldPath, int] = {}
        data = None if root is None else _Reader(loader, lines).value(root, (), ())
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        cause = " ".join(part for part in (error.context, error.problem) if part)
        raise YamlError(mark.line + 1 if mark else 1, f"not YAML: {cause}", "mend the syntax") from None
    except yaml.YAMLError as error:
        raise YamlError(1, f"not YAML: {error}", "save the file as UTF-8 text without control characters") from None
    finally:
        loader.dispose()
    return Document(data, lines)


class _Reader:
    def __init__(self, loader: yaml.SafeLoader, lines: dict[FieldPath, int]) -> None:
        self._loader = loader
        self._lines = lines

    def value(self, node: Node, path: FieldPath, above: tuple[int, ...]) -> Any:
        line = node.start_mark.line + 1
        self._lines.setdefault(path, line)
        if id(node) in above:
            raise YamlError(line, "the value contains itself through an alias", "write it out")
        above = (*above, id(node))
        if isinstance(node, MappingNode):
            return self._mapping(node, path, above)
        if isinstance(node, SequenceNode):
            return [self.value(item, (*path, index), above) for index, item in enumerate(node.value)]
        assert isinstance(node, ScalarNode)
        if node.tag == "tag:yaml.org,2002:float":
            try:
                return Decimal(node.value.replace("_", ""))
            except InvalidOperation:
                return node.value  # .inf, .nan and base 60 are refused by the field they stand in
        try:
            return self._loader.construct_object(node)
        except ValueError as error:
            raise YamlError(line, f"{node.value!r} is not what it looks like: {error}", "quote it") from None

    def _mapping(self, node: MappingNode, path: FieldPath, above: tuple[int, ...]) -> dict[str, Any]:
        own = {id(key) for key, _ in node.value}
        self._loader.flatten_mapping(node)  # merge keys: << brings the entries of another mapping in
        result: dict[str, Any] = {}
        given: set[str] = set()
        for key_node, value_node in node.value:
            line = key_node.start_mark.line + 1
            if not isinstance(key_node, ScalarNode):
                raise YamlError(line, "a key is a list or a mapping", "write a plain name before the colon")
            key = key_node.value
            if id(key_node) in own:
                if key in given:
                    raise YamlError(line, f"the key {key!r} stands here a second time", "remove one of the two")
                given.add(key)
            self._lines[(*path, key)] = line
            result[key] = self.value(value_node, (*path, key), above)
        return result
