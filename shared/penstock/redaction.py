"""What must not be read in a log line, an error or a dead letter: credentials, masked wherever they stand.

Three ways, each for what the others cannot know: by the name they stand under (a header, a setting), by their form (a bearer
token, a password in an address, a private key), and by their value, where a process was given them in its settings.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from typing import Any
from urllib.parse import unquote, urlsplit

from pydantic import SecretStr
from pydantic_settings import BaseSettings

__all__ = ["MASK", "Redaction", "is_credential", "secrets_of", "without_credentials"]

MASK = "***"
"""What stands in place of a credential."""

_SHORTEST_SECRET = 8
"""Characters. What is shorter is masked by its name and form alone: as a value it would blot out ordinary words, and show
by the gaps what it is."""
_DEEPEST = 8

_CREDENTIALS = frozenset(
    {
        "authorization", "proxy_authorization", "cookie", "set_cookie", "password", "passwd", "secret", "token", "api_key",
        "apikey", "credential", "credentials", "private_key", "x_auth_token", "x_amz_security_token",
    }
)  # fmt: skip
_ENDINGS = (
    "_password",
    "_secret",
    "_api_key",
    "_apikey",
    "_access_token",
    "_refresh_token",
    "_auth_token",
    "_private_key",
)

_IN_QUERIES = "password|passwd|secret|token|access_token|api_key|apikey|key|sig|signature"

# A line of JSON is searched as well as plain text: no form may run over a quote or a backslash.
_FORMS: tuple[tuple[re.Pattern[str], str], ...] = (
    # With a digit or padding: "basic authentication" is none.
    (re.compile(r"\b(bearer|basic|digest)(\s+)(?=[\w.~+/:-]*[\d=])[\w.~+/=:-]{8,}", re.IGNORECASE), rf"\1\2{MASK}"),
    # A key of Penstock's own: its id says which it is, and is no secret.
    (re.compile(r"\b(psk_[A-Za-z0-9-]+_)[A-Za-z0-9_-]{8,}"), rf"\1{MASK}"),
    (re.compile(r"\b(sk|rk|pk|xox[abprs]|gh[oprsu])([-_])[A-Za-z0-9_-]{16,}"), rf"\1\2{MASK}"),
    # The last @ ends them: a password may hold one that is not escaped.
    # Of whatever scheme: to look for where one begins takes the square of a text that has many places for it.
    (re.compile(r"(://)[^\s/\"'\\<>]*@"), rf"\1{MASK}@"),
    (re.compile(rf"([?&](?:{_IN_QUERIES})=)[^&\s\"'\\]+", re.IGNORECASE), rf"\1{MASK}"),
    (re.compile(r"-----BEGIN ([A-Z ]*)PRIVATE KEY-----.*?(-----END \1PRIVATE KEY-----|$)", re.DOTALL), MASK),
)


def is_credential(name: str) -> bool:
    """Tell whether what stands under ``name``, of a header or a field, is a credential."""
    plain = name.strip().lower().replace("-", "_").replace(" ", "_").removeprefix("x_")
    return plain in _CREDENTIALS or f"_{plain}".endswith(_ENDINGS)


def without_credentials(headers: Iterable[tuple[str, bytes]]) -> tuple[tuple[str, bytes], ...]:
    """Return the headers of a message without those that are credentials by their name."""
    return tuple((name, value) for name, value in headers if not is_credential(name))


def secrets_of(settings: BaseSettings) -> frozenset[str]:
    """Return every value of ``settings`` that must not be printed: secret fields, and passwords within addresses."""
    found: set[str] = set()
    for name in type(settings).model_fields:
        value = getattr(settings, name)
        if isinstance(value, SecretStr):
            found.add(value.get_secret_value())
        elif isinstance(value, str) and "@" in value and "://" in value:
            try:
                password = urlsplit(value).password
            except ValueError:
                continue
            if password:
                found |= {password, unquote(password)}
    return frozenset(found)


class Redaction:
    """Masks credentials.

    Args:
        secrets: values to mask wherever they stand; what is shorter than 8 characters is not looked for.
    """

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        known = {secret for secret in secrets if len(secret) >= _SHORTEST_SECRET}
        # As they stand in text, in JSON, and in what repr() makes of them. The longest first: one may begin with another.
        written = known | {json.dumps(secret)[1:-1] for secret in known} | {repr(secret)[1:-1] for secret in known}
        pattern = "|".join(map(re.escape, sorted(written, key=len, reverse=True)))
        self._known = re.compile(pattern) if pattern else None

    def text(self, text: str) -> str:
        """Return ``text`` without credentials that are known or have the form of one."""
        if self._known is not None:
            text = self._known.sub(MASK, text)
        return _formless(text)

    def value(self, value: Any, depth: int = 0) -> Any:
        """Return ``value``, text or a structure, without credentials by name, by form and by value; it is not changed."""
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, bytes):
            return self.text(value.decode("utf-8", "replace"))
        if depth >= _DEEPEST:
            return value
        if isinstance(value, Mapping):
            return {key: self._field(str(key), item, depth) for key, item in value.items()}
        if isinstance(value, list | tuple):
            pair = _named(value)
            if pair is not None:
                return [pair, self._field(pair, value[1], depth)]
            return [self.value(item, depth + 1) for item in value]
        return value

    def event(self, logger: Any, method: str, event: Mapping[str, Any]) -> Mapping[str, Any]:
        """Redact the fields of a log event: a processor of structlog."""
        return {key: self._field(key, item, 0) for key, item in event.items()}

    def line(self, logger: Any, method: str, line: Any) -> str:
        """Redact a rendered line, objects that wrote themselves into it included: a processor of structlog, the last."""
        return self.text(str(line))

    def _field(self, name: str, value: Any, depth: int) -> Any:
        return MASK if value is not None and is_credential(name) else self.value(value, depth + 1)


def _formless(text: str) -> str:
    for form, instead in _FORMS:
        text = form.sub(instead, text)
    return text


def _named(value: list[Any] | tuple[Any, ...]) -> str | None:
    """The name, where ``value`` is a header as a pair of a name and a value."""
    if len(value) != 2:
        return None
    name = value[0].decode("latin-1") if isinstance(value[0], bytes) else value[0]
    return name if isinstance(name, str) and is_credential(name) else None
