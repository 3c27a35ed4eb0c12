"""The schema registry, through the Confluent-compatible API that Apicurio, Karapace and Confluent's own offer.

Schemas are registered at deploy by ``penstock schemas apply``. A service looks its ids up once, at start; afterwards
the registry may be away.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self
from urllib.parse import quote

import httpx

from penstock.clock import Clock, SystemClock
from penstock.contracts.catalogue import Catalogue, Topic

__all__ = [
    "Registered", "RegisteredSchemas", "RegistryError", "RegistryUnavailable", "SchemaRegistry", "register_topic",
    "resolve_source",
]  # fmt: skip

_MEDIA_TYPE = "application/vnd.schemaregistry.v1+json"
# A start resolves two requests a topic; more at once only queue up at the registry.
_CONCURRENCY = 8
# A look-up of an unknown id happens between messages: it must not hold the partition up for long.
_LOOKUP_TIMEOUT_S = 2.0
_LOOKUP_PAUSE_S = 10.0


class RegistryError(Exception):
    """The registry said no or is not what it should be; the message names the subject, the cause and the remedy."""


class RegistryUnavailable(RegistryError):
    """The registry cannot be reached."""


@dataclass(frozen=True, slots=True)
class Registered:
    """One version of a subject as the registry has it."""

    subject: str
    version: int
    schema_id: int
    schema: Mapping[str, Any]


class SchemaRegistry:
    """A client of one registry.

    ``url`` is the base address of the API, e.g. ``http://127.0.0.1:8080/apis/ccompat/v7``; a user and a password in it
    are sent as basic authentication. Used as an async context manager.
    """

    def __init__(self, url: str, *, timeout_s: float = 10.0, transport: httpx.AsyncBaseTransport | None = None) -> None:
        self._url = httpx.URL(url)
        self._client = httpx.AsyncClient(
            base_url=_with_slash(self._url),
            timeout=timeout_s,
            headers={"Accept": f"{_MEDIA_TYPE}, application/json"},
            transport=transport,
            trust_env=not _local(self._url),
        )
        self._slots = asyncio.Semaphore(_CONCURRENCY)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._client.aclose()

    @property
    def address(self) -> str:
        """The base address, without credentials."""
        return str(self._url.copy_with(userinfo=b""))

    async def subjects(self) -> list[str]:
        """Names of all subjects.

        Raises:
            RegistryError: also where the address answers, but is no registry.
        """
        answer = await self._ask("GET", "subjects", absent=True)
        if not isinstance(answer, list):
            raise RegistryError(
                f"{self.address} is no Confluent-compatible registry: SCHEMA_REGISTRY_URL must end in its API's path, "
                "for Apicurio /apis/ccompat/v7"
            )
        return [str(name) for name in answer]

    async def register(self, subject: str, schema: Mapping[str, Any]) -> int:
        """Register ``schema`` as the newest version of ``subject`` unless it is there; return its id.

        Raises:
            RegistryError: the registry finds it incompatible or malformed; nothing was changed.
        """
        body = {"schema": json.dumps(schema, ensure_ascii=False), "schemaType": "AVRO"}
        answer = await self._ask("POST", f"subjects/{_quoted(subject)}/versions", body)
        return int(answer["id"])

    async def set_compatibility(self, subject: str, level: str) -> None:
        """Have the registry hold every further version of ``subject`` to ``level``, e.g. FULL_TRANSITIVE."""
        await self._ask("PUT", f"config/{_quoted(subject)}", {"compatibility": level})

    async def compatibility(self, subject: str) -> str | None:
        """The level set for ``subject`` itself, or None."""
        answer = await self._ask("GET", f"config/{_quoted(subject)}", absent=True)
        return None if answer is None else str(answer.get("compatibilityLevel"))

    async def versions(self, subject: str) -> list[Registered]:
        """Every version of ``subject``, oldest first; empty where it is unknown."""
        numbers = await self._ask("GET", f"subjects/{_quoted(subject)}/versions", absent=True)
        return list(await asyncio.gather(*(self._version(subject, int(number)) for number in sorted(numbers or []))))

    async def schema(self, schema_id: int) -> Mapping[str, Any] | None:
        """The schema of an id, or None where the registry knows none."""
        answer = await self._ask("GET", f"schemas/ids/{schema_id}", absent=True)
        return None if answer is None else _parsed(answer["schema"])

    async def wait(self, timeout_s: float, clock: Clock | None = None) -> None:
        """Return once the registry answers.

        Raises:
            RegistryUnavailable: it did not within ``timeout_s``.
            RegistryError: something else answers at the address.
        """
        clock = clock or SystemClock()
        give_up = clock.monotonic() + timeout_s
        while True:
            try:
                await self.subjects()
                return
            except RegistryUnavailable:
                if clock.monotonic() >= give_up:
                    raise
                await clock.sleep(0.25)

    async def _version(self, subject: str, number: int) -> Registered:
        answer = await self._ask("GET", f"subjects/{_quoted(subject)}/versions/{number}")
        return Registered(subject, number, int(answer["id"]), _parsed(answer["schema"]))

    async def _ask(self, method: str, path: str, body: Any = None, *, absent: bool = False) -> Any:
        """Return the answer's JSON; None for 404 where ``absent`` allows it."""
        content = None if body is None else json.dumps(body).encode()
        headers = {} if content is None else {"Content-Type": _MEDIA_TYPE}
        try:
            async with self._slots:
                answer = await self._client.request(method, path, content=content, headers=headers)
        except httpx.HTTPError as error:
            raise RegistryUnavailable(
                f"the schema registry at {self.address} does not answer ({type(error).__name__}: {error}); "
                "check SCHEMA_REGISTRY_URL, or start one with `penstock stack up`, which programs find by "
                '`eval "$(penstock stack env)"`'
            ) from error
        if answer.status_code == httpx.codes.NOT_FOUND and absent:
            return None
        if answer.status_code >= 500:
            raise RegistryUnavailable(f"{method} {self.address}/{path}: {answer.status_code}: {_reason(answer)}")
        if answer.is_error:
            raise RegistryError(f"{method} {self.address}/{path}: {answer.status_code}: {_reason(answer)}")
        try:
            return answer.json() if answer.content else None
        except json.JSONDecodeError:
            raise RegistryError(f"{self.address}/{path} answers no JSON: is SCHEMA_REGISTRY_URL right?") from None


