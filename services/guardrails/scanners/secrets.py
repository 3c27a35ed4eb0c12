"""Keys and credentials: formats that their issuers document, and assignments of a high-entropy value to a telling name."""

import math
from collections import Counter

from services.guardrails.findings import Reference, Rule, Span
from services.guardrails.scanners.patterns import PatternSet, without_overlaps

MIN_ENTROPY = 3.0
"""Bits per character from which the value of an assignment counts as random (Shannon); English words stay below at such
lengths.
"""

FORMATS: tuple[tuple[str, float, str], ...] = (
    ("AWS_ACCESS_KEY", 1.0, r"\b((?:AKIA|ASIA|ABIA|ACCA)[A-Z2-7]{16})\b"),
    (
        "AWS_SECRET_KEY",
        1.0,
        r"(?i)aws[\w .-]{0,20}(?:secret|key)[\w .-]{0,20}[\"']?\s*[:=]\s*[\"']?([A-Za-z0-9/+]{40})(?:[^A-Za-z0-9/+]|$)",
    ),
    ("GITHUB_TOKEN", 1.0, r"\b(gh[pousr]_[A-Za-z0-9]{36,255}|github_pat_[A-Za-z0-9]{22}_[A-Za-z0-9]{59})\b"),
    ("GITLAB_TOKEN", 1.0, r"\b(gl(?:pat|ptt|dt|rt|cbt|oas)-[A-Za-z0-9_-]{20,})"),
    ("ANTHROPIC_API_KEY", 1.0, r"\b(sk-ant-[A-Za-z0-9_-]{20,})"),
    ("OPENAI_API_KEY", 1.0, r"\b(sk-(?:proj-|svcacct-|admin-|None-)?[A-Za-z0-9_-]{20,})"),
    ("SLACK_TOKEN", 1.0, r"\b(xox[abeoprs]-[A-Za-z0-9-]{10,}|xapp-\d-[A-Za-z0-9-]{10,})"),
    ("SLACK_WEBHOOK", 1.0, r"(hooks\.slack\.com/(?:services|workflows|triggers)/[A-Za-z0-9/_+-]{20,})"),
    ("GOOGLE_API_KEY", 1.0, r"\b(AIza[A-Za-z0-9_-]{35})"),
    ("GOOGLE_OAUTH_TOKEN", 1.0, r"\b(ya29\.[A-Za-z0-9_-]{20,}|GOCSPX-[A-Za-z0-9_-]{28})"),
    ("STRIPE_KEY", 1.0, r"\b([rs]k_(?:live|test)_[A-Za-z0-9]{16,}|whsec_[A-Za-z0-9+/=]{24,})"),
    ("TWILIO_KEY", 0.9, r"\b(SK[0-9a-f]{32})\b"),
    ("SENDGRID_KEY", 1.0, r"\b(SG\.[A-Za-z0-9_-]{22}\.[A-Za-z0-9_-]{43})"),
    ("MAILGUN_KEY", 0.9, r"\b(key-[0-9a-f]{32})\b"),
    ("NPM_TOKEN", 1.0, r"\b(npm_[A-Za-z0-9]{36})\b"),
    ("PYPI_TOKEN", 1.0, r"\b(pypi-AgEIcHlwaS5vcmc[A-Za-z0-9_-]{50,})"),
    ("HUGGINGFACE_TOKEN", 1.0, r"\b(hf_[A-Za-z0-9]{30,})\b"),
    ("DOCKER_TOKEN", 1.0, r"\b(dckr_(?:pat|oat)_[A-Za-z0-9_-]{20,})"),
    ("TELEGRAM_TOKEN", 1.0, r"\b(\d{8,10}:AA[A-Za-z0-9_-]{33})\b"),
    ("DISCORD_TOKEN", 0.9, r"\b([MNO][A-Za-z0-9_-]{23,25}\.[A-Za-z0-9_-]{6}\.[A-Za-z0-9_-]{27,38})\b"),
    ("AZURE_STORAGE_KEY", 1.0, r"(?i)AccountKey=([A-Za-z0-9+/]{86}==)"),
    ("DIGITALOCEAN_TOKEN", 1.0, r"\b(do[opr]_v1_[0-9a-f]{64})\b"),
    ("DATABRICKS_TOKEN", 1.0, r"\b(dapi[0-9a-f]{32})\b"),
    ("SHOPIFY_TOKEN", 1.0, r"\b(shp(?:at|ca|pa|ss)_[0-9a-fA-F]{32})\b"),
    ("SQUARE_TOKEN", 1.0, r"\b(sq0(?:atp|csp|idp)-[A-Za-z0-9_-]{22,})"),
    ("VAULT_TOKEN", 1.0, r"\b(hv[sbr]\.[A-Za-z0-9_-]{24,})"),
    ("GRAFANA_TOKEN", 1.0, r"\b(gl(?:c|sa)_[A-Za-z0-9_+/=]{32,})"),
    ("LINEAR_API_KEY", 1.0, r"\b(lin_api_[A-Za-z0-9]{40})\b"),
    ("PRIVATE_KEY", 1.0, r"(-----BEGIN (?:[A-Z0-9]+ )*PRIVATE KEY(?: BLOCK)?-----[A-Za-z0-9+/=\s\\:,.()-]*)"),
    ("JWT", 0.95, r"\b(eyJ[A-Za-z0-9_-]{8,}\.eyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{8,})"),
    ("BEARER_TOKEN", 0.85, r"(?i)\bbearer\s+([A-Za-z0-9._~+/-]{20,}=*)"),
    ("BASIC_AUTH", 0.9, r"(?i)authorization[\"']?\s*[:=]\s*[\"']?basic\s+([A-Za-z0-9+/]{12,}=*)"),
    (
        "URL_CREDENTIALS",
        0.9,
        r"[a-zA-Z][a-zA-Z0-9+.-]{1,20}://[^\s:/@\"'<>{}$]{1,100}:([^\s/@\"'<>{}$]{3,100})@[A-Za-z0-9\[]",
    ),
)
"""(kind, score, RE2 expression): the first group is the secret."""

