"""Find program code in a text: fenced, indented or bare, and name its language.

Rules over lines, not a grammar: tree-sitter's grammars for twenty languages take some 40 MB and parse prose as readily as
code, and a lexer's own guess (Pygments) costs milliseconds a block and is made for files.
"""

# ruff: noqa: E501 - an expression is read as one line
from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

import re2

__all__ = ["Block", "blocks"]

LINE = 400
"""Characters of a line that are looked at."""
_FENCE = re.compile(r"^[ \t]{0,8}(```+|~~~+)[ \t]*([\w+#.-]*)[^\n`]*$", re.M)

_ALIASES = {
    "py": "python", "python3": "python", "ipython": "python", "pycon": "python", "js": "javascript", "jsx": "javascript",
    "node": "javascript", "mjs": "javascript", "ts": "typescript", "tsx": "typescript", "sh": "shell", "bash": "shell",
    "zsh": "shell", "console": "shell", "shell-session": "shell", "terminal": "shell", "ps1": "powershell", "pwsh": "powershell",
    "bat": "batch", "cmd": "batch", "c++": "cpp", "cxx": "cpp", "cc": "cpp", "h": "c", "cs": "csharp", "c#": "csharp",
    "golang": "go", "rs": "rust", "rb": "ruby", "kt": "kotlin", "pl": "perl", "hs": "haskell", "yml": "yaml", "htm": "html",
    "postgresql": "sql", "mysql": "sql", "plsql": "sql", "tsql": "sql", "sqlite": "sql", "docker": "dockerfile", "objc": "objectivec",
    "make": "makefile", "tf": "terraform", "hcl": "terraform", "vb": "vbscript", "assembly": "asm", "nasm": "asm",
}  # fmt: skip
NOT_CODE = frozenset(
    """text txt plain plaintext md markdown output log logs csv tsv json jsonl ndjson yaml toml ini conf properties env
    diff patch http math latex tex mermaid quote none prompt email dotenv xml""".split()
)
"""Names that fences carry for what is no program: data, prose, logs."""