class RegisteredSchemas:
    """What a codec needs of a registry: the ids found at start, and a bounded look-up of ids that appear later."""

    def __init__(
        self, subjects: Mapping[str, Sequence[Registered]], url: str, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._subjects = {
            subject: {registered.schema_id: registered.schema for registered in versions}
            for subject, versions in subjects.items()
        }
        self._url = url
        self._clock = clock
        self._not_before = float("-inf")

    def subject_ids(self, subject: str) -> Mapping[int, Mapping[str, Any]]:
        """Every version of ``subject``: id -> schema, oldest first.

        Raises:
            RegistryError: the subject is not registered.
        """
        if ids := self._subjects.get(subject):
            return ids
        raise RegistryError(f"{subject} is not registered; run `penstock schemas apply`")

    def schema(self, schema_id: int) -> Mapping[str, Any] | None:
        """Schema of an id, or None where the registry knows none.

        Raises:
            OSError: the registry cannot be reached; it is left alone for some seconds then.
        """
        if self._clock() < self._not_before:
            raise OSError("it did not answer a moment ago")
        try:
            return _look_up(self._url, schema_id)
        except OSError:
            self._not_before = self._clock() + _LOOKUP_PAUSE_S
            raise


def _look_up(url: str, schema_id: int) -> Mapping[str, Any] | None:
    """Ask for one id without an event loop: decoding is synchronous, and an id that is new after the start is rare.

    Raises:
        OSError: the registry cannot be reached or does not know what was asked.
    """
    base = httpx.URL(url)
    try:
        answer = httpx.get(
            _with_slash(base).join(f"schemas/ids/{schema_id}"), timeout=_LOOKUP_TIMEOUT_S, trust_env=not _local(base)
        )
    except httpx.HTTPError as error:
        raise OSError(f"{type(error).__name__}: {error}") from error
    if answer.status_code == httpx.codes.NOT_FOUND:
        return None
    if answer.is_error:
        raise OSError(f"it answers {answer.status_code}: {_reason(answer)}")
    return _parsed(answer.json()["schema"])


async def register_topic(registry: SchemaRegistry, topic: Topic) -> list[str]:
    """Register every version of the topic's record, oldest first, and hold the subject to its compatibility.

    Returns a line for everything that was not so before; safe to repeat.

    Raises:
        RegistryError: the registry finds a version incompatible.
    """
    done = []
    before = {registered.schema_id for registered in await registry.versions(topic.subject)}
    for number, schema in topic.versions.items():
        schema_id = await registry.register(topic.subject, schema)
        if schema_id not in before:
            done.append(f"{topic.subject}  v{number} registered as id {schema_id}")
    if await registry.compatibility(topic.subject) != topic.compatibility:
        await registry.set_compatibility(topic.subject, topic.compatibility)
        done.append(f"{topic.subject}  held to {topic.compatibility}")
    return done


async def resolve_source(
    catalogue: Catalogue, registry_url: str, timeout_s: float = 30.0, clock: Clock | None = None
) -> RegisteredSchemas:
    """Look up the ids of every topic of ``catalogue``, waiting up to ``timeout_s`` for the registry to answer.

    Raises:
        RegistryUnavailable: it did not answer in time.
        RegistryError: subjects are not registered; the message names them and the remedy.
    """
    async with SchemaRegistry(registry_url) as registry:
        await registry.wait(timeout_s, clock)
        subjects = [topic.subject for topic in catalogue.topics.values()]
        found = dict(zip(subjects, await asyncio.gather(*map(registry.versions, subjects)), strict=True))
        missing = [subject for subject, versions in found.items() if not versions]
        if missing:
            raise RegistryError(
                f"{registry.address} lacks {len(missing)} of {len(subjects)} subjects ({', '.join(missing[:3])}"
                f"{', ...' if len(missing) > 3 else ''}); run `penstock schemas apply`"
            )
        return RegisteredSchemas(found, registry_url)


def _local(url: httpx.URL) -> bool:
    """Whether ``url`` is on this machine: a proxy for the outside world must not get those requests."""
    return url.host in ("localhost", "127.0.0.1", "::1")


def _quoted(subject: str) -> str:
    return quote(subject, safe="")


def _with_slash(url: httpx.URL) -> httpx.URL:
    return url if url.path.endswith("/") else url.copy_with(path=url.path + "/")


def _parsed(text: str) -> Mapping[str, Any]:
    parsed = json.loads(text)
    return parsed if isinstance(parsed, dict) else {"type": parsed}


def _reason(answer: httpx.Response) -> str:
    try:
        body = answer.json()
        return str(body.get("message") or body.get("title") or body)[:2000]
    except (json.JSONDecodeError, AttributeError):
        return answer.text[:500] or answer.reason_phrase