ASSIGNMENT = (
    r"(?i)(?:pass(?:word|wd|phrase)?|pwd|secret|token|api[ _-]?key|access[ _-]?key|private[ _-]?key"
    r"|client[ _-]?secret|credential)s?[\w-]{0,20}"
    r"[\"'`]?\s{0,3}(?::|=>|:=|==?|\bis\b)\s{0,3}[\"'`]?([^\s\"'`,;<>(){}\[\]]{8,128})"
)
_PLACEHOLDERS = (
    "example",
    "your",
    "xxxx",
    "****",
    "changeme",
    "placeholder",
    "dummy",
    "${",
    "environ",
    "getenv",
    "config.",
    "settings.",
    "self.",
    "...",
)


class SecretsScanner:
    """Finds credentials. The generic assignment counts only where the value mixes letters and digits and looks random."""

    name = "secrets"
    version = "1"
    default_threshold = 0.5

    def __init__(self) -> None:
        self._patterns = PatternSet([expression for _, _, expression in FORMATS] + [ASSIGNMENT], first_group=True)

    def scan(self, text: str, rule: Rule, reference: Reference) -> list[Span]:
        found = []
        for index, start, end in self._patterns.matches(text):
            if index < len(FORMATS):
                kind, score, _ = FORMATS[index]
                found.append(Span(kind, start, end, 0.3 if _is_placeholder(kind, text[start:end]) else score))
            elif (score := _assigned_score(text[start:end])) > 0:
                found.append(Span("CREDENTIAL", start, end, score))
        return without_overlaps(found)


def _is_placeholder(kind: str, value: str) -> bool:
    """Whether a value has the shape of a secret, but is a word: `sk-learn-...`, `user:password@host`."""
    if kind not in ("OPENAI_API_KEY", "URL_CREDENTIALS") or any(map(str.isdigit, value)):
        return False
    return kind == "OPENAI_API_KEY" or any(word in value.lower() for word in ("pass", "secret", "key", "token", "pw"))


def _assigned_score(value: str) -> float:
    lowered = value.lower()
    if any(part in lowered for part in _PLACEHOLDERS):
        return 0.0
    mixed = any(map(str.isdigit, value)) and any(map(str.isalpha, value))
    if not mixed:
        return 0.0
    bits = entropy(value)
    return 0.75 if bits >= MIN_ENTROPY else 0.55 if bits >= MIN_ENTROPY - 0.5 else 0.0


def entropy(value: str) -> float:
    """Shannon entropy of the characters, bits per character; 0 for the empty text."""
    size = len(value)
    return -sum(count / size * math.log2(count / size) for count in Counter(value).values())
