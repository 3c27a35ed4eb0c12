"""Python that does harm or lets others do it, by its syntax tree: what is called, and with what.

The checks follow those of Bandit (its names are given), which itself is made for files: it takes some 20 ms a run and four
packages more.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

__all__ = ["UnsafeCall", "unsafe_calls"]

_OUTSIDE = re.compile(
    r"request|input|argv|recv|body|payload|cookie|user|query|param|form|untrusted|upload|socket|urlopen|response|untrust|message",
    re.I,
)
_SQL = re.compile(r"(?is)^\s*(?:select\b.*\bfrom|insert\s+into|update\b.*\bset|delete\s+from|drop\s|alter\s|create\s)")
_PICKLES = frozenset({"pickle", "cPickle", "_pickle", "dill", "marshal", "jsonpickle", "cloudpickle", "shelve"})
_CLIENTS = frozenset({"requests", "httpx", "aiohttp", "session", "client", "s", "self.session", "urllib3"})


@dataclass(frozen=True, slots=True)
class UnsafeCall:
    """Lines and columns (UTF-8 bytes) of a call as `ast` gives them, and how bad it is, from 0 to 1."""

    line: int
    column: int
    end_line: int
    end_column: int
    score: float


def unsafe_calls(tree: ast.AST) -> Iterator[UnsafeCall]:
    """Everything in the tree that is found, in no order."""
    nodes = list(ast.walk(tree))
    imported = _imported(nodes)
    texts = _assembled_names(nodes)
    for node in nodes:
        score = 0.0
        if isinstance(node, ast.Call):
            score = _of_call(node, imported, texts)
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            score = _of_assignment(node)
        elif isinstance(node, ast.While) and _is_endless(node) and _calls(node, "fork"):
            score = 0.95
        if score and isinstance(node, ast.stmt | ast.expr):
            yield UnsafeCall(
                node.lineno, node.col_offset, node.end_lineno or node.lineno, node.end_col_offset or 0, score
            )


def _imported(nodes: Sequence[ast.AST]) -> dict[str, str]:
    """Dotted names by the names that imports give them."""
    names: dict[str, str] = {}
    for node in nodes:
        if isinstance(node, ast.Import):
            names.update({alias.asname: alias.name for alias in node.names if alias.asname})
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.update({alias.asname or alias.name: f"{node.module}.{alias.name}" for alias in node.names})
    return names


def _assembled_names(nodes: Sequence[ast.AST]) -> frozenset[str]:
    """Variables that hold SQL put together from parts."""
    return frozenset(
        target.id
        for node in nodes
        if isinstance(node, ast.Assign) and _is_assembled(node.value) and _SQL.match(_literal_start(node.value))
        for target in node.targets
        if isinstance(target, ast.Name)
    )


def _name(node: ast.AST, imported: dict[str, str]) -> str:
    parts: list[str] = []
    while isinstance(node, ast.Attribute):
        parts.append(node.attr)
        node = node.value
    if isinstance(node, ast.Name):
        parts.append(imported.get(node.id, node.id))
    elif isinstance(node, ast.Call):
        parts.append(_name(node.func, imported) + "()" if len(parts) < 8 else "")
    return ".".join(reversed(parts))


def _of_call(node: ast.Call, imported: dict[str, str], texts: frozenset[str]) -> float:
    name = _name(node.func, imported)
    for test in (_runs_code, _runs_shell, _reads_objects, _trusts_anyone, _other):
        if score := test(name, node):
            return score
    return _of_query(name, node, texts)


def _runs_code(name: str, node: ast.Call) -> float:
    """B102, B307."""
    if name not in ("eval", "exec", "builtins.eval", "builtins.exec") or not node.args:
        return 0.0
    argument = node.args[0]
    if isinstance(argument, ast.Constant):
        return 0.3
    source = ast.unparse(argument)
    if _OUTSIDE.search(source) or re.search(r"b64decode|decompress|fromhex|loads\(|codecs\.decode", source):
        return 0.95
    return 0.7


def _runs_shell(name: str, node: ast.Call) -> float:
    """B602, B605."""
    shell = name in (
        "os.system",
        "os.popen",
        "commands.getoutput",
        "subprocess.getoutput",
        "subprocess.getstatusoutput",
    ) or (
        name.startswith(("subprocess.", "asyncio.create_subprocess_shell"))
        and (_keyword(node, "shell") is True or "shell" in name)
    )
    if re.fullmatch(r"__import__\(\)\.(?:system|popen)", name):
        return 0.9
    if not shell or not node.args:
        return 0.0
    argument = node.args[0]
    if isinstance(argument, ast.Constant):
        return 0.2
    return 0.9 if _OUTSIDE.search(ast.unparse(argument)) or _is_assembled(argument) else 0.75


def _reads_objects(name: str, node: ast.Call) -> float:
    """B301, B506."""
    module, _, function = name.rpartition(".")
    if module in _PICKLES and function in ("load", "loads", "open", "decode", "Unpickler") and node.args:
        source = ast.unparse(node.args[0])
        return 0.85 if _OUTSIDE.search(source) else 0.55 if function == "loads" else 0.45
    if name in ("yaml.unsafe_load", "yaml.full_load"):
        return 0.7
    if name == "yaml.load":
        loader = ast.unparse(node.args[1]) if len(node.args) > 1 else _source(node, "Loader")
        return 0.0 if loader and "Safe" in loader else 0.7
    if name == "torch.load":
        return 0.6 if _keyword(node, "weights_only") is False else 0.0
    if name.endswith("load") and _keyword(node, "allow_pickle") is True:
        return 0.6
    return 0.0


def _trusts_anyone(name: str, node: ast.Call) -> float:
    """B501, B323, B507."""
    if _keyword(node, "verify") is False or (_keyword(node, "ssl") is False and name.partition(".")[0] in _CLIENTS):
        return 0.75
    if name == "ssl._create_unverified_context" or name.endswith("AutoAddPolicy"):
        return 0.7
    return 0.6 if _source(node, "cert_reqs") in ("'CERT_NONE'", "ssl.CERT_NONE") else 0.0


def _other(name: str, node: ast.Call) -> float:
    """B202, B303, B306, B201, server-side templates, roots removed."""
    first = node.args[0] if node.args else None
    if name == "shutil.rmtree" and isinstance(first, ast.Constant):
        return 0.9 if re.fullmatch(r"/|~|/(?:home|etc|usr|var|root)/?|[A-Za-z]:[\\/]?", str(first.value)) else 0.0
    if name == "shutil.rmtree" and first is not None:
        return (
            0.7
            if re.search(r"expanduser\('~'\)$|Path\.home\(\)$", ast.unparse(first))
            or _OUTSIDE.search(ast.unparse(first))
            else 0.0
        )
    if name == "tempfile.mktemp":
        return 0.5
    if name in ("hashlib.md5", "hashlib.sha1") and first is not None:
        return 0.6 if re.search(r"pass(?:word|wd|phrase)?\b|pwd", ast.unparse(first), re.I) else 0.0
    if name.endswith("render_template_string") and first is not None:
        return 0.8 if not isinstance(first, ast.Constant) else 0.0
    if name.endswith(".run") and _keyword(node, "debug") is True:
        return 0.7 if _keyword(node, "host") == "0.0.0.0" else 0.4
    if name.endswith(".extractall") and "zip" not in name.lower():
        return 0.4 if _keyword(node, "filter") is None else 0.0
    return 0.0


def _of_query(name: str, node: ast.Call, texts: frozenset[str]) -> float:
    """B608: SQL that is put together from parts."""
    if name.rpartition(".")[2] not in (
        "execute",
        "executemany",
        "executescript",
        "raw",
        "read_sql",
        "read_sql_query",
        "text",
        "query",
    ):
        return 0.0
    if not node.args:
        return 0.0
    argument = node.args[0]
    if isinstance(argument, ast.Name) and argument.id in texts:
        return 0.8
    return 0.8 if _is_assembled(argument) and _SQL.match(_literal_start(argument)) else 0.0


def _of_assignment(node: ast.Assign | ast.AnnAssign) -> float:
    targets = node.targets if isinstance(node, ast.Assign) else [node.target]
    names = {target.attr for target in targets if isinstance(target, ast.Attribute)}
    value = ast.unparse(node.value) if node.value is not None and names else ""
    if "check_hostname" in names and value == "False":
        return 0.7
    if "verify_mode" in names and value.endswith("CERT_NONE"):
        return 0.7
    if "verify" in names and value == "False":
        return 0.7
    return 0.8 if "_create_default_https_context" in names and "unverified" in value else 0.0


def _is_assembled(node: ast.AST) -> bool:
    """Whether a text is made of parts that are not all constants."""
    if isinstance(node, ast.JoinedStr):
        return any(isinstance(part, ast.FormattedValue) for part in node.values)
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add | ast.Mod):
        return not all(isinstance(side, ast.Constant) for side in (node.left, node.right))
    return isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "format"


def _literal_start(node: ast.AST) -> str:
    while isinstance(node, ast.BinOp | ast.Call | ast.Attribute):
        node = node.left if isinstance(node, ast.BinOp) else node.func if isinstance(node, ast.Call) else node.value
    if isinstance(node, ast.JoinedStr):
        # A value in the place of a name (a table) still begins as SQL does.
        return "".join(str(part.value) if isinstance(part, ast.Constant) else " x " for part in node.values)
    return str(node.value) if isinstance(node, ast.Constant) else ""


def _keyword(node: ast.Call, name: str) -> object:
    """The constant given for a keyword; None where there is none."""
    for keyword in node.keywords:
        if keyword.arg == name and isinstance(keyword.value, ast.Constant):
            return keyword.value.value
    return None


def _source(node: ast.Call, name: str) -> str:
    return next((ast.unparse(keyword.value) for keyword in node.keywords if keyword.arg == name), "")


def _is_endless(node: ast.While) -> bool:
    return isinstance(node.test, ast.Constant) and bool(node.test.value)


def _calls(node: ast.AST, attribute: str) -> bool:
    return any(
        isinstance(inner, ast.Call) and isinstance(inner.func, ast.Attribute) and inner.func.attr == attribute
        for inner in ast.walk(node)
    )