# A line that could stand in no prose, by language; {name} of the language, weight of evidence from 1 to 3.
_SIGNS: tuple[tuple[str, int, str], ...] = (
    ("python", 3, r"^\s*(?:async )?def \w+\(.*\)\s*(?:->.*)?:\s*(?:#.*)?$"),
    ("python", 3, r"^\s*class \w+(?:\([\w., =\[\]]*\))?:\s*$"),
    ("python", 3, r"^\s*from [\w.]+ import (?:\(|[\w*]+(?: as \w+)?(?:, *\w+(?: as \w+)?)*)\s*(?:#.*)?$"),
    ("python", 2, r"^\s*import [\w.]+(?: as \w+)?(?:, *[\w.]+(?: as \w+)?)*\s*$"),
    ("python", 2, r"^\s*(?:if|elif|while|for|with|try|except|finally|else)\b.*:\s*(?:#.*)?$"),
    ("python", 2, r"^\s*(?:return|yield|raise|assert|print\(|self\.\w+|@\w[\w.]*(?:\(.*\))?$)"),
    ("python", 3, r"^(?:>>>|\.\.\.) \S"),
    ("python", 3, r"^\s*if __name__ == ['\"]__main__['\"]:"),
    ("python", 3, r"\[.{1,80} for \w+(?:, *\w+)* in .{1,80}\]|\blambda \w+(?:, *\w+)*: \S"),
    ("javascript", 3, r"^\s*(?:export )?(?:default )?(?:async )?function\*? ?\w*\s*\([^)]*\)\s*\{?"),
    ("javascript", 3, r"^\s*(?:export )?(?:const|let|var) [\w{}\[\], :]+ ?=[^=]"),
    ("javascript", 3, r"=>\s*[{(\w]|\bconsole\.(?:log|error|warn)\(|\bdocument\.\w+|\brequire\(['\"]|\bmodule\.exports\b|\bawait fetch\("),
    ("javascript", 3, r"^\s*import .{1,80} from ['\"][^'\"]+['\"];?\s*$|^\s*import ['\"][^'\"]+['\"];?$"),
    ("typescript", 3, r"^\s*(?:export )?(?:interface|type|enum) \w+(?:<[^>]*>)?\s*(?:=|\{|extends)|:\s*(?:string|number|boolean|void|any|unknown)(?:\[\])?\s*[;,)={]"),
    ("java", 3, r"^\s*(?:public|private|protected)\s+(?:(?:static|final|abstract|synchronized|override|virtual|async)\s+)*(?:class|interface|enum|record|[\w<>\[\], ?]+\s+\w+\s*[({;=])"),
    ("java", 3, r"\bSystem\.out\.print|^\s*import (?:static )?(?:java|javax|org|com)\.[\w.*]+;|^\s*package [\w.]+;|\bnew \w+(?:<[^>]*>)?\([^)]*\);"),
    ("csharp", 3, r"^\s*using (?:System|Microsoft)[\w.]*;|^\s*namespace [\w.]+\s*[;{]?$|\bConsole\.(?:Write|Read)Line?\("),
    ("c", 3, r"^\s*#\s*(?:include\s*[<\"]|define \w|ifn?def \w|pragma \w)|\bint main\s*\(|\b(?:printf|malloc|sizeof|scanf|fprintf|memcpy|strcpy)\s*\("),
    ("cpp", 3, r"^\s*#\s*include\s*<(?:iostream|vector|string|map|algorithm|memory|fstream|sstream|set|queue|bits/stdc\+\+\.h)>|\bstd::\w+|\bcout\s*<<|^\s*using namespace \w+;|^\s*template\s*<|\b(?:public|private|protected):\s*$"),
    ("c", 2, r"^\s*(?:(?:static|const|unsigned|extern|struct)\s+)*(?:int|char|float|double|void|long|size_t|bool|auto|uint\d+_t)\s*\**\s*\w+\s*(?:\[\w*\])?\s*(?:=[^=].*;|;|\([^)]*\)\s*\{?)\s*$"),
    ("go", 3, r"^\s*func\s+(?:\(\w+ \*?\w+\)\s*)?\w+\(.*\).*\{\s*$|^package \w+\s*$|\w+ := \S|\bfmt\.(?:Print|Sprint|Errorf)"),
    ("rust", 3, r"^\s*(?:pub(?:\(\w+\))? )?(?:async )?fn \w+(?:<.*>)?\(.*\)|\blet mut \w+|^\s*(?:pub )?(?:impl|trait|struct|enum|mod|use) [\w:<>{}, ]+\s*[{;]\s*$|\b(?:println|format|vec|panic)!\s*[(\[]"),
    ("ruby", 3, r"^\s*def (?:self\.)?\w+[?!]?(?:\(.*\))?\s*$|\bdo \|\w+(?:, *\w+)*\|\s*$|^\s*(?:puts|require|require_relative|attr_\w+) [:'\"\w]|^\s*end\s*$"),
    ("php", 3, r"<\?php|^\s*\$\w+\s*=[^=].*;\s*$|\$this->\w+|^\s*echo .+;\s*$"),
    ("swift", 3, r"^\s*(?:public |private |@\w+ )*func \w+\(.*\)(?: throws)?(?: -> [\w\[\]?<>]+)?\s*\{|\bguard let \w+|\bif let \w+ ="),
    ("kotlin", 3, r"^\s*(?:override |private |public |suspend |data )*(?:fun \w+\(|class \w+\()|\bval \w+(?:: \w+)? =|\bvar \w+: \w+ ="),
    ("scala", 3, r"^\s*(?:case class|object|trait) \w+|^\s*def \w+(?:\[.*\])?\(.*\)\s*(?::\s*\w+)?\s*="),
    ("shell", 3, r"^#!\s*/(?:usr/)?bin/|^\s*\$ (?:\./)?[a-z][\w.-]*(?: |$)|^\s*(?:sudo|apt(?:-get)?|yum|dnf|brew|pip3?|npm|npx|yarn|pnpm|docker|docker-compose|kubectl|helm|git|cargo|conda|poetry|uv|terraform|systemctl|chmod|chown|mkdir|rmdir|rm|cp|mv|curl|wget|grep|sed|awk|tar|ssh|scp|rsync|export|source|cat|tail|find|echo|python3?|java|make|go|kill|nohup|crontab|dd|mkfs[.\w]*|nc|ncat|iptables|useradd|passwd|unset|alias|xargs) (?:-{1,2}\w|[\w./~$'\"@:-]+[/.=$'\"*~:-]|[a-z-]+ [\w./~$@'\"-]+(?:[/.=$*~:@-]|\s*$)|install |run |clone |add |commit |push |pull |build |apply |get |start |status\b)"),
    ("shell", 3, r"^\s*(?:if \[\[? .+ \]\]?; then|for \w+ in .+; do|while .+; do|done|fi|esac|then)\s*$|\|\s*(?:grep|awk|sed|xargs|sort|head|tail|wc|tee|bash|sh|cut|base64)\b|\s&&\s(?:\./|cd|sudo|make|npm|git|rm|docker|echo)\b|>/dev/null|2>&1"),
    ("powershell", 3, r"\b(?:Get|Set|New|Remove|Invoke|Write|Start|Stop|Add|Import|Export|Test|Out|Select|Where|ForEach|ConvertTo|ConvertFrom)-[A-Z]\w+\b.*(?:-[A-Z]\w+|\||\$|$)|^\s*\$\w+\s*=\s*(?:Get|New|Invoke|@|\[)|^\s*param\s*\("),
    ("batch", 3, r"(?i)^\s*@echo off|^\s*(?:set|goto|if (?:not )?exist|call|rem) \S+|%[\w~]+%.*\\"),
    ("sql", 3, r"(?i)^\s*(?:select\s+(?:distinct\s+)?(?:\*|[\w.`\"\[\]()*, ]+)\s+(?:from|into)\s+[\w.`\"\[(]|insert\s+into\s+\S+|update\s+[\w.`\"]+\s+set\s|delete\s+from\s+[\w.`\"]+|(?:create|alter|drop)\s+(?:or\s+replace\s+)?(?:temp(?:orary)?\s+|unique\s+)?(?:table|view|index|database|schema|procedure|function|trigger|user|role|column)\s|grant\s+\w+.*\son\s|truncate\s+(?:table\s+)?\w+;?|with\s+\w+\s+as\s*\(|merge\s+into\s)"),
    ("sql", 1, r"(?i)^\s*(?:from|where|group by|order by|having|(?:left |right |inner |outer |cross )?join|limit|union(?: all)?|values|on|and|set)\b.{0,200}[=(,;<>*.]"),
    ("html", 3, r"(?i)<(?:!doctype html|html|head|body|div|span|script|style|table|ul|li|form|input|button|iframe|nav|section|p|h[1-6]|link|meta|svg|img|a)(?:\s+[\w:-]+(?:\s*=\s*(?:\"[^\"]*\"|'[^']*'|[^\s>]+))?)*\s*/?>.*|^\s*</(?:html|head|body|div|script|style|table|ul|form|section)>"),
    ("css", 3, r"^\s*(?:[.#]?[\w-]+|\*|@media[^{]*)(?:[ ,>:+~.#\w-]|\([^)]*\))*\s*\{\s*$|^\s*[a-z-]+\s*:\s*[^;{}]{1,80};\s*$"),
    ("dockerfile", 3, r"^\s*(?:FROM [\w./:-]+(?: AS \w+)?|RUN \S+ .*|COPY \S+ \S+|ENTRYPOINT \[|CMD \[|WORKDIR /|EXPOSE \d+|ENV \w+[= ])"),
    ("terraform", 3, r"^\s*(?:resource|data|provider|module|variable|output) \"[\w-]+\"(?: \"[\w-]+\")?\s*\{"),
    ("r", 3, r"^\s*[\w.]+ <- (?:function\(|\w+\(|c\()|^\s*library\(\w+\)\s*$|%>%"),
    ("perl", 3, r"^\s*(?:my|our) [$@%]\w+\s*=|^\s*use strict;|=~ ?[ms]?/"),
    ("lua", 3, r"^\s*local (?:function )?\w+\s*(?:=|\()|^\s*function [\w.:]+\([^)]*\)\s*$"),
    ("haskell", 3, r"^\w+ :: .*->|^\s*import qualified |^module [\w.]+ where"),
    ("asm", 3, r"(?i)^\s*(?:mov[lqbw]?|push[lq]?|pop[lq]?|call|jmp|lea|xor|int|syscall|ret|cmp|add|sub)\s+(?:%?[er]?[abcds][xip]|%?r\d+|\$?0x[0-9a-f]+|\[)|^\s*(?:section|global|\.globl|\.text|\.data)\b"),
    ("any", 1, r"[;{}]\s*(?://.*)?$|^\s*[})\]]+[;,)]*\s*$|^\s*(?://|/\*|\*/)|^\s*[\w.\[\]'\"]+ ?(?:=|\+=|-=|\*=) ?[^=\s].*$|\w+\.\w+\([^)]*\);?\s*$|^\s*\w+\([^)]*\);?\s*$"),
    ("any", 1, r"(?:==|!=|&&|\|\||\+\+|->|::|===)"),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Block:
    """Code points `start` to `end` of a text (fences left out), the language, and how surely it is code (0 to 1)."""

    start: int
    end: int
    language: str
    score: float
    fenced: bool
    declared: str = ""
    """The language that the fence names, as it is written there in lower case."""


class _Signs:
    """The lines' expressions, matched together."""

    def __init__(self) -> None:
        options = re2.Options()
        options.log_errors = False
        self._set = re2.Set.SearchSet(options)
        for _, _, expression in _SIGNS:
            self._set.Add(expression)
        self._set.Compile()

    def of(self, line: str) -> list[int]:
        return list(self._set.Match(line[:LINE]) or ())


_signs = _Signs()
# What no line of code lacks: most lines of prose are let through without a closer look.
_TELLING = re.compile(
    r"[=(){}\[\];<>$|&#/@:`]|\b(?:import|FROM|from|select|SELECT|end|fi|done|def|class|sudo|git|rm|echo|chmod|dd)\b"
)


def blocks(text: str) -> Iterator[Block]:
    """Every stretch of code: fenced ones by their fence or their lines, others by their lines."""
    position = 0
    fences = list(_FENCE.finditer(text)) if "```" in text or "~~~" in text else []
    index = 0
    while index < len(fences):
        opening = fences[index]
        yield from _bare(text, position, opening.start())
        closing = None
        for later in range(index + 1, len(fences)):
            if fences[later].group(1).startswith(opening.group(1)) and not fences[later].group(2):
                closing, index = fences[later], later
                break
        start = min(opening.end() + 1, len(text))
        end = max(start, closing.start()) if closing else len(text)
        position = closing.end() if closing else len(text)
        yield from _fenced(text, start, end, opening.group(2).lower())
        if closing is None:
            return
        index += 1
    yield from _bare(text, position, len(text))


def _fenced(text: str, start: int, end: int, declared: str) -> Iterator[Block]:
    named = _ALIASES.get(declared, declared)
    content = text[start:end]
    if not content.strip():
        return
    end = start + len(content.rstrip())
    if named and named not in NOT_CODE:
        yield Block(start, end, named, 1.0, True, declared)
        return
    language, evidence, lines = _weighed(content)
    if named in NOT_CODE or _is_data(content):
        language, evidence = language or named or "text", min(evidence, 1)
    share = evidence / max(1, lines)
    score = min(0.95, 0.5 + 0.15 * share) if evidence >= 3 and share >= 0.5 else min(0.45, 0.1 * evidence)
    yield Block(start, end, language or named or "unknown", score, True, declared)


def _bare(text: str, start: int, end: int) -> Iterator[Block]:
    """Runs of lines with signs of code outside fences; one line alone counts only where it could be nothing else."""
    run: list[tuple[int, int, list[int]]] = []
    gap = 0
    position = start
    while position < end:
        stop = text.find("\n", position, end)
        stop = end if stop < 0 else stop
        line = text[position:stop]
        found = _signs.of(line) if line.strip() and _TELLING.search(line) and not _is_prose(line) else []
        if found:
            run.append((position, stop, found))
            gap = 0
        elif run:
            # Code has blank lines and lines without any sign; prose between two pieces of it parts them.
            gap += 1 if not line.strip() or len(line) < 60 else 3
            if gap > 2:
                yield from _closed(text, run)
                run, gap = [], 0
        position = stop + 1
    yield from _closed(text, run)


def _leader(votes: Counter[str]) -> str | None:
    """The language with most evidence; a dialect with evidence of its own goes before the language it extends."""
    if not votes:
        return None
    name = votes.most_common(1)[0][0]
    dialect = {"c": "cpp", "javascript": "typescript", "java": "csharp"}.get(name, "")
    return dialect if votes[dialect] else name


def _closed(text: str, run: list[tuple[int, int, list[int]]]) -> Iterator[Block]:
    if not run:
        return
    votes, evidence, strong = _votes([found for _, _, found in run])
    first, last = run[0][0], run[-1][1]
    content = text[first:last]
    is_code = evidence >= 3 and strong and not _is_data(content)
    score = min(0.95, 0.3 + 0.1 * evidence) if is_code else min(0.3, 0.1 * evidence)
    if score:
        lead = len(content) - len(content.lstrip())
        yield Block(first + lead, last, _leader(votes) or "unknown", score, False)


def _votes(lines: list[list[int]]) -> tuple[Counter[str], int, int]:
    """Evidence by language, in all, and the number of signs that name a language."""
    votes: Counter[str] = Counter()
    evidence = strong = 0
    for found in lines:
        weights = [_SIGNS[index][1] for index in found]
        evidence += max(weights, default=0)
        strong += any(_SIGNS[index][1] >= 2 for index in found)
        for index in found:
            name, weight, _ = _SIGNS[index]
            if name != "any":
                votes[name] += weight
    return votes, evidence, strong


def _weighed(content: str) -> tuple[str | None, int, int]:
    """(language, evidence, lines that are not blank) of a piece."""
    lines = [line for line in content.split("\n") if line.strip()]
    votes, evidence, _ = _votes([_signs.of(line) for line in lines])
    return _leader(votes), evidence, len(lines)


_PROSE_WORDS = re.compile(
    r"(?i)\b(?:the|is|are|you|your|this|that|of|to|and|which|with|when|can|should|will|a|an|it|und|der|die|les|des|el|los)\b"
)
_CALL = re.compile(r"\w\(|[;{}]\s*$|=>|:=|</?\w")


def _is_prose(line: str) -> bool:
    """Whether a line reads as a sentence: many small words, or an end like one, and no sign that only code has."""
    words = line.split()
    if len(words) < 5:
        return False
    small = len(_PROSE_WORDS.findall(line))
    return (
        small * 5 >= len(words)
        and not (_CALL.search(line) and small * 3 < len(words))
        and not line.lstrip().startswith(("#!", ">>>", "$ "))
    )


def _is_data(content: str) -> bool:
    """Whether a piece is JSON, or rows of a table."""
    stripped = content.strip()
    if stripped[:1] in "{[" and stripped[-1:] in "}]":
        try:
            json.loads(stripped[:200_000])
        except (ValueError, RecursionError):
            return bool(re.match(r"[\[{]\s*(?:\"[^\"\n]*\"\s*:|\{|\[|\])", stripped)) and ";" not in stripped[:2000]
        return True
    lines = [line for line in stripped.split("\n", 50) if line.strip()]
    return sum(line.lstrip().startswith("|") for line in lines) * 2 > len(lines)
